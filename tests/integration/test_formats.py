"""Every source through every sink, and every kind of stage, in real runs of the command; the output is read with plain pyarrow and json."""

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

from antinfer.spec.yamlfile import write_yaml
from tests.integration.jobs import assert_proven, command_line, make_spec, read_quarantine

pytestmark = pytest.mark.timeout(300)

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
def read_parts(output: Path, sink: str) -> list[Any]:
    """Return the parts in the order of their names, by readers that know nothing of us: tables, or lists of rows for JSON Lines."""
    found: list[Any] = []
    for path in sorted(output.glob("part-*")):
        assert path.suffix == f".{sink}"
        if sink == "parquet":
            found.append(pq.read_table(path))
        elif sink == "arrow":
            found.append(pa.ipc.open_file(path).read_all())
        else:
            found.append([json.loads(line) for line in path.read_text().splitlines()])
    return found


def as_json_does(value: Any) -> Any:
    """Return what reading the JSON of a value gives: some types become texts."""
    if isinstance(value, dict):
        return {key: as_json_does(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json_does(item) for item in value]
    return value


JSON_KEEPS = ("n", "word", "half", "maybe", "box", "vector", "small", "kind", "text", "path")
"""Columns whose values JSON holds as they are."""


def run_job(folder: Path, job: dict[str, Any], *arguments: str, steps: str = STEPS) -> dict[str, Any]:
    """Run a job file in `folder` with the command; return its report once the audit has passed."""
    (folder / "steps.py").write_text(steps)
    (folder / "job.yaml").write_text(write_yaml(job))
    done = command_line("run", str(folder / "job.yaml"), "--json", *arguments)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert_proven(make_spec(job, folder))
    return report


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("name", SOURCES)
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
    report = run_job(tmp_path, job, "--workers", "1")
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


# -- stages -----------------------------------------------------------------------------------------------------------------------------
STAGES = """
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def with_arrow(batch):
    assert isinstance(batch, pa.RecordBatch)
    return pa.table({"n": batch.column("n"), "a": pc.add(batch.column("n"), 1)})


class WithTorch:
    def __init__(self, factor):
        self.factor = factor
        self.ready = False

    def setup(self):
        self.ready = True

    def __call__(self, batch):
        import torch

        assert self.ready
        assert all(isinstance(column, torch.Tensor) for column in batch.values())
        return {"n": batch["n"], "t": batch["a"].float() * self.factor, "pair": torch.stack([batch["n"], batch["a"]], dim=1)}


def with_numpy(batch):
    assert all(isinstance(column, np.ndarray) for column in batch.values())
    assert batch["pair"].shape == (len(batch["n"]), 2)
    return {"sum": batch["pair"].sum(axis=1), "t": batch["t"]}


def with_pandas(batch):
    import pandas as pd

    assert isinstance(batch, pd.DataFrame)
    return batch.assign(p=batch["t"] + 0.5)


def divisors(row):
    return [{"divisor": d, "of": row["n"]} for d in range(1, row["n"] + 1) if row["n"] % d == 0]


def is_odd(row):
    return row["divisor"] % 2 == 1


class Square:
    def __call__(self, batch):
        if 25 in batch["divisor"]:
            raise ValueError("no square of 25")
        return {"divisor": batch["divisor"], "square": batch["divisor"] ** 2}
"""


def write_numbers(folder: Path, numbers: range, files: int = 2) -> None:
    folder.mkdir()
    each = len(numbers) // files
    for index in range(files):
        part = numbers[index * each : (index + 1) * each]
        pq.write_table(pa.table({"n": list(part), "word": [f"w{n}" for n in part]}), folder / f"f{index}.parquet", row_group_size=25)


def odd_divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1, 2) if n % d == 0]


