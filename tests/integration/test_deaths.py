"""Predictor processes that hang, crash and leak: named for what they are, ended, and the rows behind it found; through a real flow."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.core.causes import Cause
from antinfer.worker import deaths, families, hostlink
from antinfer.worker.hoststart import spawn
from antinfer.worker.pipeline import deadlines, leaks
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors import inquest
from antinfer.worker.predictors.care import Care
from antinfer.worker.predictors.feed import Feed
from antinfer.worker.predictors.predictor import Predictor
from antinfer.worker.predictors.ward import Ward
from antinfer.worker.predictors.watch import Patience
from antinfer.worker.supervision import HostProcess
from tests.integration.hosts import Job, collect, is_alive, wait_until
from tests.integration.jobs import read_quarantine
from tests.integration.runs import run_job
from tests.integration.test_predictors import Bench

pytestmark = pytest.mark.timeout(120)

CODE = """
import ctypes, os, re, signal, subprocess, sys, time, types
import numpy as np

class Dies:
    def __init__(self, how, bad=(), seconds=0.0):
        self.how, self.bad, self.seconds = how, set(bad), seconds
    def __call__(self, batch):
        x = batch["x"]
        time.sleep(self.seconds)
        if set(x.tolist()) & self.bad:
            getattr(self, self.how)()
        return {"x": x, "pid": np.full(len(x), os.getpid()), "rows": np.full(len(x), len(x))}
    def segfault(self):
        ctypes.string_at(0)
    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)
    def memory(self):
        # As the kernel does: it counts, and kills.
        with open(os.path.join(os.path.dirname(__file__), "oom_kills"), "a") as file:
            file.write("1")
        os.kill(os.getpid(), signal.SIGKILL)
    def device(self):
        # A CUDA context that an assertion on the device has poisoned: every call fails from now on.
        def synchronize():
            raise RuntimeError("CUDA error: device-side assert triggered")
        cuda = types.SimpleNamespace(is_initialized=lambda: True, synchronize=synchronize, OutOfMemoryError=MemoryError)
        sys.modules["torch"] = types.SimpleNamespace(cuda=cuda)
        synchronize()
    def leave(self):
        os._exit(3)
    def sleep(self):
        time.sleep(3600)
    def search(self):
        # Holds the GIL for ages, as careless patterns do.
        re.match(r"(a+)+$", "a" * 60 + "b")
    def stop(self):
        os.kill(os.getpid(), signal.SIGSTOP)
    def orphan(self):
        # Leaves somebody behind who holds the channel open.
        if os.fork():
            os._exit(4)
        time.sleep(3600)

class Leaks:
    def __init__(self, step):
        self.step, self.held = step, []
    def __call__(self, batch):
        self.held.append(np.ones(self.step, dtype=np.uint8))
        return {"x": batch["x"], "pid": np.full(len(batch["x"]), os.getpid())}

class FirstIsSlow:
    def __init__(self, seconds):
        self.seconds = seconds
    def __call__(self, batch):
        time.sleep(self.seconds)
        self.seconds = 0.0
        return {"x": batch["x"], "pid": np.full(len(batch["x"]), os.getpid())}

class Raises:
    def __init__(self, bad, until=""):
        self.bad, self.until = range(*bad), until
    def __call__(self, batch):
        x = batch["x"]
        if any(each in self.bad for each in x.tolist()):
            while self.until and not os.path.exists(self.until):
                time.sleep(0.01)
            raise ValueError("corrupt")
        return {"x": x, "pid": np.full(len(x), os.getpid())}

class Rows:
    # Each row is a call: together they take longer than any of them may.
    def __call__(self, row):
        time.sleep(0.05)
        return [{"x": row["x"]}]
