"""Whole jobs for tests: a data set, user code, the processes that run it, and the proof that its output is right.

The reader at the end is plain pyarrow, and the values are computed here a second time, so nothing of ours vouches for itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from antinfer.spec.load import build_job
from antinfer.spec.schema import JobSpec
from antinfer.spec.yamlfile import Lines
from antinfer.storage.audit import audit
from antinfer.storage.jobs import open_output
from antinfer.testing.chaos.processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]

STEPS = '''
import time

import numpy as np

from antinfer.metrics import Accumulator, ExactSum


def key(batch):
    """Raises for a few rows, which belong into quarantine."""
    if (batch["id"] % 499 == 7).any():
        raise ValueError(f"cannot read row {batch['id'][batch['id'] % 499 == 7][0]}")
    return {"key": batch["id"]}


class Scorer:
    """A model that takes a while, and gives values that depend on the row alone."""

    def __init__(self, pause_s):
        self.pause_s = pause_s

    def __call__(self, batch):
        time.sleep(self.pause_s * len(batch["key"]))
        mixed = batch["key"].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        score = (mixed >> np.uint64(11)) / 2.0**53
        return {"score": score, "late": (mixed % np.uint64(3) == 0).astype(np.int64), "guess": score > 0.7}


class Weighed(Accumulator):
    """A metric of the user's own: floats whose sum depends on the order in which it is taken, unless it is exact."""

    def __init__(self, weight):
        self.weight = weight
        self.sum = ExactSum()
        self.most = 0.0

    def update(self, batch):
        self.sum.add(batch["score"] * self.weight)
        self.most = max(self.most, float(batch["score"].max(initial=0.0)))

    def state(self):
        return [self.sum.state(), self.most]

    def merge(self, state):
        self.sum.merge(state[0])
        self.most = max(self.most, state[1])

    def result(self):
        return {"sum": float(self.sum), "most": self.most}
'''

ACCUMULATORS: dict[str, Any] = {
    "quality": {"type": "auroc", "label": "late", "score": "score"},
    "loss": {"type": "cross_entropy", "label": "late", "score": "score"},
    "average": {"type": "mean", "value": "score"},
    "scores": {"type": "histogram", "value": "score", "bins": [0.0, 0.1, 0.5, 1.0]},
    "verdicts": {"type": "confusion_matrix", "label": "late", "prediction": "guess"},
    "weighed": {"type": "steps:Weighed", "columns": ["score"], "args": {"weight": 0.1}},
    "rows": {"type": "count"},
}
"""One of every type."""


def make_spec(job: dict[str, Any], folder: Path) -> JobSpec:
    """Check a job as a job file in `folder` would be."""
    return build_job(job, Lines("job.yaml", {}), str(folder))


@dataclass(frozen=True)
class Scoring:
    """A job of many small shards that takes `rows * pause_s` seconds of one predictor, and what its output must hold."""

    folder: Path
    shards: int = 40
    shard_rows: int = 200
    pause_s: float = 0.0005

    @property
    def rows(self) -> int:
        return self.shards * self.shard_rows

    @property
    def bad_rows(self) -> range:
        """Ids of the rows for which the code raises."""
        return range(7, self.rows, 499)

    def make(self, **changes: Any) -> JobSpec:
        """Write input and user code; return the job."""
        data = self.folder / "in"
        data.mkdir(parents=True, exist_ok=True)
        per_file = self.shards // 4 * self.shard_rows
        for index in range(4):
            ids = range(index * per_file, (index + 1) * per_file)
            table = pa.table({"id": ids, "tags": [_tags(n) for n in ids]})
            pq.write_table(table, data / f"f{index}.parquet", row_group_size=self.shard_rows)
        (self.folder / "steps.py").write_text(STEPS)
        job: dict[str, Any] = {
            "source": {"type": "parquet", "path": str(data)},
            "pipeline": [{"map_batches": "steps:key"}, {"predict": "steps:Scorer", "args": {"pause_s": self.pause_s}}],
            "carryover": ["id", "tags"],
            "accumulators": ACCUMULATORS,
            "sink": {"path": str(self.folder / "out"), "row_ids": True},
            "quarantine": {"keep_columns": ["id"]},
            "shard": {"rows": self.shard_rows},
            **changes,
        }
        return make_spec(job, self.folder)

    def assert_right(self, output: Path, given_up: Collection[int] = ()) -> None:
        """Read the output with plain pyarrow: each input row once, with the values that belong to it, or in quarantine with `given_up`."""
        table = ds.dataset(output, format="parquet").to_table()
        quarantined = read_quarantine(output)
        ids = table.column("id").to_numpy()
        bad = sorted({*self.bad_rows, *given_up})
        assert sorted(kept["id"] for kept in quarantined.column("input").to_pylist()) == bad
        assert np.array_equal(np.sort(ids), np.setdiff1d(np.arange(self.rows), bad))
        mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        assert np.array_equal(table.column("score").to_numpy(), (mixed >> np.uint64(11)) / 2.0**53)
        assert np.array_equal(table.column("late").to_numpy(), (mixed % np.uint64(3) == 0).astype(np.int64))
        assert table.column("tags").to_pylist() == [_tags(n) for n in ids.tolist()]
        position = table.column("_shard").to_numpy().astype(np.int64) * self.shard_rows + table.column("_offset").to_numpy()
        assert np.array_equal(position, ids)


def _tags(n: int) -> list[str | None] | None:
    return None if n % 5 == 0 else [f"t{n % 7}", None][: n % 3]


def read_quarantine(output: Path) -> pa.Table:
    """Read the quarantined rows without our own reader."""
    files = sorted((output / "_antinfer" / "quarantine").glob("*"))
    return pa.concat_tables([pa.ipc.open_file(file).read_all() for file in files], promote_options="permissive")


def read_report(output: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((output / "_antinfer" / "report").read_text())
    return report


def assert_proven(spec: JobSpec) -> None:
    """Our own audit, from the output place alone."""
    found = audit(open_output(spec))
    assert found.proven, found.faults


def command_line(
    *arguments: str, environment: dict[str, str] | None = None, seconds: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Run the ``antinfer`` command to its end."""
    code = "import sys; from antinfer.cli.app import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
