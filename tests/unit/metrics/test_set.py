from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from antinfer.errors import ChangedError, JobFileError, OutputError, UserCodeError
from antinfer.metrics import Accumulator, AccumulatorSet, Batch, Config, ExactSum


class Brier(Accumulator):
    """What a user would write."""

    def __init__(self, power: int = 2) -> None:
        self.power = power
        self.total = ExactSum()
        self.rows = 0

    def update(self, batch: Batch) -> None:
        self.total.add(np.abs(batch["score"] - batch["label"]) ** self.power)
        self.rows += batch.rows

    def state(self) -> Any:
        return [self.total.state(), self.rows]

    def merge(self, state: Any) -> None:
        total, rows = state
        self.total.merge(total)
        self.rows += rows

    def result(self) -> dict[str, Any]:
        return {"brier": self.total.over(self.rows)}


class Faulty(Brier):
    def update(self, batch: Batch) -> None:
        raise KeyError("no such thing")

    def state(self) -> Any:
        return np.int64(3)

    def merge(self, state: Any) -> None:
        raise RuntimeError("cannot merge")

    def result(self) -> dict[str, Any]:
        return {"brier": float("nan")}


class Unfinished(Accumulator):
    def update(self, batch: Batch) -> None:
        """Nothing."""


def resolve(name: str) -> Any:
    return {"own:Brier": Brier, "own:Faulty": Faulty, "own:Unfinished": Unfinished, "own:function": len}[name]


def build(**accumulators: Any) -> AccumulatorSet:
    return AccumulatorSet.from_config(accumulators, resolve)


OWN = {"type": "own:Brier", "columns": ["score", "label"], "args": {"power": 1}}
ROWS = {"score": np.array([0.0, 0.5, 1.0]), "label": np.array([0, 1, 0])}


def test_an_accumulator_of_ones_own_takes_part_like_the_others() -> None:
    metrics = build(brier=OWN, n={"type": "count"})
    assert metrics.columns == ("score", "label")
    metrics.update({**ROWS, "more": np.zeros(3)})
    other = metrics.fresh()
    other.merge(metrics.take_state())
    assert other.results() == {
        "brier": {"type": "own:Brier", "brier": 0.5, "rows": 3, "nulls": 0},
        "n": {"type": "count", "count": 3, "rows": 3, "nulls": 0},
    }


def test_taking_the_state_starts_from_nothing() -> None:
    metrics = build(n={"type": "count"}, m={"type": "mean", "value": "score"})
    metrics.update(ROWS)
    first = metrics.take_state()
    metrics.update(ROWS)
    assert metrics.take_state() == first
    assert " " not in first
    assert metrics.results()["n"]["count"] == 0


def test_no_accumulators_cost_nothing_in_a_record() -> None:
    metrics = build()
    metrics.update(ROWS)
    assert metrics.take_state() == ""
    metrics.merge("")
    assert metrics.results() == {}
    assert len(metrics) == 0


def test_nulls_in_any_needed_column_are_skipped_and_counted() -> None:
    metrics = build(a={"type": "auroc", "score": "score", "label": "label"}, m={"type": "mean", "value": "score"})
    score = np.ma.MaskedArray([0.0, 0.5, 1.0], mask=[False, True, False])
    label = np.array([None, 1, 0], dtype=object)
    metrics.update({"score": score, "label": label})
    results = metrics.results()
    assert (results["a"]["rows"], results["a"]["nulls"]) == (1, 2)
    assert (results["m"]["rows"], results["m"]["nulls"], results["m"]["mean"]) == (2, 1, 0.5)


