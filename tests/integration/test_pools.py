"""Pools of executors: they join and leave while rows flow, nothing is lost or done twice, and nothing of them is left behind."""

from __future__ import annotations

import gc
import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.spec.schema import StageSpec
from antinfer.worker import hostlink
from antinfer.worker.host.flow import Flow
from antinfer.worker.host.machine import PROCESS_BYTES, MachineReader
from antinfer.worker.host.pools import Pools, StagePool
from antinfer.worker.host.tuning import Tuning
from antinfer.worker.pipeline.assembler import BatchLimits
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.placing import PredictorPlaces
from antinfer.worker.tuning.values import Machine
from tests.integration.hosts import Crew, Job, children, is_alive, slabs_of, wait_until

pytestmark = pytest.mark.timeout(240)

CODE = """
import ctypes, os, threading, time
import antinfer
import numpy as np

MAIN = os.getpid()

class Slow:
    def __init__(self, log="", seconds=0.005):
        self.log, self.seconds = log, seconds
        self.note("built")
    def note(self, text):
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{text} {os.getpid()}\\n")
    def teardown(self):
        self.note("left")
    def __call__(self, batch):
        time.sleep(self.seconds)
        return {"x": batch["x"], "pid": np.full(len(batch["x"]), os.getpid())}

class OnlyHere:
    # Cannot be built anywhere but in the process that runs the tests.
    def __init__(self, pid, error="RuntimeError"):
        if os.getpid() != pid:
            raise {"RuntimeError": RuntimeError, "InfraError": antinfer.InfraError}[error]("not in this process")
    def __call__(self, batch):
        return {"x": batch["x"]}

class Threads:
    def __init__(self):
        import torch
        self.torch = torch
    def __call__(self, batch):
        time.sleep(0.01)
        return {"x": batch["x"], "threads": np.full(len(batch["x"]), self.torch.get_num_threads())}

class Compiled(Threads):
    def __init__(self):
        super().__init__()
        self.compiled = self.torch.compile(lambda x: x + 1, backend="eager")
        self.compiled(self.torch.ones(2))
    def __call__(self, batch):
        from torch._dynamo.utils import counters
        self.compiled(self.torch.ones(2))
        return {**super().__call__(batch), "programs": np.full(len(batch["x"]), counters["stats"]["unique_graphs"])}

def pure_python(batch):
    total = 0
    until = time.thread_time() + 0.03
    while time.thread_time() < until:
        for n in range(1000):
            total += n
    return {"x": batch["x"], "pid": np.full(len(batch["x"]), os.getpid())}

def holds_the_gil(batch):
    # Not for the cores' sake: a PyDLL keeps the GIL while it is called.
    ctypes.PyDLL(None).usleep(25_000)
    return {"x": batch["x"], "pid": np.full(len(batch["x"]), os.getpid())}

def lets_go(batch):
    time.sleep(0.03)
    return {"x": batch["x"], "pid": np.full(len(batch["x"]), os.getpid())}

def cheap(batch):
    return {"x": batch["x"]}
"""


NUMBERS = itertools.count()


class Bench:
    """One stage in a pool, fed by hand; how often each row came out."""

    def __init__(
        self, folder: Path, target: str, rows: int = 4, *, degree: int = 2, in_processes: bool = False, processes: int = 1, **keys: Any
    ) -> None:
        # The threads run in this process, where a module keeps its name for good.
        module = f"pool_steps_{next(NUMBERS)}"
        (folder / f"{module}.py").write_text(CODE)
        args = keys.pop("args", {})
        spec = StageSpec.model_validate({"kind": "map_batches", "target": f"{module}:{target}", "name": target, **keys})
        stage = StageCall(target, "map_batches", spec.target, str(folder), args)
        self.nodes = [Call(stage, BatchLimits(rows), degree, in_processes, spec, processes=processes)]
        self.found: Counter[int] = Counter()
        self.seen: dict[str, set[int]] = {}
        self.guard = threading.Lock()
        self.flow = Flow(self.nodes, self.collect)
        self.crew = Crew()
        self.pools = Pools(self.nodes, self.flow, PredictorPlaces(self.nodes, self.flow, 4, ()), self.crew.start)
        self.root = Root(0)
        self.put_rows = 0

    @property
    def pool(self) -> StagePool:
        return next(iter(self.pools))

    def collect(self, piece: Piece) -> None:
        if piece.batch is None:
            return
        with self.guard:
            for name, column in zip(piece.batch.schema.names, piece.batch.columns, strict=True):
                if name == "x":
                    self.found.update(column.to_pylist())
                else:
                    self.seen.setdefault(name, set()).update(column.to_pylist())

    def put(self, rows: int) -> None:
        begin, self.put_rows = self.put_rows, self.put_rows + rows
        self.flow.put(Piece(self.root, begin, begin + rows, pa.record_batch({"x": np.arange(begin, begin + rows)})))

    def wait_for_all(self) -> None:
        wait_until(lambda: bool(self.crew.errors) or self.found.total() >= self.put_rows, "all rows")
        assert not self.crew.errors, self.crew.errors
        assert self.found == Counter(range(self.put_rows))

    def stop(self) -> None:
        self.flow.stop()
        self.crew.join()

    def is_settled(self, threads: int, processes: int) -> bool:
        return self.pool.state(threads=threads, processes=processes) == "settled"