"""


class Notes:
    """Remembers what is told of interruptions."""

    def __init__(self) -> None:
        self.heard: list[tuple[Cause, str]] = []

    def __call__(self, cause: Cause, words: str, call: Assembled | None = None) -> None:
        self.heard.append((cause, words))


class DeathBench(Bench):
    """As `Bench`, with the code above."""

    def __init__(self, folder: Path, target: str, rows: int, *, kind: str = "predict", tolerant: bool = True, **args: Any) -> None:
        self.kind, self.tolerant = kind, tolerant
        super().__init__(folder, target, rows, **args)
        (folder / "bench_steps.py").write_text(CODE)

    def stage_of(self, target: str, **args: Any) -> StageCall:
        return StageCall(target, self.kind, f"bench_steps:{target}", str(self.folder), args, tolerant=self.tolerant)

    def run_all(self, rows: int, step: int) -> None:
        for begin in range(0, rows, step):
            self.put(begin, step)
        self.wait(rows)

    @property
    def pids(self) -> set[int]:
        return {row["pid"] for row in self.found.values()}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    benches: list[DeathBench] = []

    def start(*args: Any, **keys: Any) -> DeathBench:
        benches.append(DeathBench(tmp_path, *args, **keys))
        return benches[-1]

    yield start
    for bench in benches:
        bench.stop()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suspect after a second what otherwise takes several."""
    monkeypatch.setattr(deadlines, "FLOOR_SECONDS", 1.0)
    monkeypatch.setattr(deadlines, "ALONE_SECONDS", 1.5)
    monkeypatch.setattr(deadlines, "ALONE_FACTOR", 1.5)


