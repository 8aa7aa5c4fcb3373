"""Every kind of stage and batch, input of unknown size, and limits, in real runs of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.jobs import read_quarantine
from tests.integration.runs import read_parts, run_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NUMBERS = """
import numpy as np


def measure(batch):
    numbers = batch["n"] if "n" in batch else [int(text.split()[-1]) for text in batch["text"]]
    return {"number": np.asarray(numbers, np.int64)}
"""

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
    report = run_job(tmp_path, job, "--workers", "3", steps=NUMBERS)
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
    run_job(tmp_path, job, "--workers", "1", "--limit", "15", steps=NUMBERS)
    numbers = pa.concat_tables(read_parts(tmp_path / "out", "parquet")).column("number").to_pylist()
    assert numbers == list(range(len(numbers)))
    # About: shards are not cut.
    assert 15 <= len(numbers) <= 35


CROPS = """
import numpy as np


def find(row):
    n = int(row["n"])
    return [{"crop": np.full((1 + (n + k) % 3, 2 + n % 2, 3), n, np.uint8)} for k in range(n % 3)]


class Brighten:
    def __call__(self, batch):
        made = np.empty(len(batch["crop"]), dtype=object)
        for at, crop in enumerate(batch["crop"]):
            crop += 1
            made[at] = crop
        return {"crop": made, "mean": [float(crop.mean()) for crop in batch["crop"]]}


def look(batch):
    assert all(crop.ndim == 3 and (crop == crop[0, 0, 0]).all() for crop in batch["crop"])
    return {"crop": batch["crop"].tolist() if batch["crop"].dtype == object else list(batch["crop"]), "mean": batch["mean"]}


def as_objects(batch):
    made = np.empty(len(batch["crop"]), dtype=object)
    for at, crop in enumerate(batch["crop"]):
        made[at] = crop
    return {"crop": made, "mean": batch["mean"]}
"""


@pytest.mark.parametrize("gathered", [False, True], ids=["rows", "gathered"])
@pytest.mark.parametrize("workers_as", ["threads", "processes"])
def test_pictures_of_different_sizes_go_from_stage_to_stage_and_out(tmp_path: Path, workers_as: str, gathered: bool) -> None:
    write_numbers(tmp_path / "in", range(60))
    pipeline: list[dict[str, Any]] = [
        {"flat_map": "steps:find", "workers_as": workers_as},
        {"predict": "steps:Brighten", "batch_size": 7},
        {"map_batches": "steps:look", "batch_size": 1, "workers_as": workers_as},
        {"map_batches": "steps:as_objects", "batch_size": 5, "workers_as": workers_as},
    ]
    job = {
        "source": {"type": "parquet", "path": "in"},
        "pipeline": [*pipeline, {"gather": {"into": "crops"}}] if gathered else pipeline,
        "carryover": ["n"],
        "sink": {"type": "parquet", "path": "out"},
        "shard": {"rows": 20},
    }
    run_job(tmp_path, job, "--workers", "1", steps=CROPS)
    table = pa.concat_tables(read_parts(tmp_path / "out", "parquet"))
    expected = [
        (n, {"crop": {"data": [n + 1] * (height * width * 3), "shape": [height, width, 3]}, "mean": n + 1.0})
        for n in range(60)
        for k in range(n % 3)
        for height, width in [(1 + (n + k) % 3, 2 + n % 2)]
    ]
    if gathered:
        found = [(row["n"], child) for row in table.to_pylist() for child in row["crops"]]
    else:
        found = [(row.pop("n"), row) for row in table.to_pylist()]
    assert found == expected


FRAMES = """
JPEG = bytes(600_000)


def frames(row):
    if row["n"] == 16:
        while True:
            yield {"n": 16}
    if row["n"] == 17:
        raise ValueError("no frames")
    for k in range(row["n"] % 5):
        yield {"n": row["n"], "k": k, "jpeg": JPEG}


def sizes(batch):
    size = [len(jpeg) for jpeg in batch["jpeg"]]
    return {"k": batch["k"], "size": size, "batch": ["-".join(f"{n}.{k}" for n, k in zip(batch["n"], batch["k"]))] * len(size)}
"""


def frames_of(folder: Path, numbers: range, workers_as: str, **fields: Any) -> dict[int, list[dict[str, Any]]]:
    """Return what a fan-out into large children, and back, makes of `numbers`, in one shard."""
    (folder / "in").mkdir(parents=True)
    pq.write_table(pa.table({"n": list(numbers)}), folder / "in" / "f.parquet")
    job = {
        "source": {"type": "parquet", "path": "in"},
        "pipeline": [
            {"flat_map": "steps:frames", "workers_as": workers_as, "concurrency": 1},
            {"map_batches": "steps:sizes", "batch_size": 64, "concurrency": 1},
            {"gather": {"into": "frames"}},
        ],
        "carryover": ["n"],
        "sink": {"type": "parquet", "path": "out"},
        "quarantine": {"max_fraction": 0.01},
        **fields,
    }
    run_job(folder, job, "--workers", "1", steps=FRAMES)
    return {row["n"]: row["frames"] for part in read_parts(folder / "out", "parquet") for row in part.to_pylist()}


@pytest.mark.parametrize("workers_as", ["threads", "processes"])
def test_small_rows_with_large_children_and_one_without_an_end(tmp_path: Path, workers_as: str) -> None:
    """All children together are more than an array can hold, and than the memory of many a machine."""
    found = frames_of(tmp_path, range(2000), workers_as)
    assert list(found) == [n for n in range(2000) if n not in (16, 17)]
    assert all([(each["k"], each["size"]) for each in found[n]] == [(k, 600_000) for k in range(n % 5)] for n in found)
    bad = {row["offset"]: row["error"] for row in read_quarantine(tmp_path / "out").to_pylist()}
    assert sorted(bad) == [16, 17]
    assert "made more than 1,000,000 rows of one" in bad[16] and "no frames" in bad[17]


def test_large_children_come_in_the_same_batches_in_a_reproducible_job(tmp_path: Path) -> None:
    numbers = range(1000, 1100)
    one = frames_of(tmp_path / "one", numbers, "threads", reproducible=True)
    other = frames_of(tmp_path / "other", numbers, "processes", reproducible=True, task={"rows": 40}, commit_interval="1ms")
    assert one == other and list(one) == list(numbers)
    # A call ends with the row whose children make it 64 MiB, and the 113 children of one call are a full batch and what is left of them.
    first = [each["batch"].count("-") + 1 for n in numbers for each in one[n]]
    assert first[:114] == [64] * 64 + [49] * 49 + [64]