def test_a_missing_column_names_the_near_ones() -> None:
    with pytest.raises(JobFileError, match=r"accumulators\.m: there is no output column 'scores'") as error:
        build(m={"type": "mean", "value": "scores"}).update(ROWS)
    assert "'score'" in error.value.hint


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("update", lambda metrics: metrics.update(ROWS)),
        ("state", lambda metrics: metrics.take_state()),
        ("merge", lambda metrics: metrics.merge('{"f":{"rows":0,"nulls":0,"state":3}}')),
        ("result", lambda metrics: metrics.results()),
    ],
)
def test_faults_of_the_users_own_are_blamed_on_it_with_its_traceback(method: str, call: Any) -> None:
    metrics = build(f={**OWN, "type": "own:Faulty"})
    with pytest.raises(UserCodeError, match=rf"accumulators\.f: .*Faulty\.{method}\(\) failed") as error:
        call(metrics)
    assert "Traceback" in error.value.user_traceback


def test_a_state_of_other_accumulators_is_refused() -> None:
    taken = build(a={"type": "count"}).take_state()
    with pytest.raises(ChangedError, match="'a'"):
        build(a={"type": "count"}, b={"type": "count"}).merge(taken.replace('"a"', '"c"'))
    with pytest.raises(ChangedError, match="the job file has 'a', a committed range has not"):
        build(a={"type": "count"}).merge("")
    with pytest.raises(ChangedError, match="a committed range has 'a', the job file has not"):
        build().merge(taken)


@pytest.mark.parametrize("damaged", ["{", "[]", '{"a":{"rows":1}}', '{"a":{"rows":1,"nulls":0,"state":{"counts":"u1:!","nan":0}}}'])
def test_a_damaged_state_is_an_error_of_the_output(damaged: str) -> None:
    with pytest.raises(OutputError, match="commit record"):
        build(a={"type": "histogram", "value": "score", "bins": 100, "range": [0, 1]}).merge(damaged)


