"""Fault plans as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from antinfer.errors import UsageError
from antinfer.testing.chaos import load_plan
from antinfer.testing.chaos.kinds import KINDS
from antinfer.testing.chaos.plan import FaultPlan, Moment, Rule, ready_made
from antinfer.testing.chaos.strikes import BLOWS

GOOD = """
workers: 2
store: server
seconds: 5s
replace: never
faults:
  - {kill: worker, at: [10%, 3s]}
  - {stop: worker, for: 500ms, every: 2s, spread: steady, from: 5%, until: 50%, times: 3}
  - {term: worker, grace: 0, at: 0}
"""


def read(tmp_path: Path, text: str) -> FaultPlan:
    (tmp_path / "mine.yaml").write_text(text)
    return load_plan(tmp_path / "mine.yaml")


def test_a_plan_is_read(tmp_path: Path) -> None:
    plan = read(tmp_path, GOOD)
    assert (plan.name, plan.workers, plan.store, plan.seconds, plan.replace_s) == ("mine", 2, "server", 5.0, None)
    assert plan.rules == (
        Rule("kill", "worker", at=(Moment(share=0.1), Moment(seconds=3.0))),
        Rule(
            "stop",
            "worker",
            every=Moment(seconds=2.0),
            spread="steady",
            begin=Moment(share=0.05),
            end=Moment(share=0.5),
            times=3,
            lasts_s=0.5,
        ),
        Rule("term", "worker", at=(Moment(seconds=0.0),), grace_s=0.0),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("faults: [{kill: workers, at: 10%}]", "did you mean 'worker'"),
        ("faults: [{kil: worker, at: 10%}]", "a fault is exactly one of kill"),
        ("faults: [{kill: worker}]", "exactly one of at and every"),
        ("faults: [{kill: worker, at: 5%, every: 3s}]", "exactly one of at and every"),
        ("faults: [{stop: worker, at: 5%}]", "stop needs for"),
        ("faults: [{kill: worker, for: 1s, at: 5%}]", "kill takes no for"),
        ("faults: [{kill: worker, grace: 1s, at: 5%}]", "kill takes no grace"),
        ("faults: [{kill: worker, at: 120%}]", "at most 100%"),
        ("faults: [{kill: worker, every: 0%}]", "above zero"),
        ("faults: [{kill: commit.stagd, at: 5%}]", "did you mean 'commit.staged'"),
        ("faults: [{drop: commit.staged, at: 5%}]", "must be one of a fault point"),
        ("faults: [{fail: storage.stage, at: 5%}]", "fail needs error"),
        ("faults: [{fail: storage.stage, error: ENOSENSE, at: 5%}]", "name of an error"),
        ("faults: [{wipe: store, at: 5%}]", "needs `store: server`"),
        ("\nworker: 3", "mine.yaml:2: worker: unknown key"),
        ("workers: 0", "at least 1"),
        ("- kill", "must be a mapping"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_an_unknown_plan_names_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="did you mean 'spot'") as caught:
        load_plan("spott")
    assert "dark-day" in caught.value.hint


def test_the_ready_made_plans_can_be_read() -> None:
    plans = {name: load_plan(name) for name in ready_made()}
    assert {"spot", "rolling", "dark-day"} <= plans.keys()
    assert all(plan.about and plan.rules for plan in plans.values())
    assert plans["dark-day"].at_least >= 50
    assert {rule.kind for rule in plans["dark-day"].rules} == KINDS.keys()


def test_whatever_a_plan_may_name_can_be_done() -> None:
    assert BLOWS.keys() == {(kind.name, target) for kind in KINDS.values() for target in kind.all_targets}
