"""Crash loops: pauses and the end of patience, in virtual time."""

from __future__ import annotations

from antinfer.worker.pipeline import restarts
from antinfer.worker.pipeline.restarts import Restarts


def test_a_batch_is_tried_again_at_once_and_a_crash_loop_slows_down() -> None:
    budget = Restarts(12, seed=1)
    pauses = [budget.died(float(at)) for at in range(12)]
    assert pauses[:2] == [0.0, 0.0] and pauses[-1] is None
    for pause, middle in zip(pauses[2:-1], [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0], strict=True):
        assert pause is not None and 0.75 * middle <= pause <= 1.25 * middle


def test_processes_that_died_together_do_not_come_back_together() -> None:
    budgets = [Restarts(12, seed) for seed in range(8)]
    pauses = [[budget.died(float(at)) for budget in budgets] for at in range(3)]
    assert len(set(pauses[-1])) == len(budgets)


def test_progress_pays_everything_back() -> None:
    budget = Restarts(3, seed=1)
    for at in range(100):
        assert budget.died(float(at)) == 0.0
        budget.progressed()
    assert budget.in_a_row == 0


def test_deaths_far_apart_are_no_loop() -> None:
    budget = Restarts(3, seed=1)
    assert all(budget.died(at * restarts.WINDOW_SECONDS / 1.5) == 0.0 for at in range(50))
