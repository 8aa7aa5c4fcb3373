"""Bad input: an error of ours that names the file, the place in it and the way out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.errors import DataError, SchemaMismatchError, SourceError
from antinfer.storage.sources import open_source
from tests.unit.storage.reading import opened, rows_of, shards_of


def failure(kind: str, path: Path, columns: list[str] | None = None, **options: Any) -> DataError:
    """Plan and read everything; return the error."""

    def everything() -> None:
        source = opened(kind, path, columns, **options)
        rows_of(source, shards_of(source))

    with pytest.raises(DataError) as error:
        everything()
    return error.value


def test_missing_column_names_the_near_ones(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1], "word": ["a"]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("user_id,word\n1,a\n")
    (tmp_path / "a.jsonl").write_text('{"user_id": 1, "word": "a"}\n')
    with pa.ipc.new_file(tmp_path / "a.arrow", pa.schema([("user_id", pa.int64())])) as writer:
        writer.write(pa.record_batch({"user_id": [1]}))
    for kind in ("parquet", "csv", "jsonl", "arrow"):
        error = failure(kind, tmp_path / f"a.{kind}", ["userid"])
        assert isinstance(error, SourceError)
        assert f"a.{kind}: column 'userid' not found" in str(error)
        assert "'user_id'" in error.hint


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"id": [1.5], "word": ["a"]}, "column 'id' has type double, the other files have int64"),
        ({"id": [1]}, "column 'word' is missing"),
        ({"id": [1], "word": ["a"], "more": [1]}, "column 'more' is not in the other files"),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_another_schema_than_its_siblings(tmp_path: Path, kind: str, second: dict[str, list[Any]], said: str) -> None:
    for name, data in (("a", {"id": [1], "word": ["a"]}), ("b", second)):
        table = pa.table(data)
        if kind == "parquet":
            pq.write_table(table, tmp_path / name)
        else:
            with pa.ipc.new_file(tmp_path / name, table.schema) as writer:
                writer.write_table(table)
    error = failure(kind, tmp_path)
    assert isinstance(error, SchemaMismatchError)
    assert str(error).startswith(f"{tmp_path}/b: {said}")
    if "more" in second:
        source = opened(kind, tmp_path, ["id"])
        assert len(rows_of(source, shards_of(source))) == 2


@pytest.mark.parametrize("header", ["id,wort", "id", "id,word,more"])
def test_another_csv_header_than_its_siblings(tmp_path: Path, header: str) -> None:
    (tmp_path / "a.csv").write_text("id,word\n1,a\n")
    (tmp_path / "b.csv").write_text(header + "\n")
    error = failure("csv", tmp_path)
    assert isinstance(error, SchemaMismatchError)
    assert str(error).startswith(f"{tmp_path}/b.csv: column ")


def test_mismatch_is_seen_by_a_reader_that_did_not_plan(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1]}), tmp_path / "a.parquet")
    source = opened("parquet", tmp_path)
    shards = shards_of(source)
    pq.write_table(pa.table({"id": ["x"]}), tmp_path / "a.parquet")
    reader = open_source("parquet", str(tmp_path), frozen_schema=source.frozen_schema)
    with pytest.raises(SchemaMismatchError, match=r"a\.parquet"):
        rows_of(reader, shards)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_empty_truncated_and_foreign_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"")
    assert f"{path}: the file is empty" in str(failure(kind, path))
    if kind == "parquet":
        pq.write_table(pa.table({"id": list(range(10_000))}), path)
    else:
        with pa.ipc.new_file(path, pa.schema([("id", pa.int64())])) as writer:
            writer.write(pa.record_batch({"id": list(range(10_000))}))
    path.write_bytes(path.read_bytes()[:-100])
    error = failure(kind, path)
    assert isinstance(error, SourceError)
    assert str(path) in str(error)
    assert "truncated" in error.hint
    path.write_text("just text, nothing else, but long enough to look for a magic number")
    assert str(path) in str(failure(kind, path))


def test_damaged_page_names_file_and_row_group(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": list(range(10_000))}), path, row_group_size=5000, compression="zstd", use_dictionary=False)
    source = opened("parquet", path)
    shards = shards_of(source)
    raw = bytearray(path.read_bytes())
    offset = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    raw[offset + 40 : offset + 4000] = bytes(3960)
    path.write_bytes(raw)
    with pytest.raises(SourceError, match=r"x\.parquet \(row groups"):
        rows_of(source, shards)


def test_file_gone_between_plan_and_read(tmp_path: Path) -> None:
    for kind in ("parquet", "csv", "jsonl", "text", "files"):
        path = tmp_path / "x"
        if kind == "parquet":
            pq.write_table(pa.table({"id": [1]}), path)
        else:
            path.write_text('{"a": 1}\n{"a": 2}\n')
        source = opened(kind, path)
        shards = shards_of(source)
        path.unlink()
        reader = open_source(kind, str(path), frozen_schema=source.frozen_schema)
        with pytest.raises(SourceError, match=f"{path}: it does not exist"):
            rows_of(reader, shards)


def test_row_groups_fewer_than_planned(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": list(range(100))}), path, row_group_size=10)
    source = opened("parquet", path)
    shards = shards_of(source)
    pq.write_table(pa.table({"id": list(range(100))}), path)
    with pytest.raises(SourceError, match="the plan knows 10"):
        rows_of(open_source("parquet", str(path), frozen_schema=source.frozen_schema), shards)


# -- lines -----------------------------------------------------------------------------------------------------------------------------
def lines_with(bad: bytes, good: bytes, at: int, total: int) -> tuple[bytes, int]:
    content = b"".join(bad + b"\n" if i == at else good % i + b"\n" for i in range(total))
    return content, len(b"".join(good % i + b"\n" for i in range(at)))


@pytest.mark.parametrize("at", [0, 1, 777, 1999])
@pytest.mark.parametrize(
    "bad",
    [
        b'{"a": ',
        b"null",
        b"  null",
        b"[1]",
        b"text",
        b'{"a": 1}{"a": 2}',
        b'{"a": 1} null',
        b'{"a": "\xff"}',
        b'{"a": 1, "a": 2}',
        b'{"b": 1}',
        b'{"a": [1]}',
    ],
)
def test_bad_json_line(tmp_path: Path, bad: bytes, at: int) -> None:
    path = tmp_path / "x.jsonl"
    content, offset = lines_with(bad, b'{"a": %d}', at, 2000)
    path.write_bytes(content)
    frozen = pa.schema([("a", pa.int64())])
    source = open_source("jsonl", str(path), frozen_schema=frozen)
    with pytest.raises(SourceError, match=f"cannot read the line at byte {offset}:") as error:
        rows_of(source, shards_of(source))
    assert str(path) in str(error.value)
    assert "schema" in error.value.hint
    if bad not in (b'{"b": 1}', b'{"a": [1]}', b'{"a": "\xff"}'):
        assert f"at byte {offset}:" in str(failure("jsonl", path)), "also when the schema is inferred from it"


def test_object_that_spans_lines(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"a": 1, "b": 2}, indent=1))
    assert "at byte 0" in str(failure("jsonl", tmp_path / "x.jsonl"))


@pytest.mark.parametrize("at", [0, 777, 1999])
@pytest.mark.parametrize(
    ("bad", "why"), [(b"1", "Expected 2 columns"), (b"1,2,3", "Expected 2 columns"), (b"x,y", "int64"), (b"1\r,y", "")]
)
def test_bad_csv_line(tmp_path: Path, bad: bytes, why: str, at: int) -> None:
    path = tmp_path / "x.csv"
    content, offset = lines_with(bad, b"%d,word", at, 2000)
    path.write_bytes(b"a,b\n" + content)
    source = open_source("csv", str(path), frozen_schema=pa.schema([("a", pa.int64()), ("b", pa.string())]))
    with pytest.raises(SourceError, match=f"cannot read the line at byte {offset + 4}:") as error:
        rows_of(source, shards_of(source))
    assert why in str(error.value)


def test_csv_value_that_spans_lines_without_the_option(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,x\n2,"y\nz"\n3,w\n')
    error = failure("csv", path)
    assert "x.csv: cannot read the line at byte" in str(error)
    assert "newlines_in_values" in error.hint


def test_csv_headers(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,a\n1,2\n")
    assert "column 'a' occurs more than once" in str(failure("csv", path))
    path.write_bytes(b"a,b\r1,2\r")
    assert "carriage return" in str(failure("csv", path))
    path.write_bytes(b'a,"b\n1,2\n')
    assert "header line cannot be read" in str(failure("csv", path))
    path.write_text("a,b\n1,2\n")
    assert "'c' of `schema` not found" in str(failure("csv", path, schema={"c": "string"}))


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"good\n" * 500 + b"b\xe4d\n" + b"good\n" * 500)
    error = failure("text", path)
    assert "x.txt: cannot read the line at byte 2500: not valid UTF-8; the line is 'b\\\\xe4d'" in str(error)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "text"])
def test_truncated_compressed_text(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.gz"
    packed = gzip.compress(b"".join(b'{"a": %d}\n' % (i * i) for i in range(200_000)))
    path.write_bytes(packed[: len(packed) // 2])
    error = failure(kind, path, **({"delimiter": ":"} if kind == "csv" else {}))
    assert isinstance(error, SourceError)
    assert str(path) in str(error)
