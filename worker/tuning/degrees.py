"""How many copies of each stage run: a policy that climbs by measurement, pure.

The stage that the others wait for gets more copies, for as long as the whole pipeline gains by it; what brings nothing is taken back and
remembered. One change is tried at a time: it settles, is measured against the rate before it, and stays or goes. When a change only
shows that another stage holds the pipeline up as well, that one grows too before both are judged. So from any start the number of changes
is bounded, and after the last one nothing moves until the pipeline itself has changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from antinfer.worker.tuning.values import Decision, Limits, Machine, StageSignal

BUSY = 0.8
"""A stage holds the pipeline up when its executors are at work for at least this share of the time."""
IDLE = 0.4
"""A stage has copies to spare when one less would be at work for less than this share of the time."""
GAIN = 0.05
"""What a change must bring to be kept."""
LOSS = 0.02
"""What fewer copies may cost to be left out."""
PROOF = 8
"""One of so many copies is left out to see whether fewer do: of many, one less would cost less than `LOSS` though each is needed."""


@dataclass(slots=True)
class _Sums:
    """What was measured at one stage over a whole window."""

    rows: int = 0
    batches: int = 0
    busy: float = 0.0
    starved: float = 0.0
    blocked: float = 0.0
    computed: float = 0.0
    executor_seconds: float = 0.0
    queued: float = 0.0

    def add(self, signal: StageSignal, seconds: float) -> None:
        self.rows += signal.rows
        self.batches += signal.batches
        self.busy += signal.busy_seconds
        self.starved += signal.starved_seconds
        self.blocked += signal.blocked_seconds
        self.computed += signal.cpu_seconds
        self.executor_seconds += max(1, signal.ready) * seconds
        self.queued += signal.queued_batches * seconds

    def share(self, seconds: float) -> float:
        return min(1.0, seconds / self.executor_seconds) if self.executor_seconds else 0.0


@dataclass(slots=True)
class _Window:
    """A measurement under way."""

    began: float
    seconds: float = 0.0
    stages: dict[str, _Sums] = field(default_factory=dict)
    rows: int = 0

    @property
    def rate(self) -> float:
        return self.rows / self.seconds if self.seconds else 0.0

    def busy(self, name: str) -> float:
        sums = self.stages[name]
        return sums.share(sums.busy)


@dataclass(slots=True)
class _Trial:
    """Changes that are on trial together."""

    rate: float
    """Before the first of them."""
    changes: dict[str, tuple[int, int]]
    """Stage -> degree before and now."""
    sizes: dict[str, int]
    """Rows of a batch of each stage when it began."""

    @property
    def grows(self) -> bool:
        return all(now > before for before, now in self.changes.values())


@dataclass(slots=True)
class _Memory:
    """What is known of one stage."""

    step: int = 0
    """Copies to add next time; 0: nothing is known yet."""
    rests_until: float = 0.0
    """No growth before that."""
    rest: float = 0.0
    floor: int = 0
    """Fewer copies have proved to be too few."""
    proven: bool = False
    """The number of copies was found by trying."""
    idle_since: float | None = None


class Tuner:
    """Decides on degrees. Call `step` about every second with what was measured since the last call."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = Limits() if limits is None else limits
        self._window: _Window | None = None
        self._trial: _Trial | None = None
        self._killed = 0
        self._memory: dict[str, _Memory] = {}
        self._last: float | None = None
        self._began: float | None = None
        self._settled_at = 0.0
        self._sizes: dict[str, int] = {}

    def step(self, now: float, stages: Sequence[StageSignal], machine: Machine) -> list[Decision]:
        """Take in what was measured since the last call, and return what to change.

        Args:
            now: Seconds on any clock that only grows.
            stages: The stages that may be tuned, in the order of the pipeline.
            machine: As it is now.
        """
        last, self._last = self._last, now
        if last is None or not stages:
            self._settled_at = now + self._limits.settle_seconds
            return []
        if self._began is None and any(signal.rows for signal in stages):
            self._began = now
        decisions = self._relieve(stages, machine)
        if decisions:
            return self._apply(now, decisions)
        if any(signal.ready != signal.degree for signal in stages):
            self._settled_at = now + self._limits.settle_seconds
            self._window = None
            return []
        decisions = self._watch_sizes(now, stages)
        if decisions:
            return self._apply(now, decisions)
        if now <= self._settled_at or last < self._settled_at:
            return []
        window = self._measure(last, now - last, stages)
        if not self._is_enough(window):
            return []
        self._window = None
        decide = self._seek if self._trial is None else self._judge
        return self._apply(now, decide(now, window, stages, machine))

    @property
    def is_trying(self) -> bool:
        """True while a change is on trial."""
        return self._trial is not None

    def pause(self) -> None:
        """Forget what was measured since the last change: something else has been going on."""
        self._last = None
        self._window = None

    # -- measuring -------------------------------------------------------------------------------------------------------------------
    def _measure(self, since: float, seconds: float, stages: Sequence[StageSignal]) -> _Window:
        if self._window is None:
            self._window = _Window(since)
        window = self._window
        window.seconds += seconds
        for signal in stages:
            window.stages.setdefault(signal.name, _Sums()).add(signal, seconds)
            window.rows += signal.rows if signal.is_last else 0
        return window

    def _is_enough(self, window: _Window) -> bool:
        if window.seconds >= self._limits.longest_window:
            return True
        slowest = max(window.stages.values(), key=lambda sums: sums.share(sums.busy))
        return window.seconds >= self._limits.window_seconds and slowest.batches >= self._limits.window_batches

    def _watch_sizes(self, now: float, stages: Sequence[StageSignal]) -> list[Decision]:
        """Wait while batch sizes change; what was measured before cannot be compared, so changes on trial are taken back."""
        sizes = {signal.name: signal.batch_rows for signal in stages}
        if sizes == self._sizes:
            return []
        self._sizes = sizes
        self._window = None
        self._settled_at = now + self._limits.settle_seconds
        trial, self._trial = self._trial, None
        if trial is None:
            return []
        degrees = {signal.name: signal.degree for signal in stages}
        return [
            Decision(name, degrees[name], before, f"{name}: back to {before}, since batches have another size now")
            for name, (before, _) in trial.changes.items()
            if name in degrees
        ]

    # -- guards ----------------------------------------------------------------------------------------------------------------------
    def _relieve(self, stages: Sequence[StageSignal], machine: Machine) -> list[Decision]:
        was_killed, self._killed = machine.killed > self._killed, machine.killed
        used = machine.ram_used / machine.ram_total if machine.ram_total else 0.0
        spare = [signal for signal in stages if signal.degree > signal.fewest and signal.ready <= signal.degree]
        if not spare or not (was_killed or used >= self._limits.ram_alarm):
            return []
        largest = max(spare, key=lambda signal: (signal.ram_bytes, signal.degree))
        self._rest(self._of(largest.name), self._last or 0.0)
        self._trial = None
        why = "the system has killed one for want of memory" if was_killed else f"{used:.0%} of the memory is taken"
        return [Decision(largest.name, largest.degree, largest.degree - 1, f"{largest.name}: one copy less, for {why}")]

    def _room(self, signal: StageSignal, window: _Window, machine: Machine) -> int:
        """Return how many copies more the guards allow."""
        limits = self._limits
        room = signal.most - signal.degree
        fitting = machine.room_for(signal.ram_bytes, limits.ram_share)
        if fitting is not None:
            room = min(room, fitting)
        if not signal.on_gpu:
            if machine.cpu_used >= limits.cpu_share * machine.cpus:
                return 0
            sums = window.stages[signal.name]
            cores = sums.computed / sums.executor_seconds
            # Copies that wait for a disk or another machine leave the cores alone, and pass. Others would crowd out who feeds a device.
            return min(room, max(1, int((machine.cpus - machine.cpu_used) / cores))) if cores else room
        if not signal.has_place:
            return 0
        if machine.gpu_total:
            free = limits.gpu_share * machine.gpu_total - machine.gpu_used
            room = min(room, int(free // max(1, signal.gpu_bytes)) if free > 0 else 0)
        return min(room, 1)

    # -- deciding --------------------------------------------------------------------------------------------------------------------
    def _seek(self, now: float, window: _Window, stages: Sequence[StageSignal], machine: Machine) -> list[Decision]:
        """Find a change that is worth a trial."""
        if not window.rows:
            return []
        slowest = self._slowest(window, stages)
        if slowest is None:
            return []
        for signal in slowest:
            step = self._growth(now, signal, window, machine)
            if step:
                return self._grow(signal, step, window, None)
        spared = self._spare(now, window, stages, slowest[0])
        return spared or self._prove(now, window, slowest)

    def _slowest(self, window: _Window, stages: Sequence[StageSignal]) -> list[StageSignal] | None:
        """Return the stages that hold the others up, the busiest first; None when none does."""
        found = []
        for signal in stages:
            sums = window.stages[signal.name]
            has_input = sums.queued >= 0.5 * window.seconds or sums.share(sums.starved) < 0.1
            if window.busy(signal.name) >= BUSY and has_input and sums.share(sums.blocked) < 1 - BUSY:
                found.append(signal)
        if not found:
            return None
        most = max(window.busy(signal.name) for signal in found)
        found = [signal for signal in found if window.busy(signal.name) >= most - 0.1]
        return sorted(found, key=lambda signal: -window.busy(signal.name))

    def _growth(self, now: float, signal: StageSignal, window: _Window, machine: Machine) -> int:
        memory = self._of(signal.name)
        if now < memory.rests_until:
            return 0
        step = 1 if signal.on_gpu else memory.step or self._leap(signal, window, machine)
        return max(0, min(step, self._room(signal, window, machine)))

    def _leap(self, signal: StageSignal, window: _Window, machine: Machine) -> int:
        """Return how many copies more to try: twice as many, or until another stage would be the slowest or the free cores are taken."""
        others = max((window.busy(name) for name in window.stages if name != signal.name), default=1.0)
        wanted = math.ceil(signal.degree / max(others, 1 / max(1, signal.most))) - signal.degree
        return max(signal.degree, min(wanted, int(machine.cpus - machine.cpu_used)))

    def _grow(self, signal: StageSignal, step: int, window: _Window, trial: _Trial | None) -> list[Decision]:
        to = signal.degree + step
        if trial is None:
            trial = self._trial = _Trial(window.rate, {}, dict(self._sizes))
        trial.changes[signal.name] = (signal.degree, to)
        reason = f"{signal.name}: {signal.degree} -> {to} {signal.mode}, for it is busy {window.busy(signal.name):.0%} of the time"
        return [Decision(signal.name, signal.degree, to, f"{reason} and the others wait ({window.rate:.0f} rows/s)")]

    def _spare(self, now: float, window: _Window, stages: Sequence[StageSignal], slowest: StageSignal) -> list[Decision]:
        """Take a copy from a stage that has more than it uses, which leaves memory, cores and devices to the others."""
        for signal in stages:
            memory = self._of(signal.name)
            least = max(signal.fewest, memory.floor)
            load = window.stages[signal.name].busy / window.seconds
            if signal is slowest or signal.degree <= least or load >= IDLE * (signal.degree - 1):
                memory.idle_since = None
                continue
            if memory.idle_since is None:
                memory.idle_since = now
            elif now - memory.idle_since >= 2 * self._limits.window_seconds:
                to = max(least, math.ceil(load / IDLE), signal.degree // 2)
                memory.idle_since = None
                self._trial = _Trial(window.rate, {signal.name: (signal.degree, to)}, dict(self._sizes))
                reason = f"{signal.name}: {signal.degree} -> {to} {signal.mode}, for only {load:.1f} are at work; {slowest.name} is slowest"
                return [Decision(signal.name, signal.degree, to, reason)]
        return []

    def _prove(self, now: float, window: _Window, slowest: Sequence[StageSignal]) -> list[Decision]:
        """See whether fewer processes do as much: more than a device can serve stand in each other's way."""
        if self._began is None or now - self._began < self._limits.prove_after:
            return []
        for signal in slowest:
            memory = self._of(signal.name)
            least = max(signal.fewest, memory.floor)
            if memory.proven or signal.mode != "processes" or signal.degree <= least:
                continue
            to = max(least, signal.degree - max(1, signal.degree // PROOF))
            self._trial = _Trial(window.rate, {signal.name: (signal.degree, to)}, dict(self._sizes))
            reason = f"{signal.name}: {signal.degree} -> {to} processes, to see whether fewer do as much ({window.rate:.0f} rows/s)"
            return [Decision(signal.name, signal.degree, to, reason)]
        return []

    # -- judging ---------------------------------------------------------------------------------------------------------------------
    def _judge(self, now: float, window: _Window, stages: Sequence[StageSignal], machine: Machine) -> list[Decision]:
        """Keep what is on trial, take it back, or try more with it."""
        trial = self._trial
        assert trial is not None
        if not window.rows:
            # The work has run out; what was on trial can be judged when there is more.
            return []
        gain = window.rate / trial.rate - 1 if trial.rate else 0.0
        figures = f"{trial.rate:.0f} -> {window.rate:.0f} rows/s, {gain:+.0%}"
        if not trial.grows:
            self._trial = None
            return self._judge_fewer(now, trial, window, gain, figures)
        if gain > GAIN:
            self._trial = None
            return self._keep(trial, gain, figures)
        further = self._held_up_elsewhere(now, trial, window, stages, machine)
        if further is not None:
            return further
        self._trial = None
        return self._take_back(now, trial, figures)

    def _keep(self, trial: _Trial, gain: float, figures: str) -> list[Decision]:
        decisions = []
        for name, (before, to) in trial.changes.items():
            memory = self._of(name)
            memory.proven = True
            memory.rest = 0.0
            # Going twice as far only while that pays about as much as it can.
            memory.step = 0 if gain > 0.5 * (to / before - 1) else max(1, (to - before) // 2)
            decisions.append(Decision(name, to, to, f"{name}: {to} stay ({figures})"))
        return decisions

    def _held_up_elsewhere(
        self, now: float, trial: _Trial, window: _Window, stages: Sequence[StageSignal], machine: Machine
    ) -> list[Decision] | None:
        """Grow the stage that turned out to hold the pipeline up as well; None when there is none that can."""
        changed = max(window.busy(name) for name in trial.changes)
        for signal in self._slowest(window, stages) or ():
            step = self._growth(now, signal, window, machine)
            if signal.name not in trial.changes and step and window.busy(signal.name) >= changed:
                return self._grow(signal, step, window, trial)
        return None

    def _judge_fewer(self, now: float, trial: _Trial, window: _Window, gain: float, figures: str) -> list[Decision]:
        for name in trial.changes:
            memory = self._of(name)
            memory.step = 1
            if gain >= -LOSS and window.busy(name) >= BUSY:
                # As slow as before with fewer: more would bring nothing.
                self._rest(memory, now)
        if gain >= -LOSS:
            return [Decision(name, to, to, f"{name}: {to} do ({figures})") for name, (_, to) in trial.changes.items()]
        decisions = []
        for name, (before, to) in trial.changes.items():
            memory = self._of(name)
            memory.floor, memory.proven = before, True
            decisions.append(Decision(name, to, before, f"{name}: {to} -> {before}, for fewer do less ({figures})"))
        return decisions

    def _take_back(self, now: float, trial: _Trial, figures: str) -> list[Decision]:
        decisions = []
        for name, (before, to) in trial.changes.items():
            memory = self._of(name)
            if to - before > 1:
                memory.step = (to - before) // 2
            else:
                memory.step = 1
                self._rest(memory, now)
            decisions.append(Decision(name, to, before, f"{name}: back to {before}, for {to} bring too little ({figures})"))
        return decisions

    def _rest(self, memory: _Memory, now: float) -> None:
        memory.rest = max(self._limits.rest_seconds, 2 * memory.rest)
        memory.rests_until = now + memory.rest

    def _apply(self, now: float, decisions: list[Decision]) -> list[Decision]:
        if decisions:
            self._window = None
            self._settled_at = now + self._limits.settle_seconds
        return decisions

    def _of(self, name: str) -> _Memory:
        return self._memory.setdefault(name, _Memory())
