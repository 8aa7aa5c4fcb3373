"""Writers of parts: what is written is what an independent reader finds."""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import os
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.errors import JobFileError, OutputError, SchemaMismatchError, UserCodeError
from antinfer.storage import sinks
from antinfer.storage.sinks import json_text
from antinfer.storage.sinks.base import PartWriter

NESTED = pa.table(
    {
        "id": pa.array([1, 2, None], pa.int32()),
        "text": ["plain", 'quote " back \\ tab \t nul \x00 ümlaut 😀', None],
        "floats": pa.array([[1.0, 0.5], [], None], pa.list_(pa.float32())),
        "point": [{"x": 1, "tags": ["a", None]}, None, {"x": None, "tags": []}],
        "map": pa.array([[("k", 1), ("k", 2)], [], None], pa.map_(pa.string(), pa.int64())),
        "label": pa.array(["a", "b", "a"]).dictionary_encode(),
        "blob": pa.array([b"\x00\xff", b"", None], pa.binary()),
        "when": pa.array([0, 1_500_000, None], pa.timestamp("us", "UTC")),
    }
)


def write(type: str, path: Path, table: pa.Table, options: dict[str, Any] | None = None, metadata: dict[str, str] | None = None) -> int:
    writer = sinks.open_writer(type, str(path), table.schema, options)
    for batch in table.to_batches(max_chunksize=2):
        writer.write(batch)
    assert writer.rows == table.num_rows
    return writer.close(metadata)


def read(type: str, path: Path) -> pa.Table:
    return pq.read_table(path) if type == "parquet" else pa.ipc.open_file(path.read_bytes()).read_all()


@pytest.mark.parametrize("type", ["parquet", "arrow"])
def test_types_nulls_and_order_are_kept(tmp_path: Path, type: str):
    size = write(type, tmp_path / "x", NESTED)
    assert size == os.path.getsize(tmp_path / "x")
    found = read(type, tmp_path / "x").replace_schema_metadata(None)
    assert found.cast(NESTED.schema).equals(NESTED)


def test_parquet_carries_metadata_in_its_footer(tmp_path: Path):
    write("parquet", tmp_path / "x", NESTED, metadata={"antinfer.record": '{"a": "ü"}'})
    assert pq.read_metadata(tmp_path / "x").metadata[b"antinfer.record"].decode() == '{"a": "ü"}'
    assert sinks.carries_record("parquet") and not sinks.carries_record("jsonl") and not sinks.carries_record("arrow")


def test_small_batches_become_large_row_groups(tmp_path: Path):
    table = pa.table({"x": range(1000)})
    writer = sinks.open_writer("parquet", str(tmp_path / "x"), table.schema, {"row_group_rows": 400})
    for batch in table.to_batches(max_chunksize=100):
        writer.write(batch)
    writer.close()
    metadata = pq.read_metadata(tmp_path / "x")
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [400, 400, 200]
    by_bytes = sinks.open_writer("parquet", str(tmp_path / "y"), table.schema, {"row_group_bytes": 1600})
    for batch in table.to_batches(max_chunksize=100):
        by_bytes.write(batch)
        assert by_bytes.buffered_bytes < 1600
    by_bytes.close()
    assert pq.read_metadata(tmp_path / "y").num_row_groups == 5


def test_dictionaries_of_several_batches_are_merged(tmp_path: Path):
    batches = [pa.record_batch({"d": pa.array(values).dictionary_encode()}) for values in (["a", "b"], ["c", "a"])]
    for type in ("arrow", "parquet"):
        writer = sinks.open_writer(type, str(tmp_path / type), batches[0].schema)
        for batch in batches:
            writer.write(batch)
        writer.close()
        assert read(type, tmp_path / type).column("d").to_pylist() == ["a", "b", "c", "a"]


