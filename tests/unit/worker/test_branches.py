"""Branches: rows go in, results meet by identity, and mistakes are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.errors import UserCodeError
from antinfer.worker.pipeline import branches
from antinfer.worker.pipeline.pieces import Group, Meeting, Piece, Root


def piece(begin: int, **columns: Any) -> Piece:
    batch = pa.record_batch(columns)
    return Piece(Root(begin), begin, begin + batch.num_rows, batch)


def meeting_of(one: Piece) -> Meeting:
    assert isinstance(one.scope, Group) and one.scope.meeting is not None
    return one.scope.meeting


def come_home(branch: Piece, batch: pa.RecordBatch | None, rows: list[int] | None = None) -> None:
    assert isinstance(branch.scope, Group)
    branch.scope.order.add(branch.with_rows(batch, None if rows is None else np.array(rows, dtype=np.int64)))


def forked(one: Piece, count: int, when: str = "") -> list[Piece]:
    made = branches.fork(one, count, when, "stage 's'")
    assert made is not None
    return made


def test_columns_of_all_branches_stand_side_by_side() -> None:
    left, right = forked(piece(10, x=[1, 2, 3]), 2)
    come_home(left, pa.record_batch({"a": [10, 20, 30]}))
    come_home(right, pa.record_batch({"b": ["x", "y", "z"]}))
    home = branches.unite(meeting_of(left), ["l", "r"], "stage 's'")
    assert home.batch is not None and home.batch.to_pydict() == {"a": [10, 20, 30], "b": ["x", "y", "z"]}
    assert (home.begin, home.stop) == (10, 13)


@given(st.integers(1, 12), st.data())
def test_a_row_that_a_branch_drops_is_dropped(rows: int, data: st.DataObject) -> None:
    kept = [data.draw(st.lists(st.sampled_from(range(rows)), unique=True).map(sorted)) for _ in range(3)]
    made = forked(piece(5, x=list(range(rows))), 3)
    for at, (branch, some) in enumerate(zip(made, kept, strict=True)):
        come_home(branch, pa.record_batch({f"c{at}": pa.array(some, pa.int64())}) if some else None, some)
    home = branches.unite(meeting_of(made[0]), ["a", "b", "c"], "stage 's'")
    left = sorted(set.intersection(*map(set, kept)))
    assert [home.position(row) - 5 for row in range(home.rows)] == left
    assert home.batch is None or home.batch.to_pydict() == {f"c{at}": left for at in range(3)}


def test_a_column_of_two_branches_is_refused() -> None:
    left, right = forked(piece(0, x=[1]), 2)
    for branch in (left, right):
        come_home(branch, pa.record_batch({"score": [1.0]}))
    with pytest.raises(UserCodeError, match=r"'faces' and 'scene' both return a column 'score'"):
        branches.unite(meeting_of(left), ["faces", "scene"], "stage 's'")


def test_a_cascade_replaces_and_adds_where_rows_went() -> None:
    whole = piece(0, label=["cat", "dog", "owl"], go=[True, None, False])
    (went,) = forked(whole, 1, "go")
    assert went.batch is not None and went.batch.to_pydict() == {"label": ["cat"], "go": [True]}
    come_home(went, pa.record_batch({"label": ["lynx"], "score": [0.5]}))
    home = branches.merge(whole, meeting_of(went), ["big"], None, "stage 'big'")
    assert home.batch is not None
    assert home.batch.to_pydict() == {"label": ["lynx", "dog", "owl"], "go": [True, None, False], "score": [0.5, None, None]}


@pytest.mark.parametrize(
    "values",
    [
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12.0).reshape(3, 2, 2)),
        pa.array([[1], [], [2, 3]]),
        pa.array(["a", None, "c"]).cast(pa.string_view()),
        pa.array([{"a": 1}, {"a": 2}, {"a": 3}]),
        pa.array(["x", "y", "x"]).dictionary_encode(),
    ],
    ids=lambda values: str(values.type),
)
def test_columns_of_every_type_are_added_and_replaced(values: pa.Array) -> None:
    go = pa.array([True, False, True, False, True])
    whole = piece(0, go=go)
    (went,) = forked(whole, 1, "go")
    come_home(went, pa.record_batch({"new": values}))
    home = branches.merge(whole, meeting_of(went), ["s"], None, "stage 's'")
    known = values.to_pylist() if not isinstance(values, pa.ExtensionArray) else values.storage.to_pylist()
    assert home.batch is not None
    added = home.batch["new"]
    found = added.storage.to_pylist() if isinstance(added, pa.ExtensionArray) else added.to_pylist()
    assert found == [known[0], None, known[1], None, known[2]]
    assert added.type == values.type


def test_rows_of_another_type_are_refused() -> None:
    whole = piece(0, label=["cat", "dog"], go=[True, False])
    (went,) = forked(whole, 1, "go")
    come_home(went, pa.record_batch({"label": [7]}))
    with pytest.raises(UserCodeError, match=r"'label' of type int64; the rows that skip it have string"):
        branches.merge(whole, meeting_of(went), ["s"], None, "stage 's'")


def test_nobody_knows_what_a_branch_adds_before_a_row_went() -> None:
    whole = piece(0, x=[1, 2], go=[False, None])
    assert branches.fork(whole, 1, "go", "stage 's'") is None
    with pytest.raises(branches.UnknownColumnsError):
        branches.merge(whole, None, ["s"], None, "stage 's'")
    known = pa.schema([("x", pa.int64()), ("go", pa.bool_()), ("score", pa.float32())])
    home = branches.merge(whole, None, ["s"], known, "stage 's'")
    assert home.batch is not None and home.batch.schema.field("score").type == pa.float32()
    assert home.batch["score"].to_pylist() == [None, None]


def test_a_conditional_filter_drops_only_rows_that_it_saw() -> None:
    whole = piece(0, x=[1, 2, 3, 4], go=[True, False, True, False])
    (went,) = forked(whole, 1, "go")
    assert went.batch is not None
    come_home(went, went.batch.slice(1), [1])
    home = branches.drop(whole, meeting_of(went))
    assert home.batch is not None and home.batch["x"].to_pylist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("columns", "message"), [({"x": [1]}, "no column 'go'.*there are x"), ({"go": [0.5]}, "'go', which is double and not boolean")]
)
def test_a_condition_that_is_none_is_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UserCodeError, match=message):
        branches.fork(piece(0, **columns), 1, "go", "stage 's'")


def test_a_condition_without_any_value_sends_nobody() -> None:
    assert branches.fork(piece(0, go=pa.nulls(3)), 1, "go", "stage 's'") is None
