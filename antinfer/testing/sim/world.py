"""Virtual time, chance and parties: everything that happens in a simulation happens here, one event at a time.

A party is anything that can crash or stop for a while: a process. What it does is written as generators, which say at every point where
the world may interfere what they have just done; so a crash or a pause can fall between any two steps of an effect.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Signal:
    """Wakes the one generator that waits for it; stays set until it is waited for."""

    def __init__(self) -> None:
        self._is_set = False
        self._wake: Callable[[], None] | None = None

    def set(self) -> None:
        wake, self._wake = self._wake, None
        if wake is None:
            self._is_set = True
        else:
            wake()

    def wait(self, wake: Callable[[], None]) -> None:
        """Call `wake` as soon as the signal is set."""
        if self._is_set:
            self._is_set = False
            wake()
        else:
            self._wake = wake


Run = Generator[int | str | Signal, None, T]
"""What a party does: yields a time to wait (ms), the name of the step it has just done, or a signal to wait for."""


class Party:
    """Something that can crash, pause and start again."""

    def __init__(self, world: World, name: str, kind: str) -> None:
        self.world = world
        self.name = name
        self.kind = kind
        """``master``, ``worker``, ``host`` or ``store``: what the rates of faults go by."""
        self.life = 0
        """Counts starts; what an earlier life had planned never happens."""
        self.is_alive = False
        self.is_paused = False
        self.pauses = 0
        self._deferred: list[tuple[int, Callable[[], None]]] = []

    @property
    def is_awake(self) -> bool:
        return self.is_alive and not self.is_paused

    def begin(self) -> None:
        """Start a life."""
        self.life += 1
        self.is_alive, self.is_paused = True, False
        self._deferred = []

    def end(self) -> None:
        """End this life; nothing it had planned will happen."""
        self.is_alive = self.is_paused = False
        self._deferred = []

    def crash(self) -> None:
        """Die without a word."""
        self.world.note(self.name, "crashes")
        self.end()
        self.on_gone()

    def pause(self) -> None:
        """Stop as under SIGSTOP: what comes in meanwhile waits."""
        self.world.note(self.name, "is paused")
        self.is_paused = True
        self.pauses += 1
        self.on_paused()

    def resume(self) -> None:
        """Go on, beginning with everything that has come in."""
        if not self.is_paused:
            return
        self.world.note(self.name, "goes on")
        self.is_paused = False
        waiting, self._deferred = self._deferred, []
        for life, call in waiting:
            self.world.after(0, call, self, life)

    def on_gone(self) -> None:
        """For subclasses: the process has just died."""

    def on_paused(self) -> None:
        """For subclasses: the process has just been stopped."""

    def defer(self, life: int, call: Callable[[], None]) -> None:
        self._deferred.append((life, call))


class Entry(NamedTuple):
    """One line of the transcript."""

    at: int
    who: str
    what: str
    values: tuple[object, ...]

    def __str__(self) -> str:
        return f"{self.at:7d} ms  {self.who:8s} {self.what.format(*self.values)}"


@dataclass(slots=True)
class Cue:
    """One stage direction: at the `nth` step of this name by this party, do something."""

    who: str
    step: str
    nth: int
    then: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that must not be."""

    kind: str
    """``lost``, ``doubled``, ``stuck``, or ``error`` for an exception where there should be none."""
    text: str


@dataclass(slots=True)
class World:
    """Event queue, clock, chance, transcript and stage directions of one run."""

    seed: int
    now: int = 0
    events: int = 0
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    rng: random.Random = field(init=False)
    on_step: Callable[[Party, str], None] | None = None
    """Called after every step of every party; the random faults."""
    step_ms: int = 2
    """Longest time between two steps of an effect."""
    _queue: list[tuple[int, int, Party | None, int, Callable[[], None]]] = field(default_factory=list)
    _serial: int = 0
    _cues: list[Cue] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    # -- time --------------------------------------------------------------------------------------------------------------------
    def after(self, ms: int, call: Callable[[], None], party: Party | None = None, life: int | None = None) -> None:
        """Call in `ms` of virtual time; never, when `party` has died by then, and later, when it is paused."""
        self._serial += 1
        entry = (self.now + ms, self._serial, party, party.life if party is not None and life is None else life or 0, call)
        heapq.heappush(self._queue, entry)

    def turn(self) -> bool:
        """Let the next event happen; False when there is none."""
        if not self._queue:
            return False
        self.now, _, party, life, call = heapq.heappop(self._queue)
        self.events += 1
        if party is None:
            call()
        elif party.is_alive and party.life == life:
            if party.is_paused:
                party.defer(life, call)
            else:
                call()
        return True

    def spawn(self, party: Party, doing: Run[None]) -> None:
        """Have `party` do something, step by step, until it is done or dead."""
        self.after(0, lambda: self._advance(party, doing), party)

    def _advance(self, party: Party, doing: Run[None]) -> None:
        life = party.life
        try:
            said = next(doing)
        except StopIteration:
            return
        if isinstance(said, str):
            self._reached(party, said)
        if not party.is_alive or party.life != life:
            return
        go_on: Callable[[], None] = lambda: self._advance(party, doing)  # noqa: E731 - it needs its type
        if isinstance(said, Signal):
            said.wait(lambda: self.after(0, go_on, party, life))
        else:
            self.after(self.rng.randint(0, self.step_ms) if isinstance(said, str) else said, go_on, party)

    def _reached(self, party: Party, step: str) -> None:
        self.note(party.name, step)
        for cue in list(self._cues):
            if cue.step == step and cue.who == party.name:
                cue.nth -= 1
                if cue.nth == 0:
                    self._cues.remove(cue)
                    cue.then()
        if self.on_step is not None and party.is_awake:
            self.on_step(party, step)

    # -- stage directions and transcript -----------------------------------------------------------------------------------------
    def when(self, who: str, step: str, then: Callable[[], None], nth: int = 1) -> None:
        """Call `then` right after the `nth` time from now that party `who` does `step`, before it can do anything else."""
        self._cues.append(Cue(who, step, nth, then))

    def reached(self, party: Party, step: str) -> None:
        """Say that `party` did `step`, from code that is not a generator."""
        self._reached(party, step)

    def note(self, who: str, what: str, *values: object) -> None:
        """Add a line to the transcript; `what` is formatted with `values` only when somebody reads it."""
        self.entries.append(Entry(self.now, who, what, values))

    def blame(self, kind: str, text: str) -> None:
        """Note a violation, once."""
        problem = Problem(kind, text)
        if problem not in self.problems:
            self.note("CHECK", "{}: {}", kind, text)
            self.problems.append(problem)

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.rng.random() < probability
