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
        self._by_time: _Queue = []
        self._by_share: _Queue = []
        for number, rule in enumerate(plan.rules):
            chance = random.Random(f"{seed}/{number}/{rule.kind}/{rule.target}")
            if rule.every is not None:
                self._push(_repeated(rule, rule.every, number, chance))
            for count, moment in enumerate(rule.at):
                self._push(iter([Strike(_value(moment), number, count, rule, moment, chance.random())]))

    def due(self, seconds: float, share: float) -> list[Strike]:
        """Return, in order, what is due `seconds` after the first lease with a `share` of the rows published, and was not before."""
        found = []
        for queue, now in ((self._by_time, seconds), (self._by_share, share)):
            while queue and queue[0][0].at <= now:
                strike, later = heapq.heappop(queue)
                self._push(later)
                if strike.rule.every is None or _is_between(strike, seconds, share):
                    found.append(strike)
        return found

    def never_due(self) -> list[Strike]:
        """Return the strikes at fixed moments that have not come."""
        return sorted(strike for strike, _ in (*self._by_share, *self._by_time) if strike.rule.every is None)

    def _push(self, strikes: Iterator[Strike]) -> None:
        first = next(strikes, None)
        if first is not None:
            heapq.heappush(self._by_time if first.moment.share is None else self._by_share, (first, strikes))


_Queue = list[tuple[Strike, Iterator[Strike]]]


def _value(moment: Moment) -> float:
    return moment.share if moment.share is not None else moment.seconds or 0.0


def _repeated(rule: Rule, every: Moment, number: int, chance: random.Random) -> Iterator[Strike]:
    in_shares = every.share is not None
    stretch = _value(every)
    # What begins at a moment of the other sort begins to count at once, and strikes nobody until then.
    at = _value(rule.begin) if (rule.begin.share is not None) == in_shares else 0.0
    count = 0
    while rule.times is None or count < rule.times:
        match rule.spread:
            case "poisson":
                at += chance.expovariate(1 / stretch)
                strikes_at = at
            case "steady":
                at += stretch
                strikes_at = at
            case "scattered":
                strikes_at = at + chance.random() * stretch
                at += stretch
        if in_shares and strikes_at > 1:
            return
        moment = Moment(share=strikes_at) if in_shares else Moment(seconds=strikes_at)
        yield Strike(strikes_at, number, count, rule, moment, chance.random())
        count += 1


def _is_between(strike: Strike, seconds: float, share: float) -> bool:
    # Where it was to be, not where the job has got to since it was looked at last.
    if strike.moment.share is not None:
        share = strike.at
    else:
        seconds = strike.at

    def reached(moment: Moment) -> bool:
        return share >= moment.share if moment.share is not None else seconds >= (moment.seconds or 0.0)

    return reached(strike.rule.begin) and not reached(strike.rule.end)
