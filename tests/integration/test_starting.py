"""How a host starts: its predictors set up side by side, and without tuning everything stays as it began."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.worker import hostlink
from tests.integration.hosts import Job

pytestmark = pytest.mark.timeout(240)

CODE = """
import ctypes, os, time
import numpy as np

class Meets:
    # Set up only together with another one, which has to be under way at the same time.
    def __init__(self, folder, name=""):
        with open(os.path.join(folder, f"here-{name}-{os.getpid()}"), "w"):
            pass
        until = time.monotonic() + 20
        while sum(entry.startswith("here-") for entry in os.listdir(folder)) < 2:
            if time.monotonic() > until:
                raise TimeoutError("nobody else is setting up")
            time.sleep(0.02)
    def __call__(self, batch):
        return {"x": batch["x"]}

def holds_the_gil(batch):
    # Not for the cores' sake: a PyDLL keeps the GIL while it is called.
    ctypes.PyDLL(None).usleep(25_000)
    return {"x": batch["x"], "pid": np.full(len(batch["x"]), os.getpid())}

class Waits:
    def __call__(self, batch):
        time.sleep(0.02)
        return {"x": batch["x"], "rows": np.full(len(batch["x"]), len(batch["x"]))}
"""


def write(folder: Path, rows: int) -> None:
    (folder / "input").mkdir(parents=True)
    pq.write_table(pa.table({"x": list(range(rows))}), folder / "input" / "a.parquet", row_group_size=1000)


@pytest.mark.alone
@pytest.mark.parametrize("way", ["two stages", "two copies", "a map and a model"])
def test_predictors_set_up_side_by_side(tmp_path: Path, way: str) -> None:
    write(tmp_path, 100)
    meets = {"args": {"folder": str(tmp_path)}}
    one, two = ({**meets, "args": {**meets["args"], "name": name}, "name": name} for name in ("one", "two"))
    pipelines: dict[str, list[dict[str, Any]]] = {
        "two stages": [{"predict": "steps:Meets", **one}, {"predict": "steps:Meets", **two}],
        "two copies": [{"predict": "steps:Meets", "concurrency": 2, **meets}],
        "a map and a model": [
            {"map_batches": "steps:Meets", "workers_as": "processes", "concurrency": 1, **one},
            {"predict": "steps:Meets", **two},
        ],
    }
    job = Job(tmp_path, CODE, pipeline=pipelines[way])
    job.run()
    assert job.table()["x"].to_pylist() == list(range(100))
    assert sum(name.startswith("here-") for name in os.listdir(tmp_path)) == 2


def watch(job: Job, rows: int) -> tuple[list[hostlink.Progress], list[list[int]]]:
    """Run the only shard of `job`; return what the host told about its stages, and its children at each time that it said something."""
    told: list[hostlink.Progress] = []
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        processes = [host.children()]
        host.send(job.work(0))
        records, at = [], 0
        while at < rows:
            message = next(host.everything())
            assert not isinstance(message, hostlink.Failed), message
            processes.append(host.children())
            if isinstance(message, hostlink.Progress):
                told.append(message)
            elif isinstance(message, hostlink.Staged):
                records.append(message.record)
                at = message.record.stop
        assert host.stop() == 0
    job.publish(records)
    assert job.table()["x"].to_pylist() == list(range(rows))
    return told, processes


@pytest.mark.slow
def test_tuning_off_leaves_everything_as_it_begins(tmp_path: Path) -> None:
    """With tuning the same job tries processes after a second or two; here it runs for at least ten."""
    write(tmp_path, 4000)
    pipeline = [{"map_batches": "steps:holds_the_gil", "batch_size": 10, "concurrency": 2}]
    told, processes = watch(Job(tmp_path, CODE, pipeline=pipeline, commit_interval=1, tuning="off"), 4000)
    assert not any(processes)
    stages = [stage for progress in told for stage in progress.stages]
    assert stages[-1].busy_seconds > 5 and stages[-1].batches == 400
    assert {(stage.mode, stage.degree, stage.batch_rows, stage.decisions) for stage in stages} == {("threads", 2, 10, ())}


@pytest.mark.parametrize(("tuning", "probes"), [("off", False), ("auto", True)])
def test_tuning_off_probes_for_no_batch_size(tmp_path: Path, tuning: str, probes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path, 2000)
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Waits", "concurrency": 1}], commit_interval=1, tuning=tuning)
    told, processes = watch(job, 2000)
    stages = [stage for progress in told for stage in progress.stages]
    assert all(len(children) == 1 for children in processes)
    assert not any(stage.decisions for stage in stages)
    sizes = job.table()["rows"].to_pylist()
    assert (sizes[0] <= 8) == probes
    assert (len({stage.batch_rows for stage in stages}) > 1 or stages[0].batch_rows < 1000) == probes
    assert (tmp_path / "cache" / "antinfer" / "batch-sizes").exists() is False or probes
