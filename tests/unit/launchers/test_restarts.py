"""How often a launcher starts again what ends, in virtual time."""

from __future__ import annotations

import signal

import pytest

from antinfer.core.scaling import exits
from antinfer.launchers.restarts import RestartBudget

KILLED = exits.SIGNALLED + signal.SIGKILL


def test_a_crash_loop_slows_down_until_the_budget_is_spent() -> None:
    budget = RestartBudget(8, 60.0, "w")
    pauses = [budget.ended(float(at), 1) for at in range(9)]
    assert pauses[-1] is None
    for pause, middle in zip(pauses[:-1], [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0], strict=True):
        assert pause is not None and 0.75 * middle <= pause <= 1.25 * middle


def test_what_died_together_does_not_come_back_together() -> None:
    pauses = {RestartBudget(8, 60.0, f"worker {number}").ended(0.0, KILLED) for number in range(1, 9)}
    assert len(pauses) == 8


def test_ends_long_ago_do_not_count() -> None:
    budget = RestartBudget(1, 60.0, "w")
    assert budget.ended(0.0, KILLED) == budget.ended(61.0, KILLED) is not None
    assert budget.ended(62.0, KILLED) is None


@pytest.mark.parametrize("status", [exits.TAKEN_AWAY, exits.SIGNALLED + signal.SIGTERM], ids=["told", "before it could listen"])
def test_nobody_pays_for_what_is_taken_away(status: int) -> None:
    budget = RestartBudget(1, 60.0, "w")
    first = budget.ended(0.0, KILLED)
    assert [budget.ended(float(at), status) for at in range(100)] == [first] * 100
    assert budget.ended(1.0, KILLED) is None


def test_whoever_gets_on_may_be_killed_any_number_of_times() -> None:
    budget = RestartBudget(5, 60.0, "master")
    first = budget.ended(0.0, KILLED)
    for at in range(1, 100):
        budget.progressed()
        assert budget.ended(3.0 * at, KILLED) == first
    pauses = [budget.ended(300.0 + at, KILLED) for at in range(5)]
    assert pauses[-1] is None and None not in pauses[:-1]
