from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from antinfer.errors import UserCodeError
from antinfer.worker import batches
from antinfer.worker.schemas import SchemaGate


def test_the_first_batch_sets_the_schema_and_order_does_not_matter() -> None:
    gate = SchemaGate("predict 'p'")
    gate.fit(pa.record_batch({"a": [1], "b": ["x"]}))
    again = gate.fit(pa.record_batch({"b": ["y"], "a": [2]}))
    assert again.schema.names == ["a", "b"]


def test_columns_without_values_take_the_frozen_type() -> None:
    gate = SchemaGate("predict 'p'")
    gate.fit(pa.record_batch({"a": ["x"], "l": [[{"k": 1}]]}))
    again = gate.fit(pa.record_batch({"a": pa.nulls(3), "l": pa.array([[], None, []], pa.list_(pa.null()))}))
    assert again.schema == gate.schema
    assert again.to_pydict() == {"a": [None] * 3, "l": [[], None, []]}


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (pa.record_batch({"a": [1.0]}), ["'a'", "double", "int64"]),
        (pa.record_batch({"b": [1]}), ["new columns b"]),
        (pa.record_batch({"a": [1], "c": [1]}), ["new columns c"]),
    ],
)
def test_another_schema_is_the_users_fault(batch: pa.RecordBatch, words: list[str]) -> None:
    gate = SchemaGate("predict 'p'")
    gate.fit(pa.record_batch({"a": [1]}))
    with pytest.raises(UserCodeError) as caught:
        gate.fit(batch)
    for word in ["predict 'p'", *words]:
        assert word in str(caught.value)


def test_a_type_that_is_not_known_at_first_is_learnt() -> None:
    gate = SchemaGate("predict 'p'")
    unknown = pa.record_batch({"a": [None, None], "b": pa.array([[], []])})
    assert gate.fit(unknown).schema == unknown.schema
    known = pa.record_batch({"a": ["x"], "b": pa.array([[1]])})
    assert gate.fit(known).equals(known)
    again = gate.fit(unknown)
    assert again.schema == known.schema and again.to_pydict() == unknown.to_pydict()
    with pytest.raises(UserCodeError, match="'a' is int64 in one batch and string in another"):
        gate.fit(pa.record_batch({"a": [1], "b": pa.array([[1]])}))


def test_arrays_of_different_lengths_may_be_of_one_length_in_a_batch() -> None:
    ragged = batches.from_result({"x": [np.arange(2), np.arange(3)]}, "f", copy=False)
    even = batches.from_result({"x": [np.arange(2), np.arange(2)]}, "f", copy=False)
    gate = SchemaGate("predict 'p'")
    gate.fit(ragged)
    fitted = gate.fit(even)
    assert fitted.schema == ragged.schema and fitted.to_pydict() == {"x": [[0, 1], [0, 1]]}
    gate = SchemaGate("the output", widens=False)
    gate.fit(even)
    with pytest.raises(UserCodeError, match="'x'") as raised:
        gate.fit(ragged)
    assert "dtype=object" in raised.value.hint
