"""Threads or processes: the right answer for functions of every kind, at a price that short jobs do not pay."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from antinfer.worker.tuning.workersas import ALONE_AFTER, CROWD_AFTER, Counters, Wish, WorkersTrial

TICK = 0.2
ROWS = 100


@dataclass
class Function:
    """A function by what one batch costs, on a machine with so many cores."""

    gil: float = 0.0
    """Seconds for which a batch holds the GIL."""
    free: float = 0.0
    """Seconds for which it computes without."""
    wait: float = 0.0
    """Seconds for which it waits for others than us."""
    hand_over: float = 0.0
    """Seconds of the host for a batch that goes to a process and back."""
    cpus: float = 8.0
    most_threads: float = 1e9
    """Cores that all threads of one process keep at work, however many they are."""
    taken: float = 0.0
    """Cores that others keep at work."""
    demand: float = 1e9
    """Batches per second that come in."""

    def rate(self, threads: int, processes: int) -> float:
        """Return batches per second."""
        seconds = self.gil + self.free + self.wait
        limits = [(threads + processes) / seconds, self.demand]
        if self.gil + self.free:
            limits.append((self.cpus - self.taken) / (self.gil + self.free))
        if threads:
            limits.append((self.most_threads + processes) / seconds)
        if threads and self.gil:
            limits.append(1 / self.gil + processes / seconds)
        if processes and self.hand_over:
            limits.append(threads / seconds + 1 / self.hand_over)
        return min(limits)


class Bench:
    """Runs a trial over a function."""

    def __init__(
        self,
        function: Function,
        degree: int = 4,
        *,
        processes: int | None = None,
        loads: float = 1.0,
        fails: bool = False,
        crowd: bool = False,
    ) -> None:
        self.function = function
        self.trial = WorkersTrial(degree, function.cpus, processes=processes, crowd=crowd)
        self.now = 0.0
        self.counters = Counters()
        self.loads, self.fails = loads, fails
        self.wishes = [self.trial.wish]
        self.batches = 0.0

    def run(self, seconds: float, room: int | None = None) -> None:
        changed = -1e9
        until = self.now + seconds
        while self.now < until and self.trial.verdict is None:
            self.now += TICK
            wish = self.wishes[-1]
            ready = self.now - changed >= self.loads or not wish.processes
            self.work(wish.threads, wish.processes if ready else 0)
            state = "failed" if wish.processes and self.fails else "settled" if ready else "changing"
            self.trial.step(self.now, self.counters, state, room=room)  # type: ignore[arg-type]
            if self.trial.wish != wish:
                # Processes that are there already need no more time.
                changed = self.now if self.trial.wish.processes and not wish.processes else -1e9
                self.wishes.append(self.trial.wish)

    def work(self, threads: int, processes: int) -> None:
        function = self.function
        rate = function.rate(threads, processes)
        before = int(self.batches)
        self.batches += rate * TICK
        done = int(self.batches) - before
        executors = threads + processes
        compute = function.gil + function.free + function.wait
        # A thread is at work while it waits for the GIL or a core, a process computes for as long as it does.
        hungry = rate >= function.demand
        share = min(1.0, rate * compute / executors) if processes or hungry else 1.0
        busy = share * executors * done / rate
        old = self.counters
        self.counters = Counters(
            old.rows + done * ROWS,
            old.batches + done,
            old.busy_seconds + busy,
            old.idle_seconds + ((1 - share) * executors * TICK if hungry else 0.0),
            old.cpu_seconds + (done * (function.gil + function.free) if threads else 0.0),
            old.machine_cpu_seconds + function.taken * TICK + done * (function.gil + function.free),
        )


@pytest.mark.parametrize(
    ("function", "mode", "words"),
    [
        (Function(gil=0.05), "processes", "4 processes make"),
        (Function(gil=0.04, free=0.01), "processes", "4 processes make"),
        (Function(free=0.05), "threads", "lets go of the GIL"),
        (Function(wait=0.05), "threads", "4.0 times as much as one"),
        (Function(gil=0.001, wait=0.05), "threads", "times as much as one"),
        (Function(gil=0.05, hand_over=0.05), "threads", "4 threads 2000"),
        (Function(gil=0.05, cpus=1), "threads", "one thread is all there is"),
    ],
    ids=["holds", "mostly holds", "computes", "waits", "waits and holds", "dear to hand over", "one core"],
)
def test_each_kind_of_function_runs_the_better_way(function: Function, mode: str, words: str) -> None:
    bench = Bench(function)
    bench.run(60)
    assert bench.trial.verdict is not None
    assert bench.trial.verdict.mode == mode and words in bench.trial.verdict.reason, bench.trial.verdict
    assert bench.trial.wish == (Wish(4, 0) if mode == "threads" else Wish(0, 4))


def test_a_function_that_computes_beside_itself_is_known_without_a_trial() -> None:
    bench = Bench(Function(free=0.05))
    bench.run(60)
    assert bench.wishes == [Wish(4, 0)] and bench.now < 2
    assert bench.trial.verdict is not None and bench.trial.verdict.grows


def test_threads_work_on_while_processes_load() -> None:
    bench = Bench(Function(gil=0.05), loads=5.0)
    bench.run(60)
    assert bench.wishes == [Wish(4, 0), Wish(1, 0), Wish(4, 4), Wish(0, 4)]


def test_a_short_job_pays_for_nothing() -> None:
    bench = Bench(Function(gil=0.05))
    bench.run(ALONE_AFTER)
    assert bench.wishes == [Wish(4, 0)] and bench.trial.verdict is None and not bench.trial.is_active


def test_a_stage_that_others_keep_waiting_is_left_alone() -> None:
    bench = Bench(Function(gil=0.05, demand=2.0))
    bench.run(60)
    assert bench.wishes == [Wish(4, 0)] and bench.trial.verdict is None
    # Until it is what others wait for.
    bench.function.demand = 1e9
    bench.run(60)
    assert bench.trial.verdict is not None and bench.trial.verdict.mode == "processes"


@pytest.mark.parametrize("why", ["fails", "never ready", "no memory"])
def test_without_processes_it_is_threads(why: str) -> None:
    bench = Bench(Function(gil=0.05), fails=why == "fails", loads=1e9 if why == "never ready" else 1.0)
    bench.run(300, room=3 if why == "no memory" else None)
    assert bench.trial.verdict is not None and bench.trial.verdict.mode == "threads"
    assert bench.trial.wish == Wish(4, 0)
    assert {"fails": "could not be set up", "never ready": "too long", "no memory": "lack memory"}[why] in bench.trial.verdict.reason


@pytest.mark.parametrize(
    ("function", "degree", "mode", "words"),
    [
        (Function(free=0.05, cpus=16, most_threads=11), 16, "processes", "16 threads compute on 11.0 cores: 16 processes make"),
        (Function(free=0.05, cpus=16, most_threads=11, hand_over=0.005), 16, "threads", "20000 rows/s, 16 threads 22"),
        (Function(free=0.05, cpus=16, most_threads=15), 16, "threads", "do not wait for each other"),
        (Function(free=0.05, cpus=4, most_threads=2.8), 4, "processes", "4 threads compute on 2.8 cores: 4 processes make"),
    ],
    ids=["waits", "waits but is dear to hand over", "computes", "small"],
)
def test_a_crowd_runs_the_better_way(function: Function, degree: int, mode: str, words: str) -> None:
    bench = Bench(function, degree, crowd=True)
    bench.run(90)
    assert bench.trial.verdict is not None and not bench.trial.verdict.grows
    assert bench.trial.verdict.mode == mode and words in bench.trial.verdict.reason, bench.trial.verdict
    assert bench.trial.wish == (Wish(degree, 0) if mode == "threads" else Wish(0, degree))
    assert not bench.trial.is_active and not bench.trial.watches_crowd


def test_a_crowd_that_computes_starts_no_processes() -> None:
    bench = Bench(Function(free=0.05, cpus=16), 16, crowd=True)
    bench.run(60)
    assert bench.wishes == [Wish(16, 0)] and bench.trial.verdict is not None and bench.now < CROWD_AFTER + 3


@pytest.mark.parametrize("why", ["no cores", "kept waiting"])
def test_a_crowd_that_waits_for_others_is_left_alone_until_it_does_not(why: str) -> None:
    function = Function(free=0.05, cpus=16, most_threads=11)
    if why == "no cores":
        function.taken = 5
    else:
        function.demand = 100
    bench = Bench(function, 16, crowd=True)
    bench.run(120)
    assert bench.wishes == [Wish(16, 0)] and bench.trial.verdict is None and bench.trial.watches_crowd
    function.taken, function.demand = 0, 1e9
    bench.run(60)
    assert bench.trial.verdict is not None and bench.trial.verdict.mode == "processes"


def test_a_crowd_in_a_short_job_pays_for_nothing() -> None:
    bench = Bench(Function(free=0.05, cpus=16, most_threads=11), 16, crowd=True)
    bench.run(CROWD_AFTER)
    assert bench.wishes == [Wish(16, 0)] and bench.trial.verdict is None and not bench.trial.is_active


@pytest.mark.parametrize(("degree", "cpus"), [(3, 16), (16, 3)])
def test_few_threads_are_no_crowd(degree: int, cpus: float) -> None:
    verdict = WorkersTrial(degree, cpus, crowd=True).verdict
    assert verdict is not None and verdict.mode == "threads"


def test_a_crowd_stays_where_processes_lack_memory() -> None:
    bench = Bench(Function(free=0.05, cpus=16, most_threads=11), 16, crowd=True)
    bench.run(60, room=0)
    assert bench.wishes == [Wish(16, 0)]
    assert bench.trial.verdict is not None and "lack memory" in bench.trial.verdict.reason


def test_a_crowd_is_measured_anew_after_a_pause() -> None:
    bench = Bench(Function(free=0.05, cpus=16, most_threads=11), 16, crowd=True)
    for _ in range(60):
        bench.run(1)
        bench.trial.pause()
    assert bench.wishes == [Wish(16, 0)] and bench.trial.verdict is None
    bench.run(60)
    assert bench.trial.verdict is not None and bench.trial.verdict.mode == "processes"


@pytest.mark.parametrize(("room", "count"), [(None, 15), (40, 15), (9, 9), (4, 4)])
def test_more_processes_than_threads_are_tried_as_far_as_there_is_room_for_them(room: int | None, count: int) -> None:
    bench = Bench(Function(gil=0.04, free=0.01, cpus=16.0), processes=15)
    bench.run(60, room)
    assert bench.trial.verdict is not None and bench.trial.verdict.mode == "processes"
    assert f"{count} processes make {count * 2000} rows/s, 4 threads 2" in bench.trial.verdict.reason, bench.trial.verdict
    assert Wish(4, count) in bench.wishes and bench.trial.wish == Wish(0, count)


def test_threads_that_do_better_than_many_processes_stay_as_many_as_they_were() -> None:
    bench = Bench(Function(gil=0.05, hand_over=0.05, cpus=16.0), processes=15)
    bench.run(60)
    assert bench.trial.verdict is not None and bench.trial.wish == Wish(4, 0)
