"""Generators of user code that never end must not take all memory, nor hang the worker."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from antinfer.errors import UserCodeError
from antinfer.worker import calls
from antinfer.worker.calls import Caller
from antinfer.worker.pipeline.stagecalls import StageCall


def too_many(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for _ in itertools.count():
        yield {"y": batch["x"]}


def nothing_for_ever(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for _ in itertools.count():
        yield {"y": batch["x"][:0]}


def no_end_of_children(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for child in itertools.count():
        yield {"c": child}


def one_without_an_end(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from ({"c": child} for child in (itertools.count() if row["x"] == 2 else range(5)))


def caller(function: Any, kind: str) -> Caller:
    return Caller(StageCall("s", kind, f"{__name__}:{function.__name__}", ""), copy=True)


BATCH = pa.record_batch({"x": np.arange(4)})


@pytest.mark.parametrize(("function", "words"), [(too_many, "4 rows and yielded 8"), (nothing_for_ever, "batch after batch")])
def test_a_batch_function_that_goes_on_yielding_is_stopped(function: Any, words: str) -> None:
    with pytest.raises(UserCodeError, match=words):
        caller(function, "map_batches").run(BATCH)


def test_a_row_without_an_end_of_children_is_a_bad_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_MOST_CHILDREN", 5)
    outcome = caller(one_without_an_end, "flat_map").run(BATCH)
    assert outcome.rows is not None and outcome.rows.tolist() == [0] * 5 + [1] * 5 + [3] * 5
    assert outcome.bad is not None and [row for row, _ in outcome.bad] == [2]
    assert "made more than 5 rows of one: does its generator end?" in outcome.bad[0][1].error


def test_code_whose_children_never_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_MOST_CHILDREN", 5)
    with pytest.raises(UserCodeError, match=r"fails on every row so far: .* more than 5 rows of one"):
        caller(no_end_of_children, "flat_map").run(pa.record_batch({"x": np.arange(40)}))
