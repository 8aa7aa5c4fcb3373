"""Does the search see what goes wrong beside rows: wrong blame, jobs given up for nothing, logs that tell another story?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from antinfer.core import budgets, hindrance
from antinfer.core.documents import Changes
from antinfer.core.engine import Engine
from antinfer.core.interval import IntervalPolicy
from antinfer.testing import sim
from antinfer.testing.sim import reignlog

SEEDS = range(8)
TOGETHER = sim.Scenario(
    "rows that are computed together",
    rows=(1,) * 5,
    workers=1,
    slots=5,
    batch=5,
    poison=frozenset({(3, 0), (4, 0)}),
    engine=replace(sim.ENGINE, ranges=budgets.RangeBudget(quarantine_after=2)),
    blames_rows=False,
)


def kinds(scenario: sim.Scenario) -> set[str]:
    return {kind for seed in SEEDS for kind in sim.run(scenario, seed).kinds}


def ends_well(scenario: sim.Scenario) -> None:
    for seed in SEEDS:
        outcome = sim.run(scenario, seed)
        assert outcome.ok, outcome.transcript()


def test_without_suspects_alone_good_rows_end_in_quarantine(monkeypatch: pytest.MonkeyPatch) -> None:
    ends_well(TOGETHER)
    monkeypatch.setattr(budgets.RangeBudget, "is_suspect", lambda self, strikes, losses: False)
    assert kinds(TOGETHER) == {"lost"}


@pytest.mark.parametrize("is_exceeded", [lambda *counts, final: False, lambda *counts, final: True], ids=["never", "always"])
def test_a_budget_for_bad_rows_that_is_not_kept_is_seen(monkeypatch: pytest.MonkeyPatch, is_exceeded: Callable[..., bool]) -> None:
    allowed = 0.1 if not is_exceeded(final=True) else 1.0
    policy = replace(sim.ENGINE, bad_rows=budgets.BadRowBudget(max_fraction=allowed, probation_rows=2))
    scenario = sim.Scenario("bad rows", bad=frozenset({(0, 0), (1, 0)}), engine=policy)
    ends_well(scenario)
    monkeypatch.setattr(Engine, "_has_too_many_bad_rows", lambda self, *, final: is_exceeded(final=final))
    assert kinds(scenario) == {"wrong"}


def test_a_job_that_is_given_up_for_a_short_spell_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = sim.SCENARIOS["full disks"]
    ends_well(scenario)
    monkeypatch.setattr(hindrance.Hindrance, "has_lasted", lambda self, at: True)
    assert kinds(scenario) == {"wrong"}


def test_what_was_given_up_rightly_is_run_again_to_its_end() -> None:
    lives = [sim.run(sim.SCENARIOS[name], 1).transcript().count("runs the job again") for name in ("wrong code", "other columns")]
    assert min(lives) >= 1


def test_a_round_retries_what_is_in_quarantine_until_nothing_fails_any_more() -> None:
    outcome = sim.run(sim.Scenario("two rounds", rows=(4,), bad=frozenset({(0, 0), (0, 2), (0, 3)}), retries=5), 1)
    assert outcome.ok, outcome.transcript()
    assert outcome.transcript().count("runs the job again: retry round") == 2, "three rows fail, then one, then none"
    assert outcome.computed == {(0, 0): 2, (0, 1): 1, (0, 2): 3, (0, 3): 2}


def test_a_log_that_lacks_an_event_tells_another_story(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = sim.Scenario("logged", is_logged=True)
    ends_well(scenario)
    whole = reignlog.ReignLog.note

    def without_the_last(self: reignlog.ReignLog, events: Any, changes: Changes, commands: int, lost: str = "") -> None:
        whole(self, events[:-1], changes, commands, lost)

    monkeypatch.setattr(reignlog.ReignLog, "note", without_the_last)
    assert kinds(scenario) == {"error"}


def test_a_policy_that_is_usually_absent_is_written_down_and_read_again() -> None:
    policy = replace(sim.ENGINE, interval=IntervalPolicy(cost_ms=7), deadlines=replace(sim.ENGINE.deadlines, factor=3))
    recipe = sim.Recipe(sim.Scenario("paced", engine=policy, broken=frozenset({1}), fatal=frozenset({(0, 1)})), 1, ())
    assert sim.Recipe.parse(recipe.to_text()) == recipe