def slabs() -> int:
    gc.collect()
    return slabs_of(os.getpid())


def tasks() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def resize_at_random(folder: Path, chance: random.Random) -> Counter[str]:
    """Run a bench whose pool changes all the time to its end; return how often copies were built and torn down, by process."""
    log = folder / "log"
    bench = Bench(folder, "Slow", args={"log": str(log)})
    bench.pools.start_threads()
    for _ in range(12):
        bench.put(60)
        bench.pool.resize(threads=chance.randint(0, 3), processes=chance.randint(0, 2))
        time.sleep(chance.choice([0.0, 0.05, 0.3]))
    bench.pool.resize(threads=1, processes=1)
    bench.put(40)
    wait_until(lambda: bench.is_settled(1, 1), "one of each")
    bench.wait_for_all()
    bench.stop()
    return Counter(log.read_text().splitlines())


def test_executors_join_and_leave_while_rows_flow(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    threads_before, slabs_before, children_before = tasks(), slabs(), set(children(os.getpid()))
    counts = resize_at_random(tmp_path, random.Random(seed))
    here = os.getpid()
    assert counts[f"built {here}"] == counts[f"left {here}"] > 1
    # A process that was sent away before it was ready has been killed; every other one has torn down.
    assert all(counts[line.replace("left", "built")] == 1 for line in counts if line.startswith("left") and not line.endswith(f" {here}"))
    wait_until(lambda: set(children(os.getpid())) <= children_before, "no process is left")
    wait_until(lambda: tasks() <= threads_before, "no thread is left")
    wait_until(lambda: slabs() <= slabs_before, "no shared memory is left")


@pytest.mark.alone
def test_a_new_process_joins_without_a_break(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "Slow", degree=1, args={"seconds": 0.02})
    bench.pools.start_threads()
    bench.put(2000)
    bench.pool.resize(threads=1, processes=1)
    assert bench.pool.degree == 2 and bench.pool.ready == 1
    before = bench.found.total()
    wait_until(lambda: bench.found.total() > before or bench.pool.ready == 2, "the thread goes on")
    assert bench.pool.ready == 1
    wait_until(lambda: len(bench.seen.get("pid", ())) == 2, "both work")
    bench.pool.resize(threads=0, processes=1)
    wait_until(lambda: bench.is_settled(0, 1), "the thread has left")
    assert bench.pool.mode == "processes"
    bench.wait_for_all()
    bench.stop()


@pytest.mark.parametrize("error", ["RuntimeError", "InfraError"])
def test_code_that_cannot_be_set_up_in_a_process_goes_on_in_threads(tmp_path: Path, error: str) -> None:
    bench = Bench(tmp_path, "OnlyHere", args={"pid": os.getpid(), "error": error})
    bench.pools.start_threads()
    bench.put(100)
    bench.pool.resize(threads=2, processes=2, expendable=True)
    wait_until(lambda: bench.pool.state(threads=2, processes=2) == "failed", "the trial failed")
    bench.put(100)
    bench.wait_for_all()
    bench.pool.resize(threads=2, processes=2)
    wait_until(lambda: bool(bench.crew.errors), "without a trial it is an error")
    assert "not in this process" in str(bench.crew.errors[0])
    bench.stop()


def test_the_rest_of_the_processes_follows_when_the_first_shows_what_it_takes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "cheap", degree=1, in_processes=True, processes=3, workers_as="processes")
    bench.pools.start_processes([])
    full, half, empty = (Machine(4.0, ram_total=64 * PROCESS_BYTES, ram_used=used * PROCESS_BYTES) for used in (32, 31, 0))
    while not bench.pools.wait_ready(0.1):
        bench.pools.widen(full)
    bench.pools.widen(full)
    assert bench.pool.degree == 1
    bench.pools.widen(half)
    assert bench.pool.degree == 2
    # The second one may not be set up yet, and then nothing is known of it.
    wait_until(lambda: bench.is_settled(0, 2), "two")
    bench.pools.widen(empty)
    bench.pools.widen(empty)
    assert bench.pool.degree == 3
    bench.put(200)
    bench.wait_for_all()
    bench.stop()


