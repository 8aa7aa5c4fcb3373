"""When rows came out of a model: a line per batch, written beside the work, and the rates that follow from it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EARLY = 0.25
LATE = 0.9
"""Steady is what lies between these shares of the rows: behind the warming up, before the last stages run dry."""


class Ticks:
    """Writes one line per batch into a file of this process's own. An empty folder: writes nothing."""

    def __init__(self, folder: str) -> None:
        # Open as long as the process lives; every line is written at once.
        self._file = open(Path(folder) / f"{os.getpid()}-{id(self)}", "a", encoding="ascii", buffering=1) if folder else None  # noqa: SIM115

    def add(self, rows: int) -> None:
        """Note that the results of `rows` rows are on the host now."""
        if self._file is not None:
            self._file.write(f"{time.monotonic():.6f} {rows}\n")


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
    begin = end = None
    done = inside = 0
    for tick in ticks:
        done += tick.rows
        if begin is None:
            if done >= EARLY * rows:
                begin = tick
        elif done <= LATE * rows or end is None:
            end = tick
            inside += tick.rows
    if begin is None or end is None or end.at <= begin.at:
        return Rates(rows, first.at, after_first, None, None)
    return Rates(rows, first.at, after_first, inside / (end.at - begin.at), (begin.at, end.at))


def series(ticks: Sequence[Tick], step: float = 0.5) -> list[int]:
    """Return the rows of each `step` seconds, from the first batch on."""
    counts: dict[int, int] = {}
    for tick in ticks:
        slot = int((tick.at - ticks[0].at) / step)
        counts[slot] = counts.get(slot, 0) + tick.rows
    return [counts.get(slot, 0) for slot in range(max(counts, default=-1) + 1)]