def test_every_batch_format_in_one_pipeline(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("pandas")
    write_numbers(tmp_path / "in", range(100))
    job = {
        "source": {"type": "parquet", "path": "in"},
        "pipeline": [
            {"map_batches": "steps:with_arrow", "batch_format": "arrow", "batch_size": 9},
            {"predict": "steps:WithTorch", "batch_format": "torch", "columns": ["n", "a"], "args": {"factor": 3}, "batch_size": 16},
            {"map_batches": "steps:with_numpy"},
            {"map_batches": "steps:with_pandas", "batch_format": "pandas"},
        ],
        "carryover": ["word"],
        "sink": {"type": "parquet", "path": "out"},
        "shard": {"rows": 25},
    }
    run_job(tmp_path, job, "--workers", "1", steps=STAGES)
    table = pa.concat_tables(read_parts(tmp_path / "out", "parquet"))
    assert table.column_names == ["word", "sum", "t", "p"]
    assert table.column("word").to_pylist() == [f"w{n}" for n in range(100)]
    assert table.column("sum").to_pylist() == [2 * n + 1 for n in range(100)]
    assert table.column("t").to_pylist() == [(n + 1) * 3.0 for n in range(100)]
    assert table.column("p").to_pylist() == [(n + 1) * 3 + 0.5 for n in range(100)]


@pytest.mark.parametrize("gathered", [False, True], ids=["fanned out", "gathered"])
def test_rows_become_many_and_one_again(tmp_path: Path, gathered: bool) -> None:
    """One row has no children, and one has a child that fails: its whole row is quarantined."""
    write_numbers(tmp_path / "in", range(100))
    pipeline: list[dict[str, Any]] = [
        {"map_batches": "steps:with_arrow", "batch_format": "arrow", "batch_size": 9},
        {"flat_map": "steps:divisors"},
        {"filter": "steps:is_odd"},
        {"predict": "steps:Square", "batch_size": 13},
    ]
    job = {
        "source": {"type": "parquet", "path": "in"},
        "pipeline": [*pipeline, {"gather": {"into": "squares"}}] if gathered else pipeline,
        "carryover": ["n", "word"],
        "accumulators": {"rows": {"type": "count"}},
        "sink": {"type": "parquet", "path": "out"},
        "quarantine": {"max_fraction": 0.2, "keep_columns": ["n"]},
        "shard": {"rows": 25},
    }
    report = run_job(tmp_path, job, "--workers", "1", steps=STAGES)
    bad = [n for n in range(1, 100) if n % 25 == 0]
    good = [n for n in range(100) if n not in bad]
    children = {n: [{"divisor": d, "square": d * d} for d in odd_divisors(n)] for n in good}
    rows = pa.concat_tables(read_parts(tmp_path / "out", "parquet")).to_pylist()
    if gathered:
        assert [row["n"] for row in rows] == good
        assert {row["n"]: row["squares"] for row in rows} == children
    else:
        expected = [{"n": n, "word": f"w{n}", **child} for n in good for child in children[n]]
        assert rows == expected
        assert report["rows_fanned_out"] == len(expected) + len(bad) - 100
    assert all(row["word"] == f"w{row['n']}" for row in rows)
    assert (report["rows_in"], report["rows_out"], report["rows_quarantined"]) == (100, len(rows), len(bad))
    assert report["accumulators"]["rows"]["count"] == len(rows)
    quarantined = read_quarantine(tmp_path / "out").to_pylist()
    assert sorted(row["input"]["n"] for row in quarantined) == bad
    assert all("no square of 25" in row["error"] for row in quarantined)


def test_lines_of_unknown_number_with_several_workers(tmp_path: Path) -> None:
    """Lines of very different length, the last one without an end: cut by bytes, sized by whoever reads first."""
    folder = tmp_path / "in"
    folder.mkdir()
    lines = [f"{'x' * (n * 37 % 400)} {n}" for n in range(6000)]
    for index in range(3):
        (folder / f"f{index}.txt").write_text("\n".join(lines[index * 2000 : (index + 1) * 2000]) + ("" if index else "\n"))
    job = {
        "source": {"type": "text", "path": "in"},
        "pipeline": [{"map_batches": "steps:measure"}],
        "carryover": "*",
        "sink": {"type": "jsonl", "path": "out", "row_ids": True},
        "shard": {"bytes": "16KiB"},
    }
    report = run_job(tmp_path, job, "--workers", "3")
    parts = read_parts(tmp_path / "out", "jsonl")
    rows = [row for part in parts for row in part]
    assert [row["number"] for row in rows] == list(range(6000))
    assert [row["text"] for row in rows] == lines
    assert len({row["_shard"] for row in rows}) >= 60
    assert all(part[0]["_offset"] == 0 for part in parts)
    assert (report["rows_in"], report["rows_out"]) == (6000, 6000)


@pytest.mark.parametrize("type", ["parquet", "text"])
def test_limit(tmp_path: Path, type: str) -> None:
    folder = tmp_path / "in"
    if type == "parquet":
        write_numbers(folder, range(100))
    else:
        folder.mkdir()
        (folder / "f.txt").write_text("".join(f"line {n}\n" for n in range(100)))
    job = {
        "source": {"type": type, "path": "in"},
        "pipeline": [{"map_batches": "steps:measure"}],
        "sink": {"type": "parquet", "path": "out"},
        "shard": {"rows": 10} if type == "parquet" else {"bytes": 90},
    }
    run_job(tmp_path, job, "--workers", "1", "--limit", "15")
    numbers = pa.concat_tables(read_parts(tmp_path / "out", "parquet")).column("number").to_pylist()
    assert numbers == list(range(len(numbers)))
    # About: shards are not cut.
    assert 15 <= len(numbers) <= 35