def test_processes_share_the_cores(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    bench = Bench(tmp_path, "Threads", degree=1, in_processes=True, workers_as="processes")
    bench.pools.start_processes([])
    wait_until(lambda: bench.pools.wait_ready(0.1), "ready")
    bench.put(20)
    bench.wait_for_all()
    assert bench.seen["threads"] == {4}
    bench.pool.resize(threads=0, processes=2)
    bench.pools.share_cores()
    wait_until(lambda: bench.is_settled(0, 2), "two")
    bench.seen.clear()
    bench.put(80)
    bench.wait_for_all()
    assert bench.seen["threads"] == {2}
    bench.pool.resize(threads=0, processes=1)
    bench.pools.share_cores()
    wait_until(lambda: bench.is_settled(0, 1), "one again")
    bench.seen.clear()
    bench.put(20)
    bench.wait_for_all()
    assert bench.seen["threads"] == {4}
    bench.stop()


def test_a_compiled_model_is_compiled_once_however_many_processes_share_the_cores(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    bench = Bench(tmp_path, "Compiled", degree=2, in_processes=True, workers_as="processes")
    # It was started before anybody knew how many there will be.
    bench.pools.start_processes([spawn.start(1)])
    wait_until(lambda: bench.pools.wait_ready(0.1), "ready")
    bench.put(80)
    bench.wait_for_all()
    assert bench.seen["threads"] == {2}
    bench.pool.resize(threads=0, processes=1)
    bench.pools.share_cores()
    wait_until(lambda: bench.is_settled(0, 1), "one")
    bench.put(20)
    bench.wait_for_all()
    assert bench.seen["programs"] == {1}
    bench.stop()


class FixedMachine(MachineReader):
    """A machine with four cores that nobody else uses: what is measured here is the code, not who else runs."""

    def __init__(self) -> None:
        super().__init__(())
        self.cpus = 4.0

    def read(self) -> Machine:
        return Machine(4.0, 1.0, 1 << 40, 1 << 30)


def free_cores() -> float:
    """Return how many cores two processes that compute get."""
    code = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    return sum(float(process.communicate()[0]) for process in running)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize(("target", "mode"), [("holds_the_gil", "processes"), ("pure_python", "processes"), ("lets_go", "threads")])
def test_the_better_way_is_found_on_real_batches(tmp_path: Path, target: str, mode: str) -> None:
    if target == "pure_python" and (free := free_cores()) < 1.6:
        pytest.skip(f"others leave us {free:.1f} cores, so that processes are no better")
    bench = Bench(tmp_path, target, degree=2)
    bench.pools.start_threads()
    tuning = Tuning(bench.nodes, bench.flow, bench.pools, FixedMachine())
    deadline = time.monotonic() + 90
    while not tuning.decisions.get(0) and time.monotonic() < deadline:
        if bench.put_rows - bench.found.total() < 200:
            bench.put(400)
        tuning.tick(time.monotonic())
        time.sleep(0.1)
    (line,) = list(tuning.decisions[0])[:1]
    assert line.startswith(f"{target} runs in 2 {mode}: "), line
    bench.seen.clear()
    wait_until(lambda: bench.is_settled(2, 0) if mode == "threads" else bench.is_settled(0, 2), line)
    bench.wait_for_all()
    assert (os.getpid() in bench.seen["pid"]) == (mode == "threads")
    bench.stop()


@pytest.mark.alone
@pytest.mark.slow
def test_a_crowd_that_waits_for_itself_is_replaced_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, "holds_the_gil", degree=2, concurrency=(1, 4))
    # What threads compute is told, for few machines have the cores: all the time while they are two, half of it when they are four.
    told = {"busy": 0.0, "cpu": 0.0}

    def cpu_seconds(pool: StagePool) -> float:
        busy = bench.flow.statistics()[0].busy_seconds
        told["cpu"] += (busy - told["busy"]) * (1.0 if pool.degree < 4 else 0.5)
        told["busy"] = busy
        return told["cpu"]

    monkeypatch.setattr(StagePool, "cpu_seconds", property(cpu_seconds))
    monkeypatch.setattr(MachineReader, "cpu_seconds", lambda _: 0.0)
    bench.pools.start_threads()
    tuning = Tuning(bench.nodes, bench.flow, bench.pools, FixedMachine())
    deadline = time.monotonic() + 90
    while len(tuning.decisions[0]) < 2 and time.monotonic() < deadline:
        if bench.put_rows - bench.found.total() < 200:
            bench.put(400)
        tuning.tick(time.monotonic())
        time.sleep(0.1)
    first, second = list(tuning.decisions[0])[:2]
    assert first.startswith("holds_the_gil runs in 4 threads: 2 threads keep"), first
    assert second.startswith("holds_the_gil runs in 4 processes: 4 threads compute on "), second
    wait_until(lambda: bench.is_settled(0, 4), second)
    bench.wait_for_all()
    bench.stop()


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize(("most", "reached"), [(2, 2), (1, 1)])
def test_the_tuner_adds_processes_where_that_pays(tmp_path: Path, most: int, reached: int) -> None:
    keys = {"workers_as": "processes", "concurrency": (1, most), "args": {"seconds": 0.04}}
    bench = Bench(tmp_path, "Slow", degree=1, in_processes=True, **keys)
    bench.pools.start_processes([])
    wait_until(lambda: bench.pools.wait_ready(0.1), "ready")
    tuning = Tuning(bench.nodes, bench.flow, bench.pools, FixedMachine())
    deadline = time.monotonic() + (60 if most > 1 else 8)
    while len(tuning.decisions[0]) < 2 and time.monotonic() < deadline:
        if bench.put_rows - bench.found.total() < 200:
            bench.put(400)
        tuning.tick(time.monotonic())
        time.sleep(0.1)
    assert bench.pool.degree == reached, tuning.decisions
    if most > 1:
        grown, kept = tuning.decisions[0]
        assert "1 -> 2 processes" in grown and "2 stay" in kept
    else:
        assert not tuning.decisions[0]
    bench.wait_for_all()
    bench.stop()


def write(folder: Path, rows: int) -> None:
    (folder / "input").mkdir(parents=True)
    pq.write_table(pa.table({"x": list(range(rows))}), folder / "input" / "a.parquet", row_group_size=1000)


@pytest.mark.slow
def test_a_host_tries_both_ways_loses_no_row_and_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path, 4000)
    pipeline = [{"map_batches": "steps:holds_the_gil", "batch_size": 10, "concurrency": 2}]
    job = Job(tmp_path, CODE, pipeline=pipeline, commit_interval=1)
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        assert host.children() == []
        host.send(job.work(0))
        seen: list[int] = []
        told: tuple[Any, ...] = ()
        records, at = [], 0
        while at < 4000:
            message = next(host.everything())
            assert not isinstance(message, hostlink.Failed), message
            if isinstance(message, hostlink.Staged):
                records.append(message.record)
                at = message.record.stop
            elif isinstance(message, hostlink.Progress):
                told = message.stages
                seen = seen or host.children()
        (stage,) = told
        assert stage.rows_in == stage.rows_out == 4000 and stage.batches == 400
        assert stage.busy_seconds > 5 and 0 < stage.busy <= 1
        assert any(line.startswith("holds_the_gil runs in 2 processes: ") for line in stage.decisions), stage
        assert stage.mode == "processes" and stage.load_seconds > 0
        left = host.children()
        assert host.stop() == 0
        assert not any(is_alive(pid) for pid in (*seen, *left))
    job.publish(records)
    table = job.table()
    assert table.column("x").to_pylist() == list(range(4000))


def test_nothing_is_tried_on_a_short_job(tmp_path: Path) -> None:
    write(tmp_path, 10_000)
    job = Job(tmp_path, CODE, pipeline=[{"map_batches": "steps:cheap"}])
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        began = time.monotonic()
        host.send(job.work(0))
        told: Any = None
        for message in host.everything():
            told = message if isinstance(message, hostlink.Progress) else told
            assert host.children() == []
            if isinstance(message, hostlink.Staged):
                break
        assert time.monotonic() - began < 2
        # What was done is told before it is asked to be committed.
        assert told is not None and told.stages[0].rows_in == 10_000 and told.stages[0].decisions == ()
        assert host.stop() == 0
