"""When which fault strikes: a pure function of plan and seed, asked again and again for what is due."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from antinfer.testing.chaos.plan import FaultPlan, Moment, Rule


@dataclass(frozen=True, slots=True, order=True)
class Strike:
    """One fault that is to happen."""

    at: float
    """Seconds since the first lease, or the share of the rows, as `moment` says."""
    rule_number: int
    """Of its rule in the plan."""
    number: int
    """Among the strikes of its rule, from 0."""
    rule: Rule = field(compare=False)
    moment: Moment = field(compare=False)
    draw: float = field(compare=False)
    """In [0, 1): which of those that it could meet it meets."""

    def pick(self, candidates: int) -> int:
        """Return the number of the one that it meets, of so many."""
        return int(self.draw * candidates)


class Schedule:
    """The strikes of one run, in order. The same plan and seed give the same strikes, whatever the run makes of them.

    Every rule has a chance of its own, so that a rule added to a plan leaves the strikes of the others where they were.
    """

    def __init__(self, plan: FaultPlan, seed: int) -> None:
        self._timed: list[tuple[Strike, Iterator[Strike]]] = []
        self._shares: list[Strike] = []
        for number, rule in enumerate(plan.rules):
            chance = random.Random(f"{seed}/{number}/{rule.kind}/{rule.target}")
            if rule.every is not None:
                self._push(_renewals(rule, number, chance))
            for count, moment in enumerate(rule.at):
                at = moment.share if moment.share is not None else moment.seconds or 0.0
                strike = Strike(at, number, count, rule, moment, chance.random())
                if moment.share is not None:
                    heapq.heappush(self._shares, strike)
                else:
                    self._push(iter([strike]))

    def due(self, seconds: float, share: float) -> list[Strike]:
        """Return, in order, what is due `seconds` after the first lease with a `share` of the rows published, and was not before."""
        found = []
        while self._timed and self._timed[0][0].at <= seconds:
            strike, later = heapq.heappop(self._timed)
            self._push(later)
            if strike.rule.every is None or _is_between(strike.rule, seconds, share):
                found.append(strike)
        while self._shares and self._shares[0].at <= share:
            found.append(heapq.heappop(self._shares))
        return found

    def never_due(self) -> list[Strike]:
        """Return the strikes at fixed moments that have not come."""
        return sorted([*self._shares, *(strike for strike, _ in self._timed if strike.rule.every is None)])

    def _push(self, strikes: Iterator[Strike]) -> None:
        first = next(strikes, None)
        if first is not None:
            heapq.heappush(self._timed, (first, strikes))


def _renewals(rule: Rule, number: int, chance: random.Random) -> Iterator[Strike]:
    every = rule.every or 0.0
    at = rule.begin.seconds or 0.0
    count = 0
    while rule.times is None or count < rule.times:
        at += chance.expovariate(1 / every) if rule.spread == "poisson" else every
        yield Strike(at, number, count, rule, Moment(seconds=at), chance.random())
        count += 1


def _is_between(rule: Rule, seconds: float, share: float) -> bool:
    def reached(moment: Moment) -> bool:
        return share >= moment.share if moment.share is not None else seconds >= (moment.seconds or 0.0)

    return reached(rule.begin) and not reached(rule.end)
