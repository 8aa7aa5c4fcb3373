"""Drawn scenarios: 2,000 seeds always, those that once failed, and the search itself: finds it a rule that is off, and makes it small?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from antinfer.core import guards
from antinfer.testing import sim
from antinfer.testing.sim import recipes, search
from antinfer.testing.sim.shrink import shrink

CORPUS = Path(__file__).with_name("corpus.jsonl")
SEEDS = 2_000
CHUNKS = 8


@pytest.mark.parametrize("chunk", [0, *(pytest.param(chunk, marks=pytest.mark.slow) for chunk in range(1, CHUNKS))])
def test_drawn_scenarios_end_well(seed: int, chunk: int) -> None:
    tally = search.search(seed, SEEDS // CHUNKS)
    assert not tally.findings, "\n\n".join(map(str, tally.findings))
    assert {"crash", "pause", "lose", "double", "delay", "break"} <= tally.faults.keys(), f"too little went wrong: {tally}"


@pytest.mark.parametrize("recipe", recipes.read(CORPUS), ids=lambda recipe: recipe.note)
def test_what_once_failed_does_not_fail_again(recipe: sim.Recipe) -> None:
    outcome = recipe.play()
    assert outcome.ok, outcome.transcript()


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_soak(seed: int) -> None:
    tally = search.search(seed, 20_000)
    assert not tally.findings, "\n\n".join(map(str, tally.findings))


def test_faults_that_are_listed_strike_as_they_did_when_they_were_drawn(seed: int) -> None:
    struck = 0
    for number in range(seed, seed + 12):
        drawn = search.play(number)
        listed = sim.run(sim.draw(number), number, drawn.faults)
        assert listed.transcript() == drawn.transcript()
        struck += len(drawn.faults)
    assert struck > 0


def test_a_run_that_is_written_down_is_the_same_run(seed: int, tmp_path: Path) -> None:
    written = [sim.Recipe.of(sim.draw(number), search.play(number), f"seed {number}") for number in range(seed, seed + 8)]
    file = tmp_path / "corpus.jsonl"
    assert recipes.append(file, written) == 8
    assert recipes.read(file) == written
    assert recipes.append(file, written[:3]) == 0, "what is known is not added again"


def test_stage_directions_cannot_be_written_down() -> None:
    scenario = sim.Scenario("scripted", script=lambda stage: None)
    with pytest.raises(ValueError, match="stage directions"):
        sim.Recipe(scenario, 1, ()).to_text()


def test_a_run_that_ends_well_is_not_shrunk() -> None:
    with pytest.raises(ValueError, match="nothing goes wrong"):
        shrink(sim.Recipe(sim.Scenario("calm"), 1, ()))


def first_failure(seeds: range) -> sim.Outcome:
    for number in seeds:
        outcome = search.play(number)
        if not outcome.ok:
            return outcome
    raise AssertionError(f"nothing goes wrong in seeds {seeds}")


@pytest.mark.parametrize(
    ("name", "off", "kind"),
    [
        ("may_drop_record", lambda published, flushed: published or flushed, "lost"),
        ("rows_freed", lambda rows, others: [rows], "doubled"),
        ("may_collect", lambda staged, standing, kept, closed_below: staged not in kept, "lost"),
    ],
    ids=["rule 2", "rule 6", "rule 5"],
)
def test_a_rule_that_is_off_is_found_and_made_small(
    monkeypatch: pytest.MonkeyPatch, name: str, off: Callable[..., Any], kind: str, seed: int
) -> None:
    monkeypatch.setattr(guards, name, off)
    whole = first_failure(range(seed, seed + 400))
    recipe = sim.Recipe.of(sim.draw(whole.seed), whole)
    small = shrink(recipe, runs=150)
    print(small.to_text())
    again = small.play()
    assert again.kinds & whole.kinds and kind in again.kinds
    assert len(small.faults) <= max(1, len(recipe.faults)) and sum(small.scenario.rows) <= sum(recipe.scenario.rows)
    assert sim.Recipe.parse(small.to_text()).play().transcript() == again.transcript()
    monkeypatch.undo()
    assert small.play().ok, "with the rule on the same play ends well"
