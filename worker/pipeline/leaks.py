"""Telling a leak from memory that is merely used, and when a process has lived long enough: pure.

Memory of a healthy process goes up while it warms up and up and down afterwards; that of a leaking one never comes back down. So the
lowest point of each stretch of time counts: when it has risen stretch after stretch, and by more than anybody would miss, somebody leaks.
A restart costs a load of the model and nothing else, so it is worth it long before the machine is short of memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from antinfer.core.causes import Cause

STRETCH_SECONDS: Final = 20.0
"""Lowest points are taken over so long."""
WARM_UP_STRETCHES: Final = 2
"""The first ones say nothing: caches fill, batches grow."""
RISES: Final = 5
"""Stretches in a row that must have risen."""
LEAST_BYTES: Final = 512 << 20
"""Less is no leak to anybody."""
SHARE_OF_START: Final = 0.5
"""A process that started large must have grown by this share of what it was."""


@dataclass(slots=True)
class Gauge:
    """One kind of memory of one process."""

    name: str
    _began: float | None = None
    _low: int = 0
    _floors: list[int] = field(default_factory=list)

    def observe(self, now: float, size_bytes: int) -> str:
        """Learn the size at `now` (seconds); return why this is a leak, empty when it is none."""
        if self._began is None:
            self._began, self._low = now, size_bytes
        self._low = min(self._low, size_bytes)
        if now - self._began < STRETCH_SECONDS:
            return ""
        self._floors.append(self._low)
        seconds, self._began, self._low = now - self._began, now, size_bytes
        return self._judge(seconds)

    def _judge(self, seconds: float) -> str:
        floors = self._floors[WARM_UP_STRETCHES:]
        if len(floors) <= RISES:
            return ""
        if floors[-1] <= floors[-2]:
            # It came down: what it took before was not lost.
            self._floors = [*self._floors[:WARM_UP_STRETCHES], floors[-1]]
            return ""
        grown = floors[-1] - floors[0]
        if grown < max(LEAST_BYTES, SHARE_OF_START * floors[0]) or any(
            b <= a for a, b in zip(floors[-RISES - 1 :], floors[-RISES:], strict=False)
        ):
            return ""
        rate = (floors[-1] - floors[-RISES - 1]) / (RISES * seconds) * 60
        return f"its {self.name} grew from {floors[0] >> 20} to {floors[-1] >> 20} MiB and goes on by {rate / (1 << 20):.0f} MiB a minute"


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process holds, in bytes."""

    resident: int = 0
    """Its own, without what it shares."""
    shared: int = 0
    """Shared memory that it maps."""
    device: int = 0
    """Of its GPUs."""


def lifetime(text: int | str) -> tuple[int | None, float | None]:
    """Read the `max_lifetime` of a normalised job: batches and seconds, None for what is not limited."""
    if isinstance(text, int):
        return text, None
    return None, None if text == "off" else float(text.removesuffix("s"))


@dataclass(frozen=True, slots=True)
class Enough:
    """Why a process is to be started afresh."""

    cause: Cause
    why: str
    """For people, with the process as "it"."""


class Life:
    """One process: how long it may live, and whether it leaks. Not to be used by two threads at once."""

    def __init__(self, batches: int | None = None, seconds: float | None = None) -> None:
        """Live for at most so many batches or seconds; None: for as long as it does not leak."""
        self._most_batches = batches
        self._most_seconds = seconds
        self._began: float | None = None
        self._batches = 0
        self._gauges = (Gauge("memory"), Gauge("shared memory"), Gauge("GPU memory"))

    def lived(self, now: float) -> Enough | None:
        """Count a batch that was computed by `now`; return why the process has lived long enough, None when it has not."""
        self._began = now if self._began is None else self._began
        self._batches += 1
        if self._most_batches is not None and self._batches >= self._most_batches:
            return Enough(Cause.PROCESS_AGED, f"it has computed {self._batches} batches, its max_lifetime")
        if self._most_seconds is not None and now - self._began >= self._most_seconds:
            return Enough(Cause.PROCESS_AGED, f"it has worked for {now - self._began:.0f} s, its max_lifetime")
        return None

    def holds(self, now: float, memory: Memory) -> Enough | None:
        """Learn what the process holds at `now`; return why that is a leak, None when it is none."""
        sizes = (memory.resident, memory.shared, memory.device)
        leaks = (why for gauge, size in zip(self._gauges, sizes, strict=True) if (why := gauge.observe(now, size)))
        return next((Enough(Cause.PROCESS_LEAK, why) for why in leaks), None)
