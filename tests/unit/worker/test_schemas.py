from __future__ import annotations

import pyarrow as pa
import pytest

from antinfer.errors import UserCodeError
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
