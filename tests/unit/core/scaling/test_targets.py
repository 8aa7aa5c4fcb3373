"""How many workers: single decisions, checked against what is easily worked out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.core.causes import Cause
from antinfer.core.scaling.actions import Topic
from antinfer.core.scaling.outlook import Outlook, least_that, most_that
from antinfer.core.scaling.tally import Tally
from antinfer.core.scaling.targets import Aim, Decision, Limits, decide
from antinfer.core.scaling.values import (
    PREEMPTIBLE,
    PROTECTED,
    Allowance,
    Desired,
    Measure,
    Observed,
    Obstacle,
    Severity,
    WorkerSeen,
    WorkerState,
)
from tests.unit.core.scaling.cluster import desired

HOUR = 3_600_000
RATE = 0.05
NO_PLACE = Obstacle(Cause.NO_CAPACITY, Severity.WAITING, "no node fits")


def workers(count: int, state: WorkerState = WorkerState.READY, **changes: object) -> list[WorkerSeen]:
    return [
        replace(WorkerSeen(f"{state.value}-{n}", PREEMPTIBLE, state, 0, 0, ready_at=0, uncommitted_rows=9), **changes) for n in range(count)
    ]


def decided(wish: Desired, have: list[WorkerSeen], last: Aim, now: int = 0, limits: Limits | None = None, **seen: object) -> Decision:
    measures = {PREEMPTIBLE: Measure(RATE, startup_ms=30_000)}
    given: dict[str, object] = {"remaining_rows": 10**7, "unleased_rows": 10**6, "measures": measures, **seen}
    observed = Observed(tuple(have), **given)  # type: ignore[arg-type]
    return decide(wish, observed, Tally(observed.workers, (), ()), last, limits or Limits(), now)


def told(decision: Decision, topic: Topic) -> str:
    return next(tell.text for tell in decision.tells if tell.topic is topic)


# -- deadline -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_as_many_as_the_deadline_takes(loss: float) -> None:
    measures = {PREEMPTIBLE: Measure(RATE, loss, startup_ms=30_000)}
    decision = decided(desired(most=50, deadline_at=HOUR), workers(1), Aim(wanted=1), remaining_rows=10 * RATE * HOUR, measures=measures)
    exact = 10 / 0.95 / (1 - loss)
    assert exact < decision.aim.total <= exact + 1.2
    assert told(decision, Topic.DEADLINE) == ""


def test_classes_count_by_their_own_rates() -> None:
    measures = {PROTECTED: Measure(2 * RATE, startup_ms=0), PREEMPTIBLE: Measure(RATE, startup_ms=0)}
    wish = desired(most=50, on_demand=0.5, deadline_at=HOUR)
    decision = decided(wish, workers(1), Aim(wanted=1), remaining_rows=15 * RATE * HOUR * 0.95, measures=measures)
    assert decision.aim.total == 10


def test_within_the_band_nothing_happens_whatever_the_noise() -> None:
    wish, aim = desired(most=50, deadline_at=HOUR), Aim(wanted=10)
    for noise, total in ((0.975, 10), (1.0, 10), (1.03, 10), (0.98, 10), (1.01, 10), (0.96, 11)):
        rows = 10 * RATE * HOUR * 0.95
        aim = decided(wish, workers(10), aim, remaining_rows=rows, measures={PREEMPTIBLE: Measure(RATE * noise, startup_ms=30_000)}).aim
        assert (aim.total, aim.fewer_since) == (total, None)


def test_fewer_only_after_they_were_enough_for_a_while_and_as_many_as_were_enough_all_the_time() -> None:
    wish, aim, totals = desired(most=50, deadline_at=HOUR), Aim(wanted=20), {}
    for at, needed in ((0, 8), (30_000, 12), (50_000, 9), (59_000, 8), (60_000, 8)):
        aim = decided(wish, workers(20), aim, at, remaining_rows=needed * RATE * (0.95 * HOUR - at)).aim
        totals[at] = aim.total
    assert [totals[at] for at in (0, 30_000, 50_000, 59_000)] == [20] * 4
    assert totals[60_000] == 12


def test_what_was_enough_only_for_a_moment_is_forgotten() -> None:
    wish = desired(most=50, deadline_at=HOUR)
    aim = decided(wish, workers(20), Aim(wanted=20), 0, remaining_rows=8 * RATE * HOUR).aim
    aim = decided(wish, workers(20), aim, 50_000, remaining_rows=19 * RATE * HOUR * 0.95).aim
    assert decided(wish, workers(20), aim, 70_000, remaining_rows=8 * RATE * HOUR).aim.total == 20


@pytest.mark.parametrize(("left", "after"), [(HOUR // 2, 60_000), (290_000, 58_000), (270_000, 54_000)])
def test_near_the_end_fewer_need_to_be_enough_for_a_fifth_of_the_time_left(left: int, after: int) -> None:
    wish, aim, start = desired(most=50, deadline_at=HOUR), Aim(wanted=20), round(0.95 * HOUR) - left
    measures = {PREEMPTIBLE: Measure(RATE, startup_ms=0)}
    for at, total in ((0, 20), (0.8 * after, 20), (after, 10)):
        aim = decided(wish, workers(20), aim, start + round(at), remaining_rows=9.9 * RATE * (left - at), measures=measures).aim
        assert aim.total == total


def test_workers_are_given_back_when_fewer_are_enough_although_more_may_be_lost_than_it_seems() -> None:
    wish, totals = desired(most=50, deadline_at=HOUR), []
    for error in (0.0, 0.1):
        aim = Aim(wanted=20, fewer_since=-60_000)
        measures = {PREEMPTIBLE: Measure(RATE, 0.1, startup_ms=0, loss_error=error)}
        totals.append(decided(wish, workers(20), aim, remaining_rows=14.4 * RATE * HOUR * 0.95 * 0.9, measures=measures).aim.total)
    assert totals == [15, 17], "14.4 in 0.9 of their time, 14.4 in 0.8 of it"


def test_a_job_is_late_only_when_it_is_with_less_lost_than_it_seems() -> None:
    wish, last = desired(most=20, deadline_at=HOUR), Aim(wanted=20)
    for error, is_late in ((0.0, True), (0.05, True), (0.1, False)):
        measures = {PREEMPTIBLE: Measure(RATE, 0.2, startup_ms=0, loss_error=error)}
        decision = decided(wish, workers(20), last, remaining_rows=20 * RATE * HOUR * 0.95, measures=measures)
        assert decision.aim.is_late == is_late == told(decision, Topic.DEADLINE).startswith("the job will end about 12 min after"), (
            "as is likely"
        )
        assert decision.aim.total == 20, "whatever is told, it has as many as that would take"


def test_a_deadline_that_cannot_be_kept_takes_all_there_may_be_and_says_how_late() -> None:
    decision = decided(desired(most=10, deadline_at=HOUR), workers(10), Aim(wanted=10), remaining_rows=15 * RATE * HOUR)
    assert decision.aim.total == 10
    assert told(decision, Topic.DEADLINE) == "the job will end about 30 min after its deadline even with the 10 workers that it may have"


def test_nothing_is_said_or_done_while_nothing_is_known() -> None:
    for unknown in ({"measures": {}}, {"remaining_rows": None}):
        decision = decided(desired(least=3, most=10, deadline_at=HOUR), workers(3), Aim(wanted=3), **unknown)
        assert decision.aim.total == 3
        assert [tell.text for tell in decision.tells] == ["", ""]


# -- capacity -------------------------------------------------------------------------------------------------------------------------
def test_growth_into_free_capacity_is_fourfold_and_stops_at_the_most_there_may_be() -> None:
    wish, aim, totals = desired(most=40), Aim(), []
    for at in range(0, 6_000, 1_000):
        aim = decided(wish, workers(aim.wanted), aim, at).aim
        totals.append(aim.total)
    assert totals == [1, 2, 6, 22, 40, 40]


def test_growth_waits_for_places_and_those_too_many_are_withdrawn_after_a_while() -> None:
    wish, aim = desired(most=40), Aim(wanted=30, step=16)
    for at in (1_000, 60_000):
        aim = decided(wish, workers(20) + workers(10, WorkerState.PENDING, obstacle=NO_PLACE), aim, at).aim
        assert (aim.total, aim.step) == (30, 1)
    aim = decided(wish, workers(20) + workers(10, WorkerState.PENDING, obstacle=NO_PLACE), aim, 61_000).aim
    assert aim.total == 22, "a tenth of those that have a place go on waiting"
    aim = decided(wish, workers(20) + workers(2, WorkerState.PENDING, obstacle=NO_PLACE), aim, 900_000).aim
    assert aim.total == 22
    aim = decided(wish, workers(22), aim, 901_000).aim
    assert aim.total == 23


# -- near the end ---------------------------------------------------------------------------------------------------------------------
def test_nobody_comes_again_for_want_of_work_until_rows_are_there() -> None:
    wish, last = desired(least=6, most=6), Aim(wanted=6, ebb=1)
    idle = workers(1, idle_since=0, uncommitted_rows=0, name="idle")
    have = workers(1) + idle + workers(2, WorkerState.STARTING)
    assert decided(wish, have, last, 60_000, unleased_rows=0).aim.total == 1
    assert decided(wish, workers(1), last, 60_000, unleased_rows=0).aim.total == 1
    assert decided(wish, workers(1), last, 60_000, unleased_rows=1).aim.total == 6


def test_as_the_end_comes_nearer_the_number_worth_it_only_sinks_unless_there_is_clearly_more_to_do() -> None:
    wish, last = desired(least=12, most=12), Aim(wanted=12, worth=10)
    twice_a_start = 2 * 30_000 * RATE
    assert decided(wish, workers(10), last, remaining_rows=11 * twice_a_start).aim.total == 10
    assert decided(wish, workers(8), last, remaining_rows=9 * twice_a_start).aim.total == 9
    assert decided(wish, workers(10), last, remaining_rows=23 * twice_a_start).aim.total == 12


# -- budgets --------------------------------------------------------------------------------------------------------------------------
def test_a_budget_lets_everybody_leave_in_order_and_nobody_come_back() -> None:
    wish = desired(most=20, allowance=Allowance(gpu_hours=10))
    leave = (wish.policy.drain_ms + 5_000) / HOUR
    used = {PREEMPTIBLE: round((10 - 12.5 * leave) * HOUR)}
    aim = decided(wish, workers(20), Aim(wanted=20), limits=Limits(None, used)).aim
    assert aim.total == 12
    less = {PREEMPTIBLE: used[PREEMPTIBLE] - HOUR // 2}
    aim = decided(wish, workers(12), aim, limits=Limits(None, less)).aim
    assert aim.total == 12
    more = replace(wish, allowance=Allowance(gpu_hours=20))
    assert decided(more, workers(12), aim, limits=Limits(None, used)).aim.total == 20
    spent = decided(wish, workers(1), aim, limits=Limits(None, {PREEMPTIBLE: 10 * HOUR}))
    assert spent.is_spent and spent.aim.total == 0


def test_little_of_a_budget_goes_into_starting_workers() -> None:
    measures = {PREEMPTIBLE: Measure(RATE, startup_ms=360_000)}
    wish = desired(least=20, most=20, allowance=Allowance(gpu_hours=5))
    assert decided(wish, workers(3), Aim(wanted=20), measures=measures).aim.total == 3 + 5
    tiny = desired(least=20, most=20, allowance=Allowance(gpu_hours=0.5))
    assert decided(tiny, [], Aim(wanted=20), measures=measures).aim.total == 1, "one has to begin"


@pytest.mark.parametrize(("left", "total"), [(12, 20), (10, 20), (9, 19), (0, 10)])
def test_the_death_of_a_few_is_no_reason_to_want_fewer(left: int, total: int) -> None:
    measures = {PREEMPTIBLE: Measure(RATE, startup_ms=360_000)}
    wish = desired(least=20, most=20, allowance=Allowance(gpu_hours=5))
    assert decided(wish, workers(left), Aim(total=20, wanted=20), measures=measures).aim.total == total


def test_workers_in_excess_are_no_reason_to_want_more() -> None:
    measures = {PREEMPTIBLE: Measure(RATE, startup_ms=360_000)}
    wish = desired(least=20, most=20, allowance=Allowance(gpu_hours=5))
    assert decided(wish, workers(9), Aim(total=4, wanted=20), measures=measures).aim.total == 4 + 5


def test_a_budget_that_cannot_last_is_told_once_it_can_be_reckoned() -> None:
    wish = desired(most=10, allowance=Allowance(money=7))
    decision = decided(wish, workers(10), Aim(wanted=10), remaining_rows=10 * RATE * HOUR)
    assert told(decision, Topic.BUDGET) == "the job needs about 10 of budget.money, which allows 7; 0 are used"
    assert told(decided(wish, workers(10), Aim(wanted=10), remaining_rows=6 * RATE * HOUR), Topic.BUDGET) == ""


# -- reckoning ------------------------------------------------------------------------------------------------------------------------
@given(
    ready=st.integers(0, 30), rows=st.integers(1, 10**7), share=st.floats(0, 1), other=st.floats(0.01, 0.2), startup=st.integers(0, 600_000)
)
def test_more_workers_never_make_it_longer(ready: int, rows: int, share: float, other: float, startup: int) -> None:
    measures = {PROTECTED: Measure(RATE, startup_ms=startup), PREEMPTIBLE: Measure(other, startup_ms=startup)}
    observed = Observed(tuple(workers(ready)), remaining_rows=rows, measures=measures)
    outlook = Outlook(desired(most=40, on_demand=share), observed, Tally(observed.workers, (), ()))
    times = [outlook.finish_ms(total) for total in range(1, 41)]
    assert all(after <= before * (1 + 1e-9) for before, after in pairwise(times))


@given(low=st.integers(0, 20), size=st.integers(0, 40), border=st.integers(-5, 70))
def test_search_by_halves(low: int, size: int, border: int) -> None:
    numbers = range(low, low + size + 1)
    assert least_that(lambda n: n >= border, low, low + size) == next((n for n in numbers if n >= border), None)
    assert most_that(lambda n: n <= border, low, low + size) == max((n for n in numbers if n <= border), default=low)
