"""Pipelines that branch, in real runs of the command: conditions, parallel models, buckets, hybrid stages, reproducible batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.jobs import read_quarantine
from tests.integration.runs import read_parts, run_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STEPS = """
import numpy as np


class Small:
    def __call__(self, batch):
        sure = np.array([None if n % 7 == 0 else n % 3 == 0 for n in batch["n"]])
        return {"n": batch["n"], "label": ["small"] * len(sure), "hard": sure}


class Big:
    def __call__(self, batch):
        assert (batch["n"] % 3 == 0).all() and (batch["n"] % 7 != 0).all()
        return {"label": ["big"] * len(batch["n"]), "score": batch["n"] * 0.5}


def parts(row):
    return [{"part": row["n"] * 10 + i} for i in range(row["n"] % 3)]


class Square:
    def __call__(self, batch):
        if 500 in batch["part"]:
            raise ValueError("a part that cannot be squared")
        return {"square": batch["part"] ** 2}


class Keep:
    def __call__(self, batch):
        return {"n": batch["n"], "label": batch["label"], "score": batch["score"]}


class Length:
    def __call__(self, batch):
        longest = max(map(len, batch["word"]))
        assert len(batch["word"]) * longest <= 64
        shortest = min(map(len, batch["word"]))
        assert (shortest <= 4) == (longest <= 4)
        return {"length": [len(word) for word in batch["word"]]}


class Batches:
    def __call__(self, batch):
        return {"n": batch["n"], "batch": ["-".join(map(str, batch["n"]))] * len(batch["n"])}
"""


def write_rows(folder: Path, count: int) -> None:
    folder.mkdir()
    pq.write_table(
        pa.table({"n": list(range(count)), "word": ["w" * (n % 9) for n in range(count)]}), folder / "f.parquet", row_group_size=25
    )


def job(pipeline: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {
        "source": {"type": "parquet", "path": "in"},
        "pipeline": pipeline,
        "carryover": ["n"],
        "sink": {"type": "parquet", "path": "out"},
        "shard": {"rows": 40},
        **fields,
    }


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pa.concat_tables(read_parts(folder / "out", "parquet")).to_pylist()


def test_a_cascade_and_parallel_models_over_one_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "in", 100)
    pipeline = [
        {"predict": "steps:Small", "batch_size": 16},
        {"predict": "steps:Big", "when": "hard", "batch_size": 8},
        {
            "parallel": {
                "kept": [{"map_batches": "steps:Keep"}],
                "parts": [{"flat_map": "steps:parts"}, {"predict": "steps:Square", "batch_size": 12}, {"gather": {"into": "squares"}}],
            }
        },
        {"map_batches": "steps:Rename"},
    ]
    steps = STEPS + "\n\ndef Rename(batch):\n    return {('m' if name == 'n' else name): column for name, column in batch.items()}\n"
    report = run_job(tmp_path, job(pipeline, quarantine={"max_fraction": 0.1, "keep_columns": ["n"]}), "--workers", "1", steps=steps)
    rows = {row["n"]: row for row in rows_of(tmp_path)}
    assert sorted(rows) == [n for n in range(100) if n != 50]
    for n, row in rows.items():
        went = n % 3 == 0 and n % 7 != 0
        assert (row["m"], row["label"]) == (n, "big" if went else "small")
        assert row["score"] == n * 0.5 if went else row["score"] != row["score"] or row["score"] is None
        assert row["squares"] == [{"square": (n * 10 + i) ** 2} for i in range(n % 3)]
    assert (report["rows_out"], report["rows_quarantined"]) == (99, 1)
    assert [row["input"]["n"] for row in read_quarantine(tmp_path / "out").to_pylist()] == [50]


def test_batches_of_like_length_within_a_budget(tmp_path: Path) -> None:
    write_rows(tmp_path / "in", 200)
    stage = {"predict": "steps:Length", "bucket_by": {"column": "word", "edges": [4]}, "max_tokens": 64, "batch_size": 100}
    run_job(tmp_path, job([stage]), "--workers", "1", steps=STEPS)
    assert [(row["n"], row["length"]) for row in rows_of(tmp_path)] == [(n, n % 9) for n in range(200)]


def test_a_reproducible_job_calls_with_the_same_batches_however_it_is_leased(tmp_path: Path) -> None:
    found = []
    for name, extra in (("a", {}), ("b", {"task": {"rows": 7}, "commit_interval": "1ms"})):
        folder = tmp_path / name
        folder.mkdir()
        write_rows(folder / "in", 100)
        spec = job([{"predict": "steps:Batches", "batch_size": 16}], reproducible=True, carryover=[], **extra)
        run_job(folder, spec, "--workers", "2" if extra else "1", steps=STEPS)
        found.append({row["n"]: row["batch"] for row in rows_of(folder)})
    assert found[0] == found[1] and len(found[0]) == 100
    # Shards are row groups of 25 rows: one whole batch and what is left.
    assert found[0][0] == "-".join(map(str, range(16))) and found[0][24] == "-".join(map(str, range(16, 25)))


def test_two_branches_with_one_column_fail_the_job_and_name_it(tmp_path: Path) -> None:
    write_rows(tmp_path / "in", 20)
    pipeline = [{"parallel": {"one": [{"map_batches": "steps:same"}], "two": [{"predict": "steps:Batches"}]}}]
    same = "\n\ndef same(batch):\n    return {'batch': batch['n']}\n"
    with pytest.raises(AssertionError, match="the branches 'one' and 'two' both return a column 'batch'"):
        run_job(tmp_path, job(pipeline, carryover=[]), "--workers", "1", steps=STEPS + same)
