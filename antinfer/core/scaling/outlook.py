"""What a number of workers would achieve, and cost, by what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from antinfer.core.scaling import shares
from antinfer.core.scaling.tally import Tally
from antinfer.core.scaling.values import CLASSES, Desired, Measure, Observed

MS_PER_HOUR = 3_600_000


class Outlook:
    """The rest of a job as a function of how many workers it has."""

    def __init__(self, desired: Desired, observed: Observed, tally: Tally, errors: float = 0.0) -> None:
        """
        Args:
            desired: what is wanted.
            observed: what is seen.
            tally: the workers of `observed`.
            errors: standard errors by which more is lost to preemption than what was measured.
        """
        self._desired = desired
        self._remaining = observed.remaining_rows
        self._ready = {name: len(each.ready) for name, each in tally.by_class.items()}
        self._speeds = _speeds(observed.measures, errors)
        measured = [measure.startup_ms for measure in observed.measures.values() if measure.startup_ms is not None]
        self.startup_ms = max(measured, default=desired.policy.startup_ms)
        """Time until a worker that is started now computes rows."""

    @property
    def is_known(self) -> bool:
        """True when there is something to reckon with: a rate, and a number of rows."""
        return bool(self._speeds) and self._remaining is not None

    def rate(self, total: int) -> float:
        """Return the rows per ms of so many workers, preemption allowed for."""
        return sum(count * self._speeds[name] for name, count in shares.split(total, self._desired.on_demand).items())

    def finish_ms(self, total: int) -> float:
        """Return how long the rest takes with so many workers, of which those that are not ready yet have to start first."""
        remaining = self._remaining or 0
        counts = shares.split(total, self._desired.on_demand)
        at_once = sum(min(count, self._ready[name]) * self._speeds[name] for name, count in counts.items())
        if at_once * self.startup_ms >= remaining:
            return remaining / at_once if remaining else 0.0
        full = self.rate(total)
        return self.startup_ms + (remaining - at_once * self.startup_ms) / full if full else inf

    def worthwhile(self, startups: float) -> int:
        """Return how many workers get at least `startups` times as long to do as a worker takes to start; at least one."""
        share_ms = max(1.0, startups * self.startup_ms)
        return most_that(lambda total: self.rate(total) * share_ms <= (self._remaining or 0), 1, self._desired.most)

    def cost_per_hour(self, total: int, unit: Callable[[str], float]) -> float:
        """Return what so many workers use up in an hour, where one of a class uses up `unit` of it."""
        return sum(count * unit(name) for name, count in shares.split(total, self._desired.on_demand).items())

    def most_within(self, cost_per_hour: float, unit: Callable[[str], float]) -> int:
        """Return how many workers use up no more than `cost_per_hour`; 0 when one is too many."""
        return most_that(lambda total: self.cost_per_hour(total, unit) <= cost_per_hour, 0, self._desired.most)

    def cost_of_rest(self, total: int, unit: Callable[[str], float]) -> float:
        """Return what the rest of the job uses up with so many workers; how many hardly matters."""
        rate = self.rate(total)
        return (self._remaining or 0) / rate / MS_PER_HOUR * self.cost_per_hour(total, unit) if rate else inf


def least_that(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the least number in ``[low, high]`` for which `holds`, which goes on holding above it; None: there is none."""
    if low > high or not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def most_that(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the greatest number in ``[low, high]`` for which `holds`, which holds for all below it; `low` when there is none."""
    first = least_that(lambda number: not holds(number), low, high)
    return high if first is None else max(low, first - 1)


def _speeds(measures: Mapping[str, Measure], errors: float) -> dict[str, float]:
    """Return rows per ms by class; a class that nothing is known about is taken to be as fast as the other."""
    losses = {name: min(max(each.loss + errors * each.loss_error, 0.0), 0.99) for name, each in measures.items()}
    known = {name: each.rate * (1.0 - losses[name]) for name, each in measures.items() if each.rate > 0}
    if not known:
        return {}
    other = next(iter(known.values()))
    return {name: known.get(name, other) for name in CLASSES}