def test_states_of_sparse_counts_stay_small() -> None:
    metrics = build(a={"type": "auroc", "score": "score", "label": "label"})
    metrics.update(ROWS)
    assert len(metrics.take_state()) < 300


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("count", "accumulators.m: must be a mapping with a `type`"),
        ({}, "accumulators.m.type: missing; one of auroc, confusion_matrix, count, cross_entropy, histogram, mean"),
        ({"type": "aurok"}, "accumulators.m.type: unknown type 'aurok'; one of auroc"),
        ({"type": 3}, "accumulators.m.type: must be one of auroc"),
        ({"type": "own:function"}, "accumulators.m.type: 'own:function' is not a subclass of antinfer.metrics.Accumulator"),
        ({"type": "own:Unfinished"}, "accumulators.m.type: 'own:Unfinished' lacks the method merge()"),
        ({"type": "own:Brier"}, "accumulators.m.columns: missing"),
        ({"type": "own:Brier", "columns": "score"}, "accumulators.m.columns: must be a list of names"),
        ({"type": "own:Brier", "columns": ["a", "a"]}, "accumulators.m.columns: names a column twice"),
        ({**OWN, "args": {"pwer": 1}}, "accumulators.m.args: does not fit Brier"),
        ({**OWN, "args": [1]}, "accumulators.m.args: must be a mapping"),
        ({**OWN, "power": 1}, "accumulators.m.power: unknown field; allowed: args, columns, type"),
        ({"type": "count", "column": "x"}, "accumulators.m.column: unknown field; allowed: type, value"),
        ({"type": "mean"}, "accumulators.m.value: missing; name an output column"),
        ({"type": "mean", "value": ["x"]}, "accumulators.m.value: must be the name of an output column"),
        ({"type": "mean", "value": "x", "ddof": 2}, "accumulators.m.ddof: must be a whole number from 0 to 1, not 2"),
        ({"type": "histogram", "value": "x"}, "accumulators.m.bins: missing"),
        ({"type": "histogram", "value": "x", "bins": 10}, "accumulators.m.range: missing"),
        ({"type": "histogram", "value": "x", "bins": [0, 1], "range": [0, 1]}, "accumulators.m.range: only goes with a number"),
        ({"type": "histogram", "value": "x", "bins": [0, 2, 1]}, "accumulators.m.bins: the edges must rise"),
        ({"type": "histogram", "value": "x", "bins": [0]}, "accumulators.m.bins: must list 2 to"),
        ({"type": "histogram", "value": "x", "bins": [0, float("nan")]}, "accumulators.m.bins: must list 2 to"),
        ({"type": "histogram", "value": "x", "bins": True, "range": [0, 1]}, "accumulators.m.bins: must be a whole number"),
        ({"type": "auroc", "score": "s"}, "accumulators.m.label: missing"),
        ({"type": "auroc", "score": "s", "label": "y", "range": [1, 0]}, "accumulators.m.range: must be [low, high] with low below high"),
        (
            {"type": "auroc", "score": "s", "label": "y", "range": [0, 1e-300]},
            "accumulators.m.range: must be [low, high] with low below high",
        ),
        ({"type": "auroc", "score": "s", "label": "y", "range": 1}, "accumulators.m.range: must be [low, high]"),
        ({"type": "auroc", "score": "s", "label": "y", "bins": 1}, "accumulators.m.bins: must be a whole number from 2"),
        ({"type": "auroc", "score": "s", "label": "y", "positive": [1]}, "accumulators.m.positive: must be text"),
        ({"type": "cross_entropy", "score": "s", "label": "y", "clip": 0}, "accumulators.m.clip: must be a number between 0 and 0.5"),
        ({"type": "cross_entropy", "score": ["s"], "label": "y"}, "accumulators.m.score: must list one column for every class"),
        (
            {"type": "cross_entropy", "score": ["s", "t"], "label": "y", "labels": [1, 2, 3]},
            "accumulators.m.labels: has 3 labels for the 2 columns",
        ),
        ({"type": "cross_entropy", "score": ["s", "t"], "label": "y", "positive": 1}, "accumulators.m.positive: only goes with"),
        ({"type": "confusion_matrix", "label": "y", "prediction": "p", "labels": ["a"]}, "accumulators.m.labels: must be a list of at"),
        (
            {"type": "confusion_matrix", "label": "y", "prediction": "p", "labels": ["a", 1]},
            "accumulators.m.labels: mixes text and numbers",
        ),
        ({"type": "confusion_matrix", "label": "y", "prediction": "p", "labels": [1, True]}, "accumulators.m.labels: names a label twice"),
        (
            {"type": "confusion_matrix", "label": "y", "prediction": "p", "labels": [1, 2], "max_labels": 3},
            "accumulators.m.max_labels: only goes without",
        ),
    ],
    ids=lambda value: value[13:45] if isinstance(value, str) else None,
)
def test_every_wrong_field_is_named_with_what_is_allowed(fields: Any, message: str) -> None:
    with pytest.raises(JobFileError) as error:
        build(m=fields)
    assert str(error.value).startswith(message)


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(JobFileError) as error:
        build(m={"type": "mean", "value": "x", "dof": 1})
    assert "'ddof'" in error.value.hint


def test_a_constructor_that_raises_is_the_users() -> None:
    class Angry(Brier):
        def __init__(self) -> None:
            raise ValueError("not today")

    with pytest.raises(UserCodeError, match="not today"):
        AccumulatorSet.from_config({"m": {"type": "a:A", "columns": ["x"]}}, lambda _: Angry)


def test_from_config_may_be_the_users_own() -> None:
    class Picky(Brier):
        @classmethod
        def from_config(cls, config: Config) -> Picky:
            picky = cls(config.integer("power", 2, low=1, high=3))
            picky.columns = (config.column("score"), "label")
            config.finish()
            return picky

    metrics = AccumulatorSet.from_config({"m": {"type": "p:P", "score": "score", "power": 1}}, lambda _: Picky)
    metrics.update(ROWS)
    assert json.loads(json.dumps(metrics.results()))["m"]["brier"] == 0.5
    with pytest.raises(JobFileError, match=r"accumulators\.m\.power: must be a whole number from 1 to 3, not 9"):
        AccumulatorSet.from_config({"m": {"type": "p:P", "score": "score", "power": 9}}, lambda _: Picky)
