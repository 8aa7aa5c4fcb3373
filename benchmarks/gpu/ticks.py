"""When rows came out of a model: a line per batch, written beside the work, and the rates that follow from it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STEADY = (0.25, 0.9)
"""Steady is what lies between these shares of the rows: behind the warming up, before the last stages run dry."""
TUNED = (0.6, 0.9)
"""The same for what has to find its settings first."""


class Ticks:
    """Writes one line per batch into a file of its own in `folder`; writes nothing when that is empty."""

    def __init__(self, folder: str) -> None:
        path = Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644) if folder else None

    def add(self, rows: int) -> None:
        """Note that the results of `rows` rows are on the host now."""
        if self._file is not None:
            os.write(self._file, f"{time.monotonic():.6f} {rows}\n".encode("ascii"))


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    """Of the monotonic clock, which all processes of a machine share."""
    rows: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Rows a second, and the time that the steady part took."""

    rows: int
    first: float
    """When the first batch was ready, of the monotonic clock."""
    after_first: float | None
    """From the first batch, not counted, to the last; None for fewer than two."""
    steady: float | None
    tuned: float | None
    window: tuple[float, float] | None
    """When the steady part began and ended."""


def read(folder: Path) -> list[Tick]:
    """Return what all processes wrote, in order of time."""
    lines = [line.split() for path in folder.iterdir() for line in path.read_text(encoding="ascii").splitlines()]
    # A process that is ended may leave half a line.
    return sorted((Tick(float(line[0]), int(line[1])) for line in lines if len(line) == 2), key=lambda tick: tick.at)


def rates(ticks: Sequence[Tick]) -> Rates | None:
    """Return the rates; None for no tick at all."""
    if not ticks:
        return None
    rows = sum(tick.rows for tick in ticks)
    first, last = ticks[0], ticks[-1]
    after_first = (rows - first.rows) / (last.at - first.at) if last.at > first.at else None
    steady, window = _between(ticks, rows, STEADY)
    return Rates(rows, first.at, after_first, steady, _between(ticks, rows, TUNED)[0], window)


def _between(ticks: Sequence[Tick], rows: int, shares: tuple[float, float]) -> tuple[float | None, tuple[float, float] | None]:
    """Return the rate between two shares of all rows, and when that was."""
    begin = end = None
    done = inside = 0
    for tick in ticks:
        done += tick.rows
        if begin is None:
            begin = tick if done >= shares[0] * rows else None
        elif done <= shares[1] * rows or end is None:
            end = tick
            inside += tick.rows
    if begin is None or end is None or end.at <= begin.at:
        return None, None
    return inside / (end.at - begin.at), (begin.at, end.at)


def series(ticks: Sequence[Tick], step: float = 0.5) -> list[int]:
    """Return the rows of each `step` seconds, from the first batch on."""
    counts: dict[int, int] = {}
    for tick in ticks:
        slot = int((tick.at - ticks[0].at) / step)
        counts[slot] = counts.get(slot, 0) + tick.rows
    return [counts.get(slot, 0) for slot in range(max(counts, default=-1) + 1)]
