"""Several workers on one machine, each with GPUs of its own. Nothing here touches a device, so any name will do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from antinfer.testing.chaos.processes import command_of
from tests.integration.commands import ROWS, JobFolder, antinfer, descendants, finish, kill, start, wait_until

STEPS = """
import os
import time

import numpy as np


class Seen:
    # Takes its time until there is a file `go` beside this one.

    def __call__(self, batch):
        if not os.path.exists(os.path.join(os.path.dirname(__file__), "go")):
            time.sleep(0.05)
        rows = len(batch["x"])
        return {"devices": np.full(rows, os.environ["CUDA_VISIBLE_DEVICES"]), "process": np.full(rows, os.getpid())}
"""


def job_of(folder: Path, num_gpus: float, batch_size: int) -> JobFolder:
    job = JobFolder(folder, "steps:Seen", commit_interval="0.1s", shard="{rows: 50}")
    job.steps.write_text(STEPS)
    job.edit("batch_size: 100", f"batch_size: {batch_size}, num_gpus: {num_gpus}")
    return job


def predictors(job: JobFolder) -> dict[int, str]:
    """Return the devices that each process has seen which had a part in the output."""
    table = ds.dataset(job.output, format="parquet").to_table(["process", "devices"])
    pairs = set(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


def worker(root: int, name: str) -> list[int]:
    """Return the worker of this name, once it runs."""
    return [pid for pid in descendants(root) if "-m antinfer.worker --master" in command_of(pid) and f"--name {name} " in command_of(pid)]


def given(pid: int) -> str:
    """Return the devices in the environment that a process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(entry.partition(b"=")[2].decode() for entry in entries if entry.startswith(b"CUDA_VISIBLE_DEVICES="))


def test_a_worker_has_gpus_of_its_own_and_keeps_them_when_it_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    job = job_of(tmp_path / "job", 1, batch_size=1)
    process = start("run", job.folder, "--workers", "2")
    try:
        wait_until(lambda: job.committed() > 0 or process.poll() is not None, why="nothing was committed")
        assert process.poll() is None, finish(process)
        (first,), (second,) = worker(process.pid, "local-1"), worker(process.pid, "local-2")
        assert (given(first), given(second)) == ("4", "6,7")

        for pid in (first, second):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: worker(process.pid, "local-1") not in ([], [first]), why="the first one was not started again")
        wait_until(lambda: worker(process.pid, "local-2") not in ([], [second]), why="the second one was not started again")
        (first,), (second,) = worker(process.pid, "local-1"), worker(process.pid, "local-2")
        assert (given(first), given(second)) == ("4", "6,7")

        (job.folder / "go").touch()
        ended = finish(process)
        assert ended.code == 0, ended
        assert job.ids() == list(range(ROWS))
        assert set(predictors(job).values()) <= {"4", "6", "7"}
    finally:
        kill(process)


def test_workers_that_share_a_gpu_take_no_more_than_their_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `concurrency: auto` a worker fills what it has, and would fill the whole of it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    job = job_of(tmp_path / "job", 0.5, batch_size=10)

    ended = antinfer("run", job.folder, "--workers", "2")

    assert ended.code == 0, ended
    seen = predictors(job)
    assert len(seen) <= 2 and set(seen.values()) == {"3"}
