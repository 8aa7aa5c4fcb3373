"""Faults: where each one struck. A run draws them from its seed; a shrunk run is given a list of them instead.

A fault is named by its occasion, not by its time: "the third time that m1 has persisted a batch". So it still means something in a run from
which other faults, rows or workers were taken away, which is what makes a failing run small.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final, NamedTuple


class Fault(NamedTuple):
    """One thing that went wrong, and its occasion: the `nth` time that `who` does `where`."""

    what: str
    who: str
    where: str
    nth: int
    ms: int = 0
    """How long it lasts, for what has a duration."""
    victim: int = 0
    """Which one of several it hits: taken modulo their number."""

    def __str__(self) -> str:
        lasting = f" for {self.ms} ms" if self.ms else ""
        return f"{self.what} ({self.who} {self.where}, time {self.nth}){lasting}"

    @classmethod
    def parse(cls, data: Iterable[Any]) -> Fault:
        """Read the list that `tuple` makes of a fault. Raises ValueError or TypeError on anything else."""
        what, who, where, nth, *rest = data
        return cls(str(what), str(who), str(where), int(nth), *map(int, rest))


class Odds(NamedTuple):
    """What may happen at one kind of occasion."""

    what: str
    probability: float
    ms: tuple[int, int] = (0, 0)


_VICTIMS: Final = 1 << 16


class Luck:
    """Decides at every occasion whether something goes wrong there: by chance, or by a list."""

    def __init__(self, seed: int, listed: Iterable[Fault] | None = None) -> None:
        # A stream of its own: faults that are listed must leave every other choice of the run as it was when they were drawn.
        self._rng = random.Random(f"faults {seed}")
        self._listed = None if listed is None else {(fault.who, fault.where, fault.nth): fault for fault in listed}
        self._counts: dict[tuple[str, str], int] = {}
        self.struck: list[Fault] = []
        """The faults that struck, in order."""

    def meet(self, who: str, where: str, odds: tuple[Odds, ...]) -> Fault | None:
        """Return what goes wrong at this occasion, None when nothing does."""
        if not odds and self._listed is None:
            return None
        occasion = (who, where)
        nth = self._counts[occasion] = self._counts.get(occasion, 0) + 1
        fault = self._draw(who, where, nth, odds) if self._listed is None else self._listed.get((who, where, nth))
        if fault is not None:
            self.struck.append(fault)
        return fault

    def _draw(self, who: str, where: str, nth: int, odds: tuple[Odds, ...]) -> Fault | None:
        rng = self._rng
        left = rng.random()
        for what, probability, (low, high) in odds:
            left -= probability
            if left < 0:
                return Fault(what, who, where, nth, rng.randint(low, high) if high else 0, rng.randrange(_VICTIMS))
        return None