def test_jsonl_is_read_back_by_the_standard_library(tmp_path: Path):
    write("jsonl", tmp_path / "x", NESTED)
    rows = [json.loads(line) for line in (tmp_path / "x").read_bytes().splitlines()]
    assert [row["id"] for row in rows] == [1, 2, None]
    assert [row["text"] for row in rows] == NESTED.column("text").to_pylist()
    assert [row["floats"] for row in rows] == [[1.0, 0.5], [], None]
    assert [row["point"] for row in rows] == NESTED.column("point").to_pylist()
    assert [row["map"] for row in rows] == [[{"key": "k", "value": 1}, {"key": "k", "value": 2}], [], None]
    assert [row["label"] for row in rows] == ["a", "b", "a"]
    assert [base64.b64decode(row["blob"]) if row["blob"] is not None else None for row in rows] == [b"\x00\xff", b"", None]
    assert [row["when"] for row in rows] == ["1970-01-01T00:00:00.000000Z", "1970-01-01T00:00:01.500000Z", None]
    assert pyarrow.json.read_json(tmp_path / "x").num_rows == 3


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pa.array([1.0, 1e300, 1e-7, -0.0], pa.float64()), ["1.0", "1e+300", "1e-7", "-0.0"]),
        (pa.array([math.nan, math.inf, -math.inf, None, 2.0]), ["null", "null", "null", "null", "2.0"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([True, None]), ["true", "null"]),
        (pa.array([Decimal("1.50")], pa.decimal128(10, 2)), ["1.50"]),
        (pa.array([dt.date(2024, 2, 29)]), ['"2024-02-29"']),
        (pa.array([0], pa.timestamp("s")), ['"1970-01-01T00:00:00"']),
        (pa.array([0], pa.timestamp("s", "Europe/Paris")), ['"1970-01-01T00:00:00Z"']),
        (pa.array([90], pa.duration("s")), ["90"]),
        (pa.array([None, None], pa.null()), ["null", "null"]),
        (pa.array([{}, None], pa.struct([])), ["{}", "null"]),
        (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)), ["[1,2]", "null", "[3,4]"]),
        (pa.array([[[1], None], []], pa.large_list(pa.list_(pa.int8()))), ["[[1],null]", "[]"]),
        (pa.array([1.5], pa.float16()), ["1.5"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ['"a"', "null", '"a"']),
        (pa.array([[1], [2, 3], None, [4]], pa.list_(pa.int8())).slice(1, 2), ["[2,3]", "null"]),
        (pa.array([{"a": 1}, {"a": 2}, None]).slice(1), ['{"a":2}', "null"]),
    ],
    ids=str,
)
def test_json_forms(array: pa.Array, texts: list[str]):
    assert json_text.fragments(array, nan_is_error=False).to_pylist() == texts


def test_tensors_are_lists(tmp_path: Path):
    kind = pa.fixed_shape_tensor(pa.float32(), (2, 2))
    storage = pa.array([[1, 2, 3, 4]], pa.list_(pa.float32(), 4))
    table = pa.table({"t": pa.ExtensionArray.from_storage(kind, storage)})
    write("jsonl", tmp_path / "x", table)
    assert json.loads((tmp_path / "x").read_bytes()) == {"t": [1, 2, 3, 4]}
    write("parquet", tmp_path / "y", table)
    assert pq.read_table(tmp_path / "y").schema.field("t").type == kind


@given(
    st.lists(
        st.fixed_dictionaries({"s": st.none() | st.text(), "f": st.floats(allow_nan=False, allow_infinity=False)}), min_size=1, max_size=9
    )
)
def test_any_text_and_any_float_survive(rows: list[dict[str, Any]]):
    batch = pa.RecordBatch.from_pylist(rows, pa.schema({"s": pa.string(), "f": pa.float64()}))
    lines = json_text.lines(batch, nan_is_error=True).to_pybytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == rows


def test_nan_may_be_an_error(tmp_path: Path):
    table = pa.table({"fine": [1.0], "score": [math.nan]})
    writer = sinks.open_writer("jsonl", str(tmp_path / "x"), table.schema, {"nan": "error"})
    with pytest.raises(UserCodeError, match="'score'"):
        writer.write(table)
    writer.abort()


def test_an_empty_part_is_a_part(tmp_path: Path):
    for type in sinks.TYPES:
        writer = sinks.open_writer(type, str(tmp_path / type), NESTED.schema)
        writer.write(NESTED.schema.empty_table())
        writer.close()
    assert read("parquet", tmp_path / "parquet").num_rows == read("arrow", tmp_path / "arrow").num_rows == 0
    assert (tmp_path / "jsonl").read_bytes() == b""


