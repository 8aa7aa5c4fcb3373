"""Threads or processes for a map stage: found by trying both on real batches, pure.

A function that lets go of the GIL runs as well in threads, which cost nothing to start and hand nothing over; one that holds it needs
processes. A trial costs something too, so each step of it is taken only when the stage has worked for about as long as it costs: a short
job never pays for one.

1. Threads work as they always do. If they keep more than one core busy without waiting for each other, that is the answer.
2. Otherwise one thread works alone for a few batches. If several together make much more than one alone, that is the answer.
3. Otherwise processes are started beside the threads, and take over when all of them are ready. The better way stays.

What is true of a few threads need not be true of many: the short moments for which each holds the GIL add up, until threads wait for each
other while cores idle. So threads that were accepted are watched a second time when there are as many as there can be, in a trial that
knows them as a crowd: if they wait although cores are free, it goes on with step 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from antinfer.worker.tuning.degrees import BUSY
from antinfer.worker.tuning.values import Limits, Mode

WATCH_SECONDS = 1.0
"""Threads are watched until they have worked for so long, all together."""
ALONE_AFTER = 2.0
"""One thread is tried alone, and processes soon after, when the stage has worked for so long: about what it takes to start them."""
CROWD = 4
"""From so many threads on they are a crowd."""
CROWD_AFTER = 8.0
"""Processes are tried instead of a crowd when it has worked for so long: there are more of them to start, and less to gain."""
_CROWD_SECONDS = 2.0
"""A crowd, and what takes its place, is measured for so long."""
_CROWD_WAITING = 0.9
"""A crowd that computes for less than this share of its time may gain by processes, as long as there are cores for them."""
_PATIENCE = 120.0
"""Processes that are not ready by then are given up."""
_LONGEST_WINDOW = 15.0
_WAITING = 0.7
"""Threads that compute for less than this share of their time wait for something: the GIL, a core, or a disk."""
_AT_WORK = 0.5
"""A stage whose threads are at work for less than this share of the time is not worth a trial."""
_BETTER = 1.15
"""Processes must make so much more than threads: each holds a copy of everything."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What was counted at one stage since it began; all of it only grows."""

    rows: int = 0
    batches: int = 0
    busy_seconds: float = 0.0
    idle_seconds: float = 0.0
    """Starved or blocked."""
    cpu_seconds: float = 0.0
    """Computed by the threads themselves."""
    machine_cpu_seconds: float = 0.0
    """Computed by all that runs on our cores, since any time."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How the stage shall run from now on."""

    threads: int
    processes: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a trial."""

    mode: Mode
    reason: str
    """Why, in one line."""
    grows: bool = False
    """All threads were computing side by side: more of them may do more, for nothing."""


class _Phase(Enum):
    WATCH = "watch"
    CROWD = "crowd"
    ALONE = "alone"
    START = "start"
    MEASURE = "measure"
    OVER = "over"


class WorkersTrial:
    """The trial of one stage. Call `step` a few times a second; do what it wishes until there is a verdict."""

    def __init__(self, degree: int, cpus: float, *, processes: int | None = None, crowd: bool = False) -> None:
        """
        Args:
            degree: Threads that the stage has.
            cpus: Cores of the machine.
            processes: How many to try in their place if there is memory for so many; None: as many.
            crowd: The second look, at threads of which a few have been accepted.
        """
        self._degree = degree
        self._processes = degree if processes is None else max(degree, processes)
        self._cpus = cpus
        self._phase = _Phase.CROWD if crowd else _Phase.WATCH
        self._busy_window = _CROWD_SECONDS * degree if crowd else 0.5
        """Processes are measured until they have worked for so many seconds, all together."""
        self._worked_since: float | None = None
        self._since = 0.0
        self._base: Counters | None = None
        self._several = 0.0
        self._alone = 0.0
        self._preface = ""
        """What led to the trial of processes, for its reason."""
        self._settling = 0
        """Batches that are done when the first round of a measurement is through."""
        self.wish = Wish(degree, 0)
        self.verdict: Verdict | None = None
        if crowd and min(degree, cpus) < CROWD:
            self._end("threads", degree, f"{degree} threads are no crowd")
        elif min(degree, cpus) < 2:
            self._end("threads", degree, "one thread is all there is to run")

    @property
    def is_active(self) -> bool:
        """True while the stage does not run as it always would, for the sake of the trial."""
        return self.verdict is None and self._phase not in (_Phase.WATCH, _Phase.CROWD)

    @property
    def watches_crowd(self) -> bool:
        """True while a crowd works as it always would. One of another size needs another trial."""
        return self._phase is _Phase.CROWD

    def pause(self) -> None:
        """Begin anew with watching a crowd: what others do now may change how it does."""
        if self.watches_crowd:
            self._base = None

    def step(self, now: float, counters: Counters, state: Literal["changing", "settled", "failed"], *, room: int | None = None) -> None:
        """Take in how things stand; `wish` and `verdict` may be others afterwards.

        Args:
            now: Seconds on any clock that only grows.
            counters: Of the stage.
            state: `settled` when exactly the executors that are wished for are at work, `failed` when processes cannot be set up.
            room: So many more processes there is memory for; None: for any number.
        """
        if self._phase is _Phase.OVER:
            return
        if self._worked_since is None:
            if counters.batches:
                self._worked_since = now
            self._restart(now, counters)
            return
        match self._phase:
            case _Phase.WATCH:
                self._watch(now, counters, now - self._worked_since)
            case _Phase.CROWD:
                self._watch_crowd(now, counters, state, now - self._worked_since, room=room)
            case _Phase.ALONE:
                self._try_alone(now, counters, state, room=room)
            case _Phase.START:
                self._await_processes(now, state)
            case _:
                self._try_processes(now, counters, state)

    # -- the phases ------------------------------------------------------------------------------------------------------------------
    def _watch(self, now: float, counters: Counters, worked: float) -> None:
        done = self._since_base(counters)
        seconds = now - self._since
        if done.busy_seconds < WATCH_SECONDS or done.batches < 2 * self._degree:
            return
        at_work = done.busy_seconds / seconds
        computing = done.cpu_seconds / done.busy_seconds
        if at_work >= 1.5 and computing >= _WAITING:
            cores = done.cpu_seconds / seconds
            self._end(
                "threads",
                self._degree,
                f"{self._degree} threads keep {cores:.1f} cores at work, so it lets go of the GIL",
                grows=at_work >= 0.8 * self._degree,
            )
        elif at_work < _AT_WORK * self._degree:
            # Something else is slower. It may not stay so.
            self._restart(now, counters)
        elif worked >= ALONE_AFTER:
            self._several = done.rows / done.busy_seconds * self._degree
            self._enter(_Phase.ALONE, Wish(1, 0))

    def _watch_crowd(self, now: float, counters: Counters, state: str, worked: float, *, room: int | None) -> None:
        done = self._measured(now, counters, state, 3 * self._degree, self._busy_window)
        if done is None or worked < CROWD_AFTER:
            return
        seconds = now - self._since
        crowd = f"{self._degree} threads compute on {done.cpu_seconds / seconds:.1f} cores"
        at_work = done.busy_seconds >= BUSY * self._degree * seconds
        has_cores = done.machine_cpu_seconds < Limits().cpu_share * self._cpus * seconds
        if at_work and done.cpu_seconds >= _CROWD_WAITING * done.busy_seconds:
            self._end("threads", self._degree, f"{crowd} and do not wait for each other")
        elif not (at_work and has_cores):
            # They wait for another stage, or for cores that others have. It may not stay so.
            self._restart(now, counters)
        elif room is not None and room < self._degree:
            self._end("threads", self._degree, f"{crowd}, but processes lack memory")
        else:
            self._several = done.rows / done.busy_seconds * self._degree
            self._preface = f"{crowd}: "
            self._start_processes(room)

    def _try_alone(self, now: float, counters: Counters, state: str, *, room: int | None) -> None:
        done = self._measured(now, counters, state, 2, 0.25)
        if done is None:
            return
        self._alone = done.rows / done.busy_seconds
        scaled = self._several / self._alone
        most = min(self._degree, self._cpus)
        if scaled >= (1 + most) / 2:
            self._end("threads", self._degree, f"{self._degree} threads do {scaled:.1f} times as much as one")
        elif room is not None and room < self._degree:
            self._end("threads", self._degree, f"{self._degree} threads do {scaled:.1f} times as much as one, but processes lack memory")
        else:
            self._start_processes(room)

    def _start_processes(self, room: int | None) -> None:
        self._processes = self._processes if room is None else min(self._processes, room)
        self._enter(_Phase.START, Wish(self._degree, self._processes))

    def _await_processes(self, now: float, state: str) -> None:
        if self._base is None:
            self._base, self._since = Counters(), now
        if state == "failed" or now - self._since > _PATIENCE:
            why = "processes could not be set up" if state == "failed" else "processes took too long to set up"
            self._end("threads", self._degree, why)
        elif state == "settled":
            self._enter(_Phase.MEASURE, Wish(0, self._processes))

    def _try_processes(self, now: float, counters: Counters, state: str) -> None:
        if state == "failed":
            self._end("threads", self._degree, "processes could not be set up")
            return
        done = self._measured(now, counters, state, 3 * self._processes, self._busy_window)
        if done is None:
            return
        seconds = now - self._since
        # A pool is at its limit by its user code, or by the hand-over, in which case nobody waits for work.
        all_seconds = self._processes * seconds
        at_work = max(done.busy_seconds, all_seconds - done.idle_seconds) / all_seconds
        made = done.rows / seconds / min(1.0, max(0.01, at_work))
        figures = f"{self._preface}{self._processes} processes make {made:.0f} rows/s, {self._degree} threads {self._several:.0f}"
        if self._alone:
            figures += f", one alone {self._alone:.0f}"
        if made >= _BETTER * max(self._several, self._alone):
            self._end("processes", self._processes, figures)
        else:
            self._end("threads", self._degree, figures)

    # -- inside ----------------------------------------------------------------------------------------------------------------------
    def _measured(self, now: float, counters: Counters, state: str, batches: int, busy: float) -> Counters | None:
        """Return what was done since things settled and one round of batches was through; None until it is enough."""
        if state != "settled":
            self._base = None
            return None
        if self._base is None:
            self._settling = counters.batches + max(1, self.wish.threads + self.wish.processes)
            self._restart(now, counters)
            return None
        if self._base.batches < self._settling:
            # What they begin with was begun under other circumstances, or warms up.
            if counters.batches >= self._settling:
                self._restart(now, counters)
            return None
        done = self._since_base(counters)
        enough = done.batches >= batches and done.busy_seconds >= busy
        return done if enough or (now - self._since >= _LONGEST_WINDOW and done.batches) else None

    def _since_base(self, counters: Counters) -> Counters:
        base = self._base
        assert base is not None
        return Counters(
            counters.rows - base.rows,
            counters.batches - base.batches,
            counters.busy_seconds - base.busy_seconds,
            counters.idle_seconds - base.idle_seconds,
            counters.cpu_seconds - base.cpu_seconds,
            counters.machine_cpu_seconds - base.machine_cpu_seconds,
        )

    def _restart(self, now: float, counters: Counters) -> None:
        self._base, self._since = counters, now

    def _enter(self, phase: _Phase, wish: Wish) -> None:
        self._phase, self.wish, self._base = phase, wish, None

    def _end(self, mode: Mode, degree: int, reason: str, *, grows: bool = False) -> None:
        self._phase = _Phase.OVER
        self.wish = Wish(degree, 0) if mode == "threads" else Wish(0, degree)
        self.verdict = Verdict(mode, reason, grows)