def test_a_crash_is_named_and_its_row_found_in_few_deaths(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    bench: DeathBench = make("Dies", 64, how="segfault", bad=[70])
    bench.start()
    bench.run_all(192, 64)
    (bad,) = bench.root.bad.items()
    assert bad[0] == 70
    assert bad[1].error.startswith("Segfault: the process of predict 'Dies' (bench_steps:Dies) was killed by SIGSEGV")
    assert "in segfault" in bad[1].traceback and "bench_steps.py" in bad[1].traceback
    deaths = [record for record in caplog.records if getattr(record, "action", "") == "restart"]
    # Twice as it is, once in a part, once alone behind others, and once first in its process.
    assert [record.rows for record in deaths] == [64, 64, 4, 1, 1]  # type: ignore[attr-defined]
    assert {(record.death, record.cause) for record in deaths} == {("Segfault", "process_crash")}  # type: ignore[attr-defined]
    assert sorted(bench.found) == [at for at in range(192) if at != 70]


@pytest.mark.parametrize(
    ("how", "said", "cause"),
    [("memory", "OutOfMemory: ", "out_of_memory"), ("device", "BrokenDevice: ", "gpu_fault")],
)
def test_a_row_that_takes_all_memory_or_poisons_the_device_is_found(
    make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, how: str, said: str, cause: str
) -> None:
    counted = tmp_path / "oom_kills"
    counted.touch()
    monkeypatch.setattr(deaths.OomCounter, "_read", lambda counter: (counted.stat().st_size, 0))
    bench: DeathBench = make("Dies", 16, how=how, bad=[70])
    bench.start()
    bench.run_all(160, 16)
    (bad,) = bench.root.bad.items()
    assert bad[0] == 70 and bad[1].error.startswith(said), bad
    assert how != "device" or "device-side assert" in bad[1].error
    restarts = [record for record in caplog.records if getattr(record, "action", "") == "restart"]
    assert {record.cause for record in restarts} == {cause}  # type: ignore[attr-defined]
    assert 2 <= len(restarts) <= 6 and restarts[-1].rows == 1  # type: ignore[attr-defined]
    assert sorted(bench.found) == [at for at in range(160) if at != 70]
    # Batches were cut smaller for want of memory until it was known whose fault that was.
    assert bench.flow.batch_rows(0) == 16


def is_orphan_of(bench: Bench, pid: int) -> bool:
    try:
        return str(bench.folder) in Path(f"/proc/{pid}/environ").read_text() and is_alive(pid)
    except OSError:
        return False


def test_a_death_is_noticed_while_somebody_else_holds_the_channel(make: Any) -> None:
    bench: DeathBench = make("Dies", 1, how="orphan", bad=[1])
    bench.start()
    bench.run_all(3, 1)
    assert list(bench.root.bad) == [1] and "Exit: " in bench.root.bad[1].error and "code 4" in bench.root.bad[1].error
    assert not [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if is_orphan_of(bench, pid)]


@pytest.mark.parametrize(("how", "frame"), [("sleep", "in sleep"), ("search", "in search"), ("stop", "")])
def test_a_hang_is_ended_and_its_row_found(make: Any, hasty: None, how: str, frame: str) -> None:
    bench: DeathBench = make("Dies", 16, how=how, bad=[100])
    bench.start()
    bench.run_all(160, 16)
    assert list(bench.root.bad) == [100] and len(bench.found) == 159
    bad = bench.root.bad[100]
    assert bad.error.startswith("Hang: the process of predict 'Dies' (bench_steps:Dies) gave no sign of life for ")
    assert "calls have taken" in bad.error and frame in bad.traceback


def test_the_users_timeout_holds_and_spares_the_first_call(make: Any) -> None:
    bench: DeathBench = make("FirstIsSlow", 4, seconds=1.5)
    bench.start(care=Care(Patience(0.5)))
    bench.run_all(16, 4)
    assert not bench.root.bad and len(bench.pids) == 1
    hangs: DeathBench = make("Dies", 4, how="sleep", bad=[9])
    hangs.start(care=Care(Patience(0.5)))
    began = time.monotonic()
    hangs.run_all(16, 4)
    assert list(hangs.root.bad) == [9] and "its timeout" in hangs.root.bad[9].error
    assert time.monotonic() - began < 15


def test_many_short_calls_are_no_long_one(make: Any) -> None:
    bench: DeathBench = make("Rows", 40, kind="flat_map")
    bench.start(care=Care(Patience(0.6)))
    bench.put(0, 40)
    wait_until(lambda: bool(bench.errors) or bench.flow.statistics()[0].batches == 1, "the batch")
    assert not bench.errors and bench.flow.statistics()[0].rows_out == 40


def start_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def test_everybody_else_goes_on_while_suspects_are_in_the_ward(make: Any, hasty: None) -> None:
    bench: DeathBench = make("Dies", 16, how="sleep", bad=[40], seconds=0.01)
    notes = Notes()
    care = Care(note=notes)

    def suspects(feed: Feed) -> Predictor:
        return Predictor(0, bench.stage, feed, threads=1, sizing=bench.sizing, care=Care(care.patience, note=notes))

    care.ward = Ward(0, bench.flow, suspects, start_thread, lambda size: True)
    predictor = bench.start(care=care)
    bench.run_all(3200, 16)
    assert list(bench.root.bad) == [40] and len(bench.found) == 3199
    # One death in the ordinary process, and two in the ward, where each of its rows is alone: behind others, and first in its process.
    assert [cause for cause, _ in notes.heard] == [Cause.PROCESS_HANG] * 3 and all("Hang" in words for _, words in notes.heard)
    main = predictor.pid
    assert main is not None and len([at for at, row in bench.found.items() if row["pid"] == main]) > 3100
    wait_until(lambda: not any(is_alive(pid) for pid in bench.pids - {main}), "the ward is empty again")


def test_a_kill_from_outside_blames_no_row_and_empties_no_ward(make: Any) -> None:
    bench: DeathBench = make("Dies", 8, how="kill", seconds=0.05)
    care = Care()

    def suspects(feed: Feed) -> Predictor:
        raise AssertionError("nobody is suspected")

    care.ward = Ward(0, bench.flow, suspects, start_thread, lambda size: True)
    predictor = bench.start(care=care)
    assert predictor.wait_ready(30)
    bench.put(0, 400)
    wait_until(lambda: len(bench.found) > 40, "some rows")
    assert predictor.pid is not None
    os.kill(predictor.pid, signal.SIGKILL)
    bench.wait(400)
    assert not bench.root.bad and len(bench.found) == 400


def test_code_that_kills_on_every_row_is_at_fault_itself(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquest, "_HOPELESS_ROWS", 3)
    bench: DeathBench = make("Dies", 1, how="leave", bad=list(range(100)), tolerant=False)
    bench.start()
    bench.put(0, 100)
    wait_until(lambda: bool(bench.errors), "given up")
    assert "on every row so far" in str(bench.errors[0]) and len(bench.root.bad) < 10


def test_a_process_that_meets_bad_rows_first_does_not_condemn_code_that_has_worked(make: Any) -> None:
    bench: DeathBench = make("Raises", 8, bad=[40, 120], tolerant=False)
    notes = Notes()
    bench.start(care=Care(most_batches=5, note=notes))
    bench.run_all(160, 8)
    assert sorted(bench.root.bad) == list(range(40, 120)) and len(bench.found) == 80
    assert notes.heard[0][0] is Cause.PROCESS_AGED and "max_lifetime" in notes.heard[0][1]


def test_a_verdict_that_others_have_refuted_meanwhile_is_void(make: Any, tmp_path: Path) -> None:
    until = tmp_path / "go-on"
    bench: DeathBench = make("Raises", 64, bad=[0, 64], until=str(until), tolerant=False)
    notes = Notes()
    care = Care(note=notes)
    predictor = bench.start(care=care)
    bench.put(0, 128)
    assert predictor.wait_ready(30)
    # When the second batch has been taken, the first was handed over with the word that nothing has succeeded yet.
    wait_until(lambda: bench.flow.statistics()[0].rows_in == 128, "both batches are under way")
    care.standing.has_results = True
    until.touch()
    bench.wait(128)
    assert sorted(bench.root.bad) == list(range(64)) and len(bench.found) == 64
    assert notes.heard == [(Cause.HOPELESS, "started afresh: it had seen none but bad rows")]


def test_rows_that_kill_in_the_ward_do_not_condemn_code_that_has_worked(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquest, "_HOPELESS_ROWS", 2)
    bench: DeathBench = make("Dies", 8, how="leave", bad=[64, 65, 66], tolerant=False)
    care = Care()

    def suspects(feed: Feed) -> Predictor:
        return Predictor(0, bench.stage, feed, threads=1, sizing=bench.sizing, care=replace(care, ward=None))

    care.ward = Ward(0, bench.flow, suspects, start_thread, lambda size: True)
    bench.start(care=care)
    bench.run_all(128, 8)
    assert sorted(bench.root.bad) == [64, 65, 66] and len(bench.found) == 125


def test_a_process_is_started_afresh_after_its_lifetime(make: Any) -> None:
    bench: DeathBench = make("Dies", 4, how="kill")
    notes = Notes()
    bench.start(care=Care(most_batches=5, note=notes))
    bench.run_all(48, 4)
    assert not bench.root.bad and len(bench.found) == 48
    assert len(bench.pids) >= 2 and notes.heard[0][0] is Cause.PROCESS_AGED


def test_a_leak_is_noticed_and_the_process_started_afresh(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "STRETCH_SECONDS", 0.2)
    monkeypatch.setattr(leaks, "LEAST_BYTES", 8 << 20)
    monkeypatch.setattr(leaks, "SHARE_OF_START", 0.0)
    bench: DeathBench = make("Leaks", 4, step=8 << 20)
    notes = Notes()
    bench.start(care=Care(note=notes))
    at = 0
    deadline = time.monotonic() + 60
    while not notes.heard and time.monotonic() < deadline:
        bench.put(at, 4)
        at += 4
        time.sleep(0.2)
    bench.wait(at)
    cause, words = notes.heard[0]
    assert cause is Cause.PROCESS_LEAK and "its memory grew from" in words
    wait_until(lambda: bool(bench.put(at, 4)) or len(bench.pids) > 1, "another process")
    assert not bench.root.bad


def test_setting_up_is_not_waited_for_for_ever(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "SETUP_SECONDS", 0.5)
    monkeypatch.setattr(inquest, "_DEATHS_IN_SETUP", 2)
    bench: Bench = Bench(tmp_path, "Slow", 4)
    bench.start()
    wait_until(lambda: bool(bench.errors), "given up")
    assert "gave no sign of life" in str(bench.errors[0]) and "while it was being set up" in str(bench.errors[0])
    bench.stop()


# -- map functions in threads ------------------------------------------------------------------------------------------------------------

MAPS = """
import ctypes, re, time

def crashes(batch):
    if 1500 in batch["x"]:
        ctypes.string_at(0)
    return {"x": batch["x"]}

def sleeps(batch):
    if 1500 in batch["x"]:
        time.sleep(3600)
    return {"x": batch["x"]}

def searches(batch):
    # Keeps every thread of its process from running.
    if 1500 in batch["x"]:
        re.match(r"(a+)+$", "a" * 60 + "b")
    return {"x": batch["x"]}
"""


def map_job(folder: Path, target: str) -> Job:
    (folder / "input").mkdir(parents=True)
    pq.write_table(pa.table({"x": list(range(2000))}), folder / "input" / "a.parquet", row_group_size=1000)
    stage = {"map_batches": f"steps:{target}", "batch_size": 50, "concurrency": 2, "timeout": 1.5}
    return Job(folder, MAPS, pipeline=[stage], commit_interval=1, quarantine={"max_fraction": 1})


def test_a_call_that_hangs_in_a_thread_ends_the_host_and_is_found_in_a_process(tmp_path: Path) -> None:
    job = map_job(tmp_path, "sleeps")
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        for shard in range(len(job.shards)):
            host.send(job.work(shard))
        assert host.process.wait(60) == deaths.HUNG
    with job.host(isolated=True) as host:
        host.wait_for(hostlink.Ready)
        work = [job.work(shard) for shard in range(len(job.shards))]
        for item in work:
            host.send(item)
        records = collect(host, work)
        assert host.stop() == 0
    job.publish(records)
    assert sum(record.rows_quarantined for record in records) == 1
    assert job.table().column("x").to_pylist() == [at for at in range(2000) if at != 1500]
    (bad,) = read_quarantine(Path(job.output)).to_pylist()
    assert bad["offset"] % 1000 == 500 and bad["error"].startswith("Hang: ") and "in sleeps" in bad["traceback"]


def run_host(job: Job, **keys: Any) -> tuple[HostProcess, list[Any], list[str]]:
    """Run a host as its agent does; return it with what it said and how it ended, which come to be there."""
    said: list[Any] = []
    ended: list[str] = []
    host = HostProcess(spawn(), lambda _, message: said.append(message), lambda _, how: ended.append(how), **keys)
    host.send(hostlink.Setup("w", "job", job.document, job.output))
    wait_until(lambda: any(isinstance(message, hostlink.Ready) for message in said), "ready")
    for shard in range(len(job.shards)):
        host.send(job.work(shard))
    return host, said, ended


def test_a_host_that_user_code_keeps_silent_is_ended_by_its_agent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host, _, ended = run_host(map_job(tmp_path, "searches"), silence_seconds=3.0)
    assert host.join(60)
    assert ended[0].startswith("Hang: it gave no sign of life for 3") and host.blames_user_code
    assert "in searches" in caplog.text
    assert not list(families.members(host.pid))


@pytest.mark.slow
@pytest.mark.parametrize(("target", "word"), [("sleeps", "Hang: "), ("crashes", "Segfault: ")])
def test_a_job_survives_a_map_function_that_ends_its_host(tmp_path: Path, target: str, word: str) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"x": list(range(2000))}), tmp_path / "in" / "a.parquet", row_group_size=500)
    job = {
        "source": {"type": "parquet", "path": "in"},
        "pipeline": [{"map_batches": f"steps:{target}", "batch_size": 50, "concurrency": 2, "timeout": 1.5}],
        "sink": {"path": "out"},
    }
    report = run_job(tmp_path, job, "--workers", "1", steps=MAPS)
    assert (report["rows_out"], report["rows_quarantined"]) == (1999, 1)
    (bad,) = read_quarantine(tmp_path / "out").to_pylist()
    assert bad["error"].startswith(word) and f"in {target}" in bad["traceback"]
