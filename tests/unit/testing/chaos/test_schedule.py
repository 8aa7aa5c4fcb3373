"""When faults strike is a function of plan and seed alone."""

from __future__ import annotations

from itertools import pairwise

import pytest

from antinfer.testing.chaos.plan import FaultPlan, Moment, Rule
from antinfer.testing.chaos.schedule import Schedule, Strike

KILLS = Rule("kill", "worker", every=Moment(seconds=5.0), end=Moment(share=1.0))
STEADY = Rule("kill", "master", every=Moment(seconds=3.0), spread="steady", end=Moment(share=1.0))


def timeline(plan: FaultPlan, seed: int, seconds: int = 2000) -> list[Strike]:
    schedule = Schedule(plan, seed)
    return [strike for second in range(seconds) for strike in schedule.due(float(second), 0.5)]


def plan(*rules: Rule) -> FaultPlan:
    return FaultPlan("p", rules)


def test_the_same_seed_gives_the_same_strikes() -> None:
    first, again, other = (timeline(plan(KILLS, STEADY), seed) for seed in (1, 1, 2))
    assert [(strike, strike.draw) for strike in first] == [(strike, strike.draw) for strike in again]
    assert [strike.at for strike in first] != [strike.at for strike in other]


def test_strikes_come_in_order_and_once() -> None:
    found = timeline(plan(KILLS, STEADY), 3)
    assert found == sorted(found)
    assert len({(strike.rule_number, strike.number) for strike in found}) == len(found)


def test_a_rule_does_not_move_the_strikes_of_another() -> None:
    alone = timeline(plan(KILLS), 7)
    beside = [strike for strike in timeline(plan(KILLS, STEADY, KILLS), 7) if strike.rule_number == 0]
    assert [(strike.at, strike.draw) for strike in alone] == [(strike.at, strike.draw) for strike in beside]


@pytest.mark.parametrize("seed", range(5))
def test_poisson_strikes_have_their_rate(seed: int) -> None:
    gaps = [later.at - earlier.at for earlier, later in pairwise(timeline(plan(KILLS), seed, 20_000))]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(5.0, rel=0.1)
    # Exponential times deviate by as much as their mean; steady ones not at all.
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.15)


def test_steady_strikes_are_steady() -> None:
    assert [strike.at for strike in timeline(plan(STEADY), 1, 13)] == [3.0, 6.0, 9.0, 12.0]


def test_shares_and_times() -> None:
    rule = Rule("kill", "worker", at=(Moment(share=0.3), Moment(seconds=4.0), Moment(share=0.1)))
    schedule = Schedule(plan(rule), 1)
    assert schedule.due(3.0, 0.05) == []
    assert [strike.at for strike in schedule.due(3.5, 0.1)] == [0.1]
    assert [strike.at for strike in schedule.due(4.0, 0.2)] == [4.0]
    assert [strike.at for strike in schedule.never_due()] == [0.3]


def test_a_rate_holds_between_its_limits_only() -> None:
    rule = Rule("kill", "worker", every=Moment(seconds=1.0), spread="steady", begin=Moment(share=0.2), end=Moment(share=0.5))
    schedule = Schedule(plan(rule), 1)
    shares = [(second, second / 20) for second in range(21)]
    struck = [share for second, share in shares for _ in schedule.due(float(second), share)]
    assert min(struck) == 0.2
    assert max(struck) < 0.5
    late = Schedule(plan(Rule("kill", "worker", every=Moment(seconds=1.0), spread="steady", begin=Moment(seconds=5.0))), 1)
    assert [strike.at for strike in late.due(7.0, 0.1)] == [6.0, 7.0]


def test_a_rate_may_be_limited_in_number() -> None:
    assert len(timeline(plan(Rule("kill", "worker", every=Moment(seconds=1.0), times=4)), 1)) == 4


@pytest.mark.parametrize("seed", range(5))
def test_strikes_by_share_come_at_their_shares(seed: int) -> None:
    rule = Rule("kill", "worker", every=Moment(share=0.1), spread="scattered", end=Moment(share=1.0))
    schedule = Schedule(plan(rule), seed)
    found = [strike for percent in range(101) for strike in schedule.due(0.0, percent / 100)]
    # One in each tenth, wherever in it.
    assert [int(strike.at * 10) for strike in found] == list(range(10))
    assert len({strike.at * 10 % 1 for strike in found}) == 10
