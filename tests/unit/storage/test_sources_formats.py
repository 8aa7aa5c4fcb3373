"""Every format: rows, types, pruning, skipping, compression."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from antinfer.core.plan import Shard
from antinfer.errors import JobFileError
from antinfer.storage.sources import SOURCE_TYPES, open_source
from antinfer.storage.sources.base import InputFile, Source, Target
from tests.unit.storage.reading import opened, reopened, rows_between, rows_of, shard_of, shards_of


def table(rows: int, first: int = 0) -> pa.Table:
    ids = range(first, first + rows)
    words, scores = [f"w{i}" for i in ids], [i / 4 + 0.1 for i in ids]
    return pa.table({"id": pa.array(ids, pa.int64()), "word": pa.array(words, pa.string()), "score": pa.array(scores, pa.float64())})


def write_parquet(path: Path, data: pa.Table) -> None:
    pq.write_table(data, path, row_group_size=100)


def write_csv(path: Path, data: pa.Table) -> None:
    pcsv.write_csv(data, path)


def write_jsonl(path: Path, data: pa.Table) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in data.to_pylist()))


def write_arrow(path: Path, data: pa.Table) -> None:
    with pa.ipc.new_file(path, data.schema) as writer:
        writer.write_table(data, max_chunksize=100)


def write_stream(path: Path, data: pa.Table) -> None:
    with pa.ipc.new_stream(path, data.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(data, max_chunksize=100)


WRITERS: dict[str, tuple[str, Callable[[Path, pa.Table], None]]] = {
    "parquet": ("parquet", write_parquet),
    "csv": ("csv", write_csv),
    "jsonl": ("jsonl", write_jsonl),
    "arrow": ("arrow", write_arrow),
    "arrow-stream": ("arrow", write_stream),
}


@pytest.fixture(params=list(WRITERS))
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, pa.Table]:
    """A data set of three files, the second without rows."""
    kind, write = WRITERS[request.param]
    write(tmp_path / "a", table(1000))
    write(tmp_path / "b", table(0))
    write(tmp_path / "c", table(250, 1000))
    return kind, tmp_path, table(1250)


def test_round_trip(written: tuple[str, Path, pa.Table]) -> None:
    kind, folder, data = written
    source = opened(kind, folder)
    assert source.frozen_schema is not None
    assert source.frozen_schema.equals(data.schema)
    shards = shards_of(source, target_bytes=3000)
    assert [shard.index for shard in shards] == list(range(len(shards)))
    again = reopened(kind, folder, source)
    assert rows_of(again, shards, 77) == data.to_pylist()
    assert sum(again.count_rows(shard) for shard in shards) == 1250
    assert all(shard.rows in (None, again.count_rows(shard)) and shard.rows != 0 for shard in shards)


def test_pruned_columns_keep_their_order(written: tuple[str, Path, pa.Table]) -> None:
    kind, folder, data = written
    source = opened(kind, folder, columns=["score", "id"])
    assert source.frozen_schema is not None
    assert source.frozen_schema.names == ["score", "id"]
    again = reopened(kind, folder, source, columns=["score", "id"])
    assert rows_of(again, shards_of(source)) == data.select(["score", "id"]).to_pylist()


@pytest.mark.parametrize("batch_rows", [1, 64, 100_000])
def test_any_range_of_rows(written: tuple[str, Path, pa.Table], batch_rows: int) -> None:
    kind, folder, data = written
    source = opened(kind, folder)
    [shard] = [Shard(shards[0].index, tuple(p for s in shards for p in s.pieces), None, 0) for shards in [shards_of(source)]]
    expected = data.to_pylist()
    inside = [(0, 1), (99, 101), (100, 200), (950, 1100), (1000, 1001), (1249, 1250), (7, 7)]
    for start, stop in [*inside, (1200, 5000), (1250, 1300), (9999, 10_000)]:
        assert rows_between(source, shard, start, stop, batch_rows) == expected[start:stop]


def test_reads_go_on_where_the_last_one_stopped(written: tuple[str, Path, pa.Table]) -> None:
    kind, folder, data = written
    source = opened(kind, folder)
    [shard] = [Shard(shards[0].index, tuple(p for s in shards for p in s.pieces), None, 0) for shards in [shards_of(source)]]
    opens: list[int] = []
    original = source._shard_rows  # type: ignore[attr-defined]
    source._shard_rows = lambda *args: opens.append(args[1]) or original(*args)  # type: ignore[attr-defined]
    found = [row for start in range(0, 1250, 130) for row in rows_between(source, shard, start, start + 130, 64)]
    assert found == data.to_pylist()
    assert opens == [0]
    assert rows_between(source, shard, 130, 131, 64) == data.to_pylist()[130:131]
    assert opens == [0, 130]


def test_parked_reads_are_bounded(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", table(1000))
    source = opened("parquet", tmp_path)
    [shard] = shards_of(source)
    for start in range(0, 900, 10):
        assert rows_between(source, shard, start, start + 3) == table(3, start).to_pylist()
    assert len(source._parked._cursors) == 4  # type: ignore[attr-defined]


def test_abandoned_read_leaves_nothing_behind(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", table(1000))
    source = opened("parquet", tmp_path)
    [shard] = shards_of(source)
    batches = source.read(shard, 0, 500, 10)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert rows_between(source, shard, 10, 20) == table(10, 10).to_pylist()


# -- parquet ---------------------------------------------------------------------------------------------------------------------------
def test_parquet_pieces_follow_row_groups(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", table(1000))
    source = opened("parquet", tmp_path)
    [file] = source.list_files()
    sized = source.pieces(file, Target(size_bytes=1 << 40, rows=300))
    assert [(one.piece.start, one.piece.stop, one.piece.rows) for one in sized] == [(0, 3, 300), (3, 6, 300), (6, 9, 300), (9, 10, 100)]
    assert len(source.pieces(file, Target(size_bytes=1, rows=None))) == 10
    everything = sum(one.size_bytes for one in sized)
    narrow = opened("parquet", tmp_path, columns=["id"]).pieces(file, Target(size_bytes=1 << 40, rows=None))
    assert narrow[0].size_bytes < everything / 2


def test_parquet_carries_nested_values_nulls_and_odd_names(tmp_path: Path) -> None:
    data = pa.table(
        {
            "a.b": [1, None, 3],
            "list": [[1, 2], None, []],
            "record": [{"x": 1, "y": [None]}, None, {"x": None, "y": None}],
            "when": pa.array([dt.datetime(2024, 1, 1, tzinfo=dt.UTC), None, None], pa.timestamp("us", "UTC")),
            "kind": pa.array(["u", None, "v"]).dictionary_encode(),
        }
    )
    pq.write_table(data.replace_schema_metadata({"antinfer.record": "{}"}), tmp_path / "a.parquet")
    source = opened("parquet", tmp_path, columns=["record", "a.b", "list", "kind", "when"])
    assert source.frozen_schema is not None
    assert source.frozen_schema.metadata is None
    assert rows_of(source, shards_of(source)) == data.select(["record", "a.b", "list", "kind", "when"]).to_pylist()


def test_column_order_and_nullability_of_siblings_do_not_matter(tmp_path: Path) -> None:
    required = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("word", pa.string())])
    pq.write_table(pa.table({"id": [1], "word": ["a"]}, schema=required), tmp_path / "a.parquet")
    pq.write_table(pa.table({"word": ["b"], "id": pa.array([None], pa.int64())}), tmp_path / "b.parquet")
    source = opened("parquet", tmp_path)
    assert rows_of(source, shards_of(source)) == [{"id": 1, "word": "a"}, {"id": None, "word": "b"}]


def test_column_of_nulls_without_a_type_fits_its_siblings(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "word": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [2, 3], "word": pa.nulls(2)}), tmp_path / "b.parquet")
    source = opened("parquet", tmp_path)
    assert rows_of(source, shards_of(source)) == [{"id": 1, "word": "a"}, {"id": 2, "word": None}, {"id": 3, "word": None}]


# -- line formats ----------------------------------------------------------------------------------------------------------------------
def compressed(path: Path, suffix: str, data: bytes) -> Path:
    target = path.with_name(path.name + suffix)
    match suffix:
        case ".gz":
            half = len(data) // 2
            target.write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]))
        case ".bz2":
            target.write_bytes(bz2.compress(data))
        case _:
            with pa.CompressedOutputStream(str(target), {".zst": "zstd", ".lz4": "lz4"}[suffix]) as out:
                out.write(data)
    return target


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".lz4"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "text"])
def test_compressed_text_is_one_piece_a_file(tmp_path: Path, kind: str, suffix: str) -> None:
    plain = tmp_path / f"x.{kind}"
    if kind == "text":
        plain.write_text("".join(f"line {i}\n" for i in range(5000)))
    else:
        WRITERS[kind][1](plain, table(5000))
    expected = rows_of(opened(kind, plain), shards_of(opened(kind, plain)))
    packed = compressed(plain, suffix, plain.read_bytes())
    source = opened(kind, packed)
    [shard] = shards_of(source, target_bytes=1000)
    assert [(piece.start, piece.stop, piece.rows) for piece in shard.pieces] == [(0, 0, None)]
    assert source.count_rows(shard) == 5000
    assert rows_of(source, [shard]) == expected
    assert rows_between(source, shard, 4990, 4993) == expected[4990:4993]


def test_text_files_without_bytes_have_no_rows(tmp_path: Path) -> None:
    for kind in ("csv", "jsonl", "text"):
        (tmp_path / "empty").write_bytes(b"")
        source = opened(kind, tmp_path)
        assert shards_of(source) == []


def test_csv_with_header_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,word\n")
    (tmp_path / "b.csv").write_text("n,word\n1,x\n")
    source = opened("csv", tmp_path)
    assert source.frozen_schema is not None
    assert source.frozen_schema.field("n").type == pa.int64(), "types come from the first file that has rows"
    assert rows_of(source, shards_of(source)) == [{"n": 1, "word": "x"}]
    alone = opened("csv", tmp_path / "a.csv")
    assert sum(alone.count_rows(shard) for shard in shards_of(alone)) == 0


def test_csv_options(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("7;'a;b';NA\n\n8;'it\\'s';2.5\n")
    options: dict[str, Any] = {"delimiter": ";", "quote": "'", "escape": "\\", "header": ["n", "s", "x"], "null_values": ["NA"]}
    source = opened("csv", tmp_path / "a.csv", **options, schema={"n": "int8"})
    assert source.frozen_schema is not None
    assert source.frozen_schema.types == [pa.int8(), pa.string(), pa.float64()]
    assert rows_of(source, shards_of(source)) == [{"n": 7, "s": "a;b", "x": None}, {"n": 8, "s": "it's", "x": 2.5}]


def test_csv_values_that_span_lines(tmp_path: Path) -> None:
    rows = [{"n": i, "s": f"a\nb,{i}\r\n"} for i in range(1000)]
    (tmp_path / "a.csv").write_bytes(b"n,s\n" + "".join(f'{row["n"]},"{row["s"]}"\n' for row in rows).encode())
    (tmp_path / "b.csv").write_text("n,s\n")
    source = opened("csv", tmp_path, newlines_in_values=True)
    [shard] = shards_of(source, target_bytes=1 << 20)
    assert [(piece.start, piece.stop, piece.rows) for piece in shard.pieces] == [(0, 0, None)]
    assert source.count_rows(shard) == 1000
    assert rows_of(source, [shard]) == rows
    assert rows_between(source, shard, 500, 502) == rows[500:502]


def test_csv_type_of_a_column_without_values_is_string(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,s\n1,\n")
    (tmp_path / "b.csv").write_text("n,s\n2,late\n")
    source = opened("csv", tmp_path)
    assert rows_of(source, shards_of(source)) == [{"n": 1, "s": ""}, {"n": 2, "s": "late"}]


def test_csv_line_longer_than_a_parser_step(tmp_path: Path) -> None:
    long = "x" * (3 << 20)
    (tmp_path / "a.csv").write_text(f"n,s\n1,a\n2,{long}\n3,b\n")
    source = opened("csv", tmp_path)
    assert [len(row["s"]) for row in rows_of(source, shards_of(source))] == [1, 3 << 20, 1]


def test_jsonl_missing_fields_are_null_and_declared_ones_may_come_late(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2, "b": [1]}\n\n{"a": null}\n')
    (tmp_path / "b.jsonl").write_text('{"late": "x"}\n')
    source = opened("jsonl", tmp_path, schema={"late": "string", "b": "list<int32>"})
    assert source.frozen_schema is not None
    assert source.frozen_schema.field("b").type == pa.list_(pa.int32())
    found = rows_of(source, shards_of(source))
    assert [row["late"] for row in found] == [None, None, None, "x"]
    assert [row["b"] for row in found] == [None, [1], None, None]


def test_jsonl_other_fields_are_left_out_when_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2, "new": {"x": 1}}\n')
    source = opened("jsonl", tmp_path, columns=["a"])
    assert rows_of(source, shards_of(source)) == [{"a": 1}, {"a": 2}]


# -- files -----------------------------------------------------------------------------------------------------------------------------
def test_files(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / f"{i:02}.bin").write_bytes(bytes([i]) * i)
    source = opened("files", tmp_path / "**" / "*.bin")
    shards = shards_of(source, target_rows=8)
    assert [shard.rows for shard in shards if shard.rows and shard.rows > 8] == []
    assert sum(shard.rows or 0 for shard in shards) == 30
    expected = [{"path": str(tmp_path / "d" / f"{i:02}.bin"), "bytes": bytes([i]) * i} for i in range(30)]
    assert rows_of(source, shards, 3) == expected
    assert rows_between(source, shards[-1], 1, 2) == rows_of(source, [shards[-1]])[1:2]
    names = opened("files", tmp_path, columns=["path"])
    assert rows_of(names, shards_of(names)) == [{"path": row["path"]} for row in expected]


def test_batches_of_files_end_at_a_number_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antinfer.storage.sources.files.BATCH_BYTES", 100)
    for i in range(10):
        (tmp_path / str(i)).write_bytes(b"x" * 40)
    source = opened("files", tmp_path)
    shard = shards_of(source)[-1]
    assert [batch.num_rows for batch in source.read(shard, 0, 3, 1000)] == [3]
    assert shard_of(*shard.pieces).rows == 3
    whole = shard_of(*[piece for one in shards_of(source) for piece in one.pieces])
    assert [batch.num_rows for batch in source.read(whole, 0, 10, 1000)] == [3, 3, 3, 1]


# -- opening ---------------------------------------------------------------------------------------------------------------------------
def test_unknown_type_lists_the_allowed_ones() -> None:
    with pytest.raises(JobFileError, match="parket") as error:
        open_source("parket", "x")
    assert all(kind in error.value.hint for kind in SOURCE_TYPES)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("csv", {"delimeter": ";"}, "delimeter"),
        ("csv", {"delimiter": ";;"}, "delimiter"),
        ("csv", {"header": "a,b"}, "header"),
        ("csv", {"newlines_in_values": "yes"}, "newlines_in_values"),
        ("jsonl", {"schema": {"a": "integer"}}, "schema.a"),
        ("text", {"schema": {}}, "schema"),
        ("parquet", {"storage": {"region": "x"}}, "region"),
        ("parquet", {"region": "x"}, "region"),
        ("parquet", {"storage": "x"}, "storage"),
    ],
)
def test_wrong_options_name_the_field(kind: str, options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match=said) as error:
        open_source(kind, str(tmp_path), options=options).list_files()
    assert error.value.hint or "expected" in str(error.value)


def test_no_paths_and_no_columns_are_refused() -> None:
    with pytest.raises(JobFileError, match="path"):
        open_source("csv", [])
    with pytest.raises(JobFileError, match="columns"):
        open_source("csv", "x", columns=[])


def test_sources_satisfy_the_port(tmp_path: Path) -> None:
    source: Source = open_source("text", str(tmp_path))
    assert source.pieces(InputFile("x", 10, ""), Target(4, None))[0].piece.rows is None
    assert shard_of(source.pieces(InputFile("x", 10, ""), Target(4, None))[0].piece).rows is None
