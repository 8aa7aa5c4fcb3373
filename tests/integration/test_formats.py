"""Every source through every sink in real runs of the command; the output is read with plain pyarrow and json."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from tests.integration.jobs import read_quarantine
from tests.integration.runs import read_parts, run_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FILES, ROWS = 3, 40
ALL = FILES * ROWS
BAD = 57

STEPS = '''
import numpy as np

BAD = 57


def measure(batch):
    """Finds the number of a row in whatever the format makes of it."""
    if "n" in batch:
        numbers = batch["n"]
    elif "text" in batch:
        numbers = [int(text.split()[-1]) for text in batch["text"]]
    else:
        numbers = [int(data) for data in batch["bytes"]]
    return {"number": np.asarray(numbers, np.int64)}


class Double:
    def __call__(self, batch):
        if BAD in batch["number"]:
            raise ValueError(f"number {BAD} has no double")
        return {"number": batch["number"], "double": batch["number"] * 2.0}
'''


# -- input ------------------------------------------------------------------------------------------------------------------------------
def plain_columns(numbers: range) -> dict[str, list[Any]]:
    """Columns that every format with columns can hold."""
    return {"n": list(numbers), "word": [f"w{n} ü" for n in numbers], "half": [n / 2 for n in numbers]}


def nested_columns(numbers: range) -> dict[str, list[Any]]:
    """What JSON can hold beside those: nulls and nesting."""
    return {
        **plain_columns(numbers),
        "maybe": [None if n % 3 else n for n in numbers],
        "box": [None if n % 7 == 0 else {"at": [n, n + 1], "name": None if n % 2 else f"b{n}"} for n in numbers],
    }


def rich_table(numbers: range) -> pa.Table:
    """What only columnar formats can hold."""
    stamp = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
    columns = {
        **nested_columns(numbers),
        "money": pa.array([None if n % 5 == 0 else decimal.Decimal(n).scaleb(-2) for n in numbers], pa.decimal128(12, 2)),
        "when": pa.array([stamp + datetime.timedelta(seconds=n) for n in numbers], pa.timestamp("us", "Europe/Berlin")),
        "day": pa.array([None if n % 4 == 0 else (stamp + datetime.timedelta(days=n)).date() for n in numbers], pa.date32()),
        "raw": pa.array([bytes([n % 256, 0]) for n in numbers], pa.binary()),
        "kind": pa.array([f"k{n % 3}" for n in numbers]).dictionary_encode(),
        "vector": pa.array([[n, -n] for n in numbers], pa.list_(pa.float32(), 2)),
        "pairs": pa.array([[(f"a{n}", n)] if n % 2 else None for n in numbers], pa.map_(pa.string(), pa.int8())),
        "small": pa.array([n % 100 for n in numbers], pa.uint8()),
    }
    return pa.table(columns)


def write_parquet(folder: Path, index: int, numbers: range) -> None:
    pq.write_table(rich_table(numbers), folder / f"f{index}.parquet", row_group_size=ROWS // 2)


def write_arrow(folder: Path, index: int, numbers: range) -> None:
    table = rich_table(numbers)
    make = pa.ipc.new_stream if index == 1 else pa.ipc.new_file
    with make(folder / f"f{index}.arrow", table.schema) as writer:
        # Dictionaries may not change within a file, so one batch.
        writer.write_table(table)


def write_csv(folder: Path, index: int, numbers: range) -> None:
    pc.write_csv(pa.table(plain_columns(numbers)), folder / f"f{index}.csv")


def write_csv_gz(folder: Path, index: int, numbers: range) -> None:
    with gzip.open(folder / f"f{index}.csv.gz", "wb") as file:
        pc.write_csv(pa.table(plain_columns(numbers)), file)


def write_jsonl(folder: Path, index: int, numbers: range) -> None:
    columns = nested_columns(numbers)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    (folder / f"f{index}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(folder: Path, index: int, numbers: range) -> None:
    (folder / f"f{index}.txt").write_text("".join(f"line ü {n}\n" for n in numbers))


def write_files(folder: Path, index: int, numbers: range) -> None:
    for n in numbers:
        (folder / f"f{n:04d}.bin").write_bytes(str(n).encode())


@dataclass(frozen=True)
class Source:
    type: str
    write: Callable[[Path, int, range], None]
    shard: dict[str, Any]
    """How to cut it so that a file is more than one shard."""
    expected: Callable[[Path], pa.Table]
    """The input columns as the reader gives them."""
    parts: int
    """Fewest parts to expect."""


def _rich(folder: Path) -> pa.Table:
    return rich_table(range(ALL))


def _plain(folder: Path) -> pa.Table:
    return pa.table(plain_columns(range(ALL)))


def _nested(folder: Path) -> pa.Table:
    return pa.table(nested_columns(range(ALL)))


def _lines(folder: Path) -> pa.Table:
    return pa.table({"text": [f"line ü {n}" for n in range(ALL)]})


def _blobs(folder: Path) -> pa.Table:
    paths = [str(folder / f"f{n:04d}.bin") for n in range(ALL)]
    return pa.table({"path": paths, "bytes": pa.array([str(n).encode() for n in range(ALL)], pa.binary())})


SOURCES = {
    "parquet": Source("parquet", write_parquet, {"rows": ROWS // 2}, _rich, 6),
    "csv": Source("csv", write_csv, {"bytes": 400}, _plain, 6),
    "csv.gz": Source("csv", write_csv_gz, {"bytes": 400}, _plain, 3),
    "jsonl": Source("jsonl", write_jsonl, {"bytes": 2000}, _nested, 6),
    "arrow": Source("arrow", write_arrow, {"rows": ROWS // 2}, _rich, 3),
    "text": Source("text", write_text, {"bytes": 200}, _lines, 6),
    "files": Source("files", write_files, {"rows": 50}, _blobs, 3),
}
SINKS = ("parquet", "jsonl", "arrow")


# -- output -----------------------------------------------------------------------------------------------------------------------------
def as_json_does(value: Any) -> Any:
    """Return what reading the JSON of a value gives: some types become texts."""
    if isinstance(value, dict):
        return {key: as_json_does(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json_does(item) for item in value]
    return value


JSON_KEEPS = ("n", "word", "half", "maybe", "box", "vector", "small", "kind", "text", "path")
"""Columns whose values JSON holds as they are."""


def _pairs() -> list[Any]:
    """Every pair; those that can show nothing new run only in a soak: a sink cannot tell which plain source a column came from."""
    shown = [("csv", "jsonl"), ("csv.gz", "arrow"), ("text", "parquet"), ("files", "jsonl")]
    shown += [(name, sink) for name in ("parquet", "jsonl", "arrow") for sink in SINKS]
    return [
        pytest.param(name, sink, marks=[] if (name, sink) in shown else [pytest.mark.soak], id=f"{name}-{sink}")
        for name in SOURCES
        for sink in SINKS
    ]


@pytest.mark.parametrize(("name", "sink"), _pairs())
def test_every_source_through_every_sink(tmp_path: Path, name: str, sink: str) -> None:
    source = SOURCES[name]
    data = tmp_path / "in"
    data.mkdir()
    for index in range(FILES):
        source.write(data, index, range(index * ROWS, (index + 1) * ROWS))
    job = {
        "source": {"type": source.type, "path": "in"},
        "pipeline": [{"map_batches": "steps:measure", "batch_size": 16}, {"predict": "steps:Double", "batch_size": 7}],
        "carryover": "*",
        "accumulators": {"rows": {"type": "count"}, "average": {"type": "mean", "value": "double"}},
        "sink": {"type": sink, "path": "out", "row_ids": True},
        "quarantine": {"max_fraction": 0.1, "keep_columns": ["path" if name == "files" else "text" if name == "text" else "n"]},
        "shard": source.shard,
    }
    report = run_job(tmp_path, job, "--workers", "1", steps=STEPS)
    output = tmp_path / "out"
    good = [n for n in range(ALL) if n != BAD]
    assert (report["rows_in"], report["rows_out"], report["rows_quarantined"]) == (ALL, ALL - 1, 1)
    assert report["accumulators"]["rows"]["count"] == ALL - 1
    assert report["accumulators"]["average"]["sum"] == sum(2.0 * n for n in good)

    parts = read_parts(output, sink)
    assert len(parts) >= source.parts, "the input was to be cut into more shards"
    expected = source.expected(data)
    if sink == "jsonl":
        rows = [row for part in parts for row in part]
        assert [row["number"] for row in rows] == good
        assert [row["double"] for row in rows] == [2.0 * n for n in good]
        assert list(rows[0]) == ["_shard", "_offset", *expected.column_names, "number", "double"]
        kept = [column for column in expected.column_names if column in JSON_KEEPS]
        assert len(kept) >= min(3, expected.num_columns - 1)
        wanted = expected.select(kept).take(good).to_pylist()
        assert [{column: row[column] for column in kept} for row in rows] == as_json_does(wanted)
        identity = [(row["_shard"], row["_offset"]) for row in rows]
    else:
        table = pa.concat_tables(parts)
        # Parts sort in input order, and rows keep it.
        assert table.column("number").to_pylist() == good
        assert table.column("double").to_pylist() == [2.0 * n for n in good]
        assert table.column_names == ["_shard", "_offset", *expected.column_names, "number", "double"]
        carried = table.select(expected.column_names)
        assert carried.schema.remove_metadata().equals(expected.schema)
        assert carried.to_pylist() == expected.take(good).to_pylist()
        identity = list(zip(table.column("_shard").to_pylist(), table.column("_offset").to_pylist(), strict=True))
    assert identity == sorted(set(identity))
    assert_quarantine(output, job["quarantine"]["keep_columns"][0], expected)


def assert_quarantine(output: Path, kept: str, expected: pa.Table) -> None:
    (row,) = read_quarantine(output).to_pylist()
    assert row["error"] == f"ValueError: number {BAD} has no double"
    assert row["stage"] == "Double"
    assert row["traceback"].startswith("Traceback")
    assert "steps.py" in row["traceback"]
    assert "antinfer" not in row["traceback"]
    assert row["input"] == {kept: expected.column(kept)[BAD].as_py()}