UNION = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["a"])])


@pytest.mark.parametrize("type", ["parquet", "jsonl"])
@pytest.mark.parametrize("array", [UNION, pa.array([None], pa.month_day_nano_interval())], ids=["union", "interval"])
def test_a_type_that_does_not_fit_names_its_column(tmp_path: Path, type: str, array: pa.Array):
    table = pa.table({"fine": [1], "odd": array})
    with pytest.raises(UserCodeError, match=f"'odd'.*{type}"):
        write(type, tmp_path / "x", table)


def test_two_columns_of_one_name_are_refused(tmp_path: Path):
    schema = pa.schema([("a", pa.int8()), ("a", pa.int8())])
    with pytest.raises(UserCodeError, match="'a'"):
        sinks.open_writer("parquet", str(tmp_path / "x"), schema)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": [1]}, "lacks the column 'b'"),
        ({"a": [1.5], "b": ["x"]}, "'a' of a result is double"),
        ({"a": [1], "b": ["x"], "c": [1]}, "has the column 'c'"),
        ({"b": ["x"], "a": [1]}, "another order"),
    ],
    ids=["lacks", "type", "extra", "order"],
)
def test_another_schema_names_the_column(tmp_path: Path, columns: dict[str, Any], said: str):
    for type in sinks.TYPES:
        writer = sinks.open_writer(type, str(tmp_path / type), pa.schema({"a": pa.int64(), "b": pa.string()}))
        with pytest.raises(SchemaMismatchError, match=said):
            writer.write(pa.table(columns))
        writer.abort()
        assert not (tmp_path / type).exists()


@pytest.mark.parametrize(
    ("type", "options", "said"),
    [
        ("parquet", {"compresion": "zstd"}, "compresion: not an option of parquet"),
        ("parquet", {"compression": "lzma"}, "compression: 'lzma'"),
        ("parquet", {"row_group_rows": 0}, "row_group_rows"),
        ("parquet", {"compression": "none", "compression_level": 3}, "compression_level"),
        ("parquet", {"dictionary": ["nope"]}, "no column 'nope'"),
        ("parquet", {"dictionary": "yes"}, "dictionary"),
        ("jsonl", {"nan": "zero"}, "nan: 'zero'"),
        ("arrow", {"compression": "gzip"}, "compression: 'gzip'"),
        ("orc", {}, "unknown type 'orc'"),
    ],
    ids=str,
)
def test_bad_options_are_errors_of_the_job_file(tmp_path: Path, type: str, options: dict[str, Any], said: str):
    with pytest.raises(JobFileError, match=said):
        sinks.open_writer(type, str(tmp_path / "x"), pa.schema({"a": pa.int64()}), options)


@pytest.mark.parametrize("codec", ["zstd", "snappy", "gzip", "brotli", "lz4", "none"])
def test_parquet_codecs(tmp_path: Path, codec: str):
    write("parquet", tmp_path / "x", NESTED, {"compression": codec})
    used = pq.read_metadata(tmp_path / "x").row_group(0).column(0).compression.lower()
    assert used == ("uncompressed" if codec == "none" else codec)


def fill(writer: PartWriter, table: pa.Table, *, close: bool) -> None:
    """Write until the disk is full; with `close` only little, which may wait in memory until the part is closed."""
    writer.write(table)
    if close:
        writer.close()
        return
    for _ in range(1000):
        writer.write(table)


@pytest.mark.parametrize("closes", [True, False], ids=["close", "write"])
@pytest.mark.parametrize("type", sinks.TYPES)
def test_a_full_disk_is_named(tmp_path: Path, type: str, closes: bool):
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(mount)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("may not mount")
    try:
        table = pa.table({"blob": [os.urandom(1000) for _ in range(500)]})
        writer = sinks.open_writer(type, str(mount / "x"), table.schema)
        with pytest.raises(OutputError, match="no space left"):
            fill(writer, table, close=closes)
        writer.abort()
        assert not (mount / "x").exists()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_missing_folder_is_named(tmp_path: Path):
    for type in sinks.TYPES:
        with pytest.raises(OutputError, match="no folder"):
            sinks.open_writer(type, str(tmp_path / "no folder" / "x"), pa.schema({"a": pa.int64()}))
