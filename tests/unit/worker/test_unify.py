from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from antinfer.worker import batches
from antinfer.worker.pipeline import unify

TENSOR = batches.from_result({"t": np.zeros((2, 3), np.float32)}, "f", copy=False)["t"].type


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.null(), pa.int8(), pa.int8()),
        (pa.null(), TENSOR, TENSOR),
        (pa.list_(pa.null()), pa.list_(pa.struct([("a", pa.null())])), pa.list_(pa.struct([("a", pa.null())]))),
        (
            pa.struct([("a", pa.null()), ("b", pa.int8())]),
            pa.struct([("a", pa.string()), ("b", pa.null())]),
            pa.struct([("a", pa.string()), ("b", pa.int8())]),
        ),
        (pa.int8(), pa.int16(), None),
        (pa.list_(pa.int8()), pa.list_(pa.int16()), None),
        (pa.list_(pa.null()), pa.int8(), None),
        (pa.struct([("a", pa.null())]), pa.struct([("b", pa.null())]), None),
    ],
    ids=str,
)
def test_types_take_from_each_other_what_they_do_not_know(one: Any, other: Any, both: Any) -> None:
    assert unify.common(one, other) == unify.common(other, one) == both


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, None, None], TENSOR),
        ([[], None, [None, None]], pa.list_(TENSOR)),
        ([{"a": None}, None, {"a": []}], pa.struct([("a", pa.list_(pa.struct([("x", pa.int8())])))])),
    ],
    ids=str,
)
def test_columns_without_values_keep_their_nulls_and_lengths(values: list[Any], kind: pa.DataType) -> None:
    column = pa.array([*values, *values])
    for part in (column, column.slice(1, 3), column.slice(2)):
        fitted = unify.fit(part, kind)
        fitted.validate(full=True)
        assert fitted.type == kind and fitted.to_pylist() == part.to_pylist()


def test_batches_are_put_together_whatever_they_do_not_know() -> None:
    columns: list[list[Any]] = [[None], [[]], [["a"]], [[None]]]
    some = [pa.record_batch({"x": pa.array(values), "y": [1]}) for values in columns]
    assert unify.concat(some).to_pydict() == {"x": [None, [], ["a"], [None]], "y": [1] * 4}
    assert unify.concat(some).schema.field("x").type == pa.list_(pa.string())
    assert unify.concat(some[:1]) is some[0]
    assert not unify.is_known(some[1].schema) and unify.is_known(some[2].schema)


def test_a_column_that_no_array_can_hold_is_named() -> None:
    one = pa.record_batch({"id": np.arange(64), "jpeg": [bytes(1 << 20)] * 64})
    with pytest.raises(unify.TooLargeError, match="column 'jpeg' holds more than 2 GiB in 2,112 rows") as caught:
        unify.concat([one] * 33)
    assert "batch_size" in caught.value.hint


def test_a_result_that_no_array_can_hold_is_named() -> None:
    one = pa.array([bytes(1 << 20)] * 64)
    with pytest.raises(unify.TooLargeError, match=r"^f: column 'jpeg' holds more than 2 GiB"):
        batches.from_result({"jpeg": pa.chunked_array([one] * 33)}, "f", copy=False)
    with pytest.raises(unify.TooLargeError, match="column 'jpeg'"):
        batches.from_result(pa.table({"jpeg": pa.chunked_array([one] * 33)}), "f", copy=False)
