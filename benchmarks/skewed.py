"""Uneven work: one shard twenty times as dear as the others on four workers, against the same work in even shards; and how soon the rows
of a killed worker are leased again.

The model sleeps as long as a device would compute, so that the cores are left to the processes of the job. A job's time is that of its
master's reign, workers' start included.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from antinfer.errors import MasterError
from antinfer.rpc.client import AdminClient
from antinfer.rpc.values import Status
from antinfer.storage import layout
from benchmarks.contest import by_turns, run_timed, usual_environment
from benchmarks.report import Result

_JOB = Path(__file__).parent / "skewed_job"
_NAME = "skewed"
_SHARDS, _DEAR, _TIMES = 16, 5, 20
_ROWS = 400
_WORKERS = 4
_PATIENCE_S = 120.0


def measure(quick: bool) -> list[Result]:
    """Return how many times longer the uneven job takes, and the seconds until the rows of a killed worker are leased again."""
    dear_ms, rounds = (40.0, 1) if quick else (200.0, 3)
    cheap_ms = dear_ms / _TIMES
    even_ms = ((_SHARDS - 1) * cheap_ms + dear_ms) / _SHARDS
    with tempfile.TemporaryDirectory(prefix="antinfer-bench-") as name:
        even, uneven, kill = (Path(name, kind) for kind in ("even", "uneven", "kill"))
        _make(even, [even_ms] * _SHARDS)
        _make(uneven, [dear_ms if shard == _DEAR else cheap_ms for shard in range(_SHARDS)])
        _make(kill, [even_ms] * 5)
        seconds = by_turns({folder.name: partial(_run, folder) for folder in (even, uneven)}, rounds)
        again = tuple(_kill_one(kill) for _ in range(rounds))
    ideal = _SHARDS * _ROWS * even_ms / 1_000 / _WORKERS
    ratios = tuple(slow / fast for slow, fast in zip(seconds["uneven"], seconds["even"], strict=True))
    what = f"one shard of {_SHARDS} is {_TIMES} times as dear, {_WORKERS} workers: time against even shards"
    return [
        Result(_NAME, what, ratios, "x", 1.25, at_least=False, details={"seconds": seconds, "ideal_seconds": ideal}),
        Result(_NAME, "from kill -9 of a worker to its rows being leased again", again, "s", 2.0, at_least=False),
    ]


def _make(folder: Path, row_ms: list[float]) -> None:
    shutil.copytree(_JOB, folder)
    (folder / "in").mkdir()
    for shard, ms in enumerate(row_ms):
        rows = pa.table({"id": range(shard * _ROWS, (shard + 1) * _ROWS), "ms": pa.array([ms] * _ROWS)})
        pq.write_table(rows, folder / "in" / f"{shard:03}.parquet")


def _command(workers: int) -> list[str]:
    return [str(Path(sys.executable).parent / "antinfer"), "run", "job.yaml", "--workers", str(workers), "--json"]


def _run(folder: Path) -> float:
    shutil.rmtree(folder / "out", ignore_errors=True)
    run_timed(_command(_WORKERS), folder)
    report = json.loads((folder / "out" / layout.REPORT).read_text())
    if report["rows_out"] != _SHARDS * _ROWS:
        raise RuntimeError(f"{report['rows_out']} of {_SHARDS * _ROWS} rows came out")
    seconds: float = report["seconds"]
    return seconds


def _kill_one(folder: Path) -> float:
    """Run the job, kill a worker that is at work, and return the seconds until all of its rows are leased again."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    with _running(folder), AdminClient(_address(folder)) as admin:
        status = _until(admin, lambda status: all(worker.leases and worker.stats for worker in status.workers) and len(status.workers) == 2)
        # The one with fewer leases, so that the other has room for them.
        victim = min(status.workers, key=lambda worker: worker.leases)
        wanted = status.counters["leases_retried"] + victim.leases
        assert victim.stats is not None
        os.kill(victim.stats.pid, signal.SIGKILL)
        began = time.perf_counter()
        _until(admin, lambda status: status.counters["leases_retried"] >= wanted)
        return time.perf_counter() - began


@contextmanager
def _running(folder: Path) -> Iterator[None]:
    process = subprocess.Popen(
        _command(2), cwd=folder, env=usual_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE_S)


def _address(folder: Path) -> str:
    """Wait until the master has said where it listens."""
    path, until = folder / "out" / layout.MASTER, time.monotonic() + _PATIENCE_S
    while not path.exists():
        if time.monotonic() > until:
            raise RuntimeError("the master did not come up")
        time.sleep(0.05)
    address: str = json.loads(path.read_text())["address"]
    return address


def _until(admin: AdminClient, is_so: Callable[[Status], bool]) -> Status:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        try:
            status = admin.status()
        except MasterError:
            continue
        if is_so(status):
            return status
        time.sleep(0.01)
    raise RuntimeError("it did not come to that")
