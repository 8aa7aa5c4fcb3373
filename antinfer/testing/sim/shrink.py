"""Making a failing run small: first with fewer faults, then with a smaller job and cast, as long as the same kind of thing goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Final, TypeVar

from antinfer.testing.sim.faults import Fault
from antinfer.testing.sim.recipes import Recipe
from antinfer.testing.sim.runner import Outcome
from antinfer.testing.sim.scenario import ENGINE, SESSION, Scenario, Weather

T = TypeVar("T")

_ODD_ROWS: Final = ("bad", "flaky", "poison", "fatal", "odd")
_ODD_SHARDS: Final = ("unsized", "changing")
RUNS: Final = 600
"""Runs that a search for something smaller may cost."""


def shrink(recipe: Recipe, runs: int = RUNS) -> Recipe:
    """Return a run with as few faults, rows, workers and oddities as can be had for `runs` runs, that fails in the same way.

    Raises:
        ValueError: The run does not fail.
    """
    return _Shrinker(recipe, runs).result()


class _Spent(Exception):
    """No run is left."""


class _Shrinker:
    def __init__(self, recipe: Recipe, runs: int) -> None:
        outcome = recipe.play()
        if outcome.ok:
            raise ValueError(f"{recipe.scenario.name}, seed {recipe.seed}: nothing goes wrong")
        self._kinds = outcome.kinds
        self._best = self._settled(recipe, outcome)
        self._runs = runs

    def result(self) -> Recipe:
        try:
            self._still()
            while self._fewer_faults() | self._plainer():
                pass
        except _Spent:
            pass
        return self._best

    @staticmethod
    def _settled(recipe: Recipe, outcome: Outcome) -> Recipe:
        """List the faults that did strike, alone."""
        return replace(recipe, faults=outcome.faults, note=recipe.note or outcome.problems[0].text)

    def _try(self, recipe: Recipe) -> bool:
        """Take `recipe` when it fails like the one we began with."""
        if self._runs <= 0:
            raise _Spent
        self._runs -= 1
        outcome = recipe.play()
        if not outcome.kinds & self._kinds:
            return False
        self._best = self._settled(recipe, outcome)
        return True

    def _still(self) -> None:
        """With a list of faults, the weather has nothing more to decide."""
        self._try(replace(self._best, scenario=self._best.scenario.but(weather=Weather())))

    def _fewer_faults(self) -> bool:
        """Delta debugging: leave out ever smaller pieces of the list."""
        before = len(self._best.faults)
        size = max(1, before // 2)
        while self._best.faults:
            at = 0
            while at < len(self._best.faults):
                faults = self._best.faults
                if not self._try(replace(self._best, faults=faults[:at] + faults[at + size :])):
                    at += size
            if size == 1:
                break
            size = max(1, min(size // 2, len(self._best.faults)))
        return len(self._best.faults) < before

    def _plainer(self) -> bool:
        """A smaller job, a smaller cast, plainer policy."""
        found = False
        for make in _PLAINER:
            while any(self._try(replace(self._best, scenario=smaller)) for smaller in make(self._best.scenario)):
                found = True
        return found


# -- what is smaller than a scenario: each returns what to try, and is asked again as long as one of them fails too ---------------------
def _fewer_shards(scenario: Scenario) -> Iterator[Scenario]:
    rows = scenario.rows
    if len(rows) > 1:
        for gone in range(len(rows)):
            yield _renumbered(scenario, rows[:gone] + rows[gone + 1 :], gone)


def _renumbered(scenario: Scenario, rows: tuple[int, ...], gone: int) -> Scenario:
    def move(shard: int) -> int:
        return shard - (shard > gone)

    def rest(odd: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
        return frozenset((move(shard), offset) for shard, offset in odd if shard != gone)

    return scenario.but(
        rows=rows,
        **{name: frozenset(move(shard) for shard in getattr(scenario, name) if shard != gone) for name in _ODD_SHARDS},
        **{name: rest(getattr(scenario, name)) for name in _ODD_ROWS},
    )


def _fewer_rows(scenario: Scenario) -> Iterator[Scenario]:
    for shard, rows in enumerate(scenario.rows):
        if rows > 1:
            yield scenario.but(rows=(*scenario.rows[:shard], rows - 1, *scenario.rows[shard + 1 :]))


def _fewer_odd_rows(scenario: Scenario) -> Iterator[Scenario]:
    for name in (*_ODD_ROWS, *_ODD_SHARDS, "broken"):
        odd = getattr(scenario, name)
        for each in sorted(odd):
            yield scenario.but(**{name: odd - {each}})


def _smaller_cast(scenario: Scenario) -> Iterator[Scenario]:
    for name in ("workers", "masters", "slots", "batch"):
        if getattr(scenario, name) > 1:
            yield scenario.but(**{name: getattr(scenario, name) - 1})
    if scenario.retries:
        yield scenario.but(retries=scenario.retries - 1)


def _usual(scenario: Scenario) -> Iterator[Scenario]:
    plain = Scenario("")
    names: Sequence[str] = (
        *("planned_at_once", "suffix", "fan_out", "keeps_worker_names", "output", "sync", "store", "prefix", "row_ms"),
        *("sizes_late", "is_logged"),
    )
    for name in names:
        if getattr(scenario, name) != getattr(plain, name):
            yield scenario.but(**{name: getattr(plain, name)})
    for part, usual in (("engine", ENGINE), ("session", SESSION)):
        mine = getattr(scenario, part)
        for each in fields(mine):
            if getattr(mine, each.name) != getattr(usual, each.name):
                yield scenario.but(**{part: replace(mine, **{each.name: getattr(usual, each.name)})})


_PLAINER: Final[tuple[Callable[[Scenario], Iterator[Scenario]], ...]] = (
    _fewer_shards,
    _smaller_cast,
    _fewer_rows,
    _fewer_odd_rows,
    _usual,
)


def describe(faults: Sequence[Fault]) -> str:
    """Return one line for each fault."""
    return "\n".join(f"  {fault}" for fault in faults) or "  none"
