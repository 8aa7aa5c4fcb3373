"""Batches that are put together in shared memory are what Arrow would have put together."""

from __future__ import annotations

import json
import os
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.worker import layout
from antinfer.worker.layout import Layout, divide
from antinfer.worker.pipeline import arrays
from antinfer.worker.pipeline.unify import concat
from antinfer.worker.shm import Slab, SlabWriter

KINDS = (
    "numbers",
    "floats",
    "halves",
    "flags",
    "tensors",
    "matrices",
    "lists",
    "texts",
    "bytes",
    "large",
    "gaps",
    "nothing",
    "words",
    "times",
)


def column(kind: str, rows: int, seed: int) -> pa.Array:
    rng = np.random.default_rng(seed)
    texts = [chr(97 + n % 26) * (n % 5) + ("ü" if n % 7 == 0 else "") for n in range(rows)]
    match kind:
        case "numbers":
            return pa.array(rng.integers(0, 1 << 40, rows))
        case "floats":
            return pa.array(rng.random(rows, dtype=np.float32))
        case "halves":
            return arrays.from_plain(rng.random(rows).astype(np.float16))
        case "flags":
            return arrays.from_plain(rng.random(rows) < 0.5)
        case "tensors":
            return arrays.from_tensor(rng.integers(0, 255, (rows, 3, 2)).astype(np.uint8))
        case "scalars":
            storage = pa.FixedSizeListArray.from_arrays(pa.array(rng.integers(0, 9, rows)), 1)
            return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int64(), ()), storage)
        case "matrices":
            return pa.ExtensionArray.from_storage(
                pa.fixed_shape_tensor(pa.int16(), (2, 3), permutation=[1, 0]),
                pa.FixedSizeListArray.from_arrays(arrays.from_plain(rng.integers(0, 9, 6 * rows).astype(np.int16)), 6),
            )
        case "lists":
            return pa.array([[n] * (n % 3) for n in range(rows)], pa.list_(pa.int64()))
        case "texts":
            return pa.array(texts, pa.string())
        case "bytes":
            return pa.array([text.encode() for text in texts], pa.binary())
        case "large":
            return pa.array(texts, pa.large_string())
        case "gaps":
            return pa.array([None if n % 3 == 0 else n for n in range(rows)], pa.int32())
        case "nothing":
            return pa.nulls(rows)
        case "words":
            return pa.DictionaryArray.from_arrays(pa.array(np.arange(rows, dtype=np.int32) % 2), pa.array(["x", "y"]))
        case _:
            return pa.array(rng.integers(0, 1 << 40, rows), pa.timestamp("us", "UTC"))


def there_and_back(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    lies, fresh = SlabWriter("test").write(divide(parts))
    assert fresh is not None
    slab = Slab(fresh, os.fstat(fresh).st_size)
    assert lies.length <= slab.size_bytes
    lies = Layout.from_json(json.loads(json.dumps(lies.to_json())))
    lent = slab.lend(lies).batch
    assert lent is not None
    lent.validate(full=True)
    assert slab.read(lies).equals(lent)
    return lent


@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4),
)
def test_pieces_become_one_batch_whatever_their_types_and_borders(kinds: list[str], cuts: list[tuple[int, int, int]]) -> None:
    with patch.object(layout, "_LEAST_BYTES", 1):
        parts = []
        for seed, (rows, before, after) in enumerate(cuts):
            columns = [column(kind, before + rows + after, seed) for kind in kinds]
            names = [f"{kind} {at}" for at, kind in enumerate(kinds)]
            parts.append(pa.RecordBatch.from_arrays(columns, names=names).slice(before, rows))
        found = there_and_back(parts)
        assert found.schema.equals(parts[0].schema, check_metadata=True)
        assert found.equals(concat(parts))


def test_what_is_large_is_copied_once_and_the_rest_put_together_before() -> None:
    names, rows = ["id", "pixels", "gaps", "jpeg"], 900
    parts = [
        pa.RecordBatch.from_arrays(
            [
                pa.array(np.arange(seed, seed + rows)),
                arrays.from_tensor(np.full((rows, 8, 8, 3), seed, np.uint8)),
                column("gaps", rows, seed),
                pa.array([bytes([seed]) * (n % 900) for n in range(rows)], pa.binary()),
            ],
            names=names,
        )
        for seed in range(3)
    ]
    divided = divide(parts)
    assert [(loose.name, loose.kind, loose.shape) for loose in divided.columns] == [
        ("pixels", "uint8", (3 * rows, 8, 8, 3)),
        ("jpeg", "binary", (3 * rows,)),
    ]
    (pixels,) = divided.columns[0].buffers
    assert all(np.shares_memory(mine, part["pixels"].storage.values.to_numpy()) for mine, part in zip(pixels, parts, strict=True))
    assert divided.rest is not None and divided.rest.schema.names == ["id", "gaps"]
    assert there_and_back(parts).equals(concat(parts))


def test_many_small_pieces_are_left_to_arrow() -> None:
    small = [pa.record_batch({"x": np.arange(1_000) + n, "y": ["text"] * 1_000}) for n in range(100)]
    wide = [pa.record_batch({str(at): np.arange(20_000) for at in range(65)}) for _ in range(2)]
    for parts in (small, wide):
        assert divide(parts).columns == ()
        assert there_and_back(parts).equals(concat(parts))


def test_a_batch_without_columns_keeps_its_rows() -> None:
    parts = [pa.record_batch({"x": np.arange(20_000)}).select([]) for _ in range(2)]
    assert there_and_back(parts).num_rows == 40_000


def test_offsets_may_have_bytes_behind_them() -> None:
    texts = pa.array(["abcd" * 10_000] * 20)
    _, offsets, values = texts.buffers()
    odd = pa.Array.from_buffers(pa.string(), 20, [None, pa.py_buffer(bytes(offsets)[:84] + b"xyz"), values])
    parts = [pa.record_batch({"s": each}) for each in (odd, odd.slice(3, 10))]
    assert divide(parts).columns
    assert there_and_back(parts).equals(concat(parts))


def test_nothing_is_left_over_when_all_is_large() -> None:
    parts = [pa.record_batch({"x": np.arange(20_000) + n}) for n in range(2)]
    assert divide(parts).columns and divide(parts).rest is None
    assert there_and_back(parts).equals(concat(parts))


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: batch.replace_schema_metadata({"made": "by hand"}),
        lambda batch: batch.cast(pa.schema([pa.field("x", pa.int64(), metadata={"unit": "m"})])),
        lambda batch: batch.cast(pa.schema([pa.field("x", pa.int64(), nullable=False)])),
    ],
    ids=["schema", "field", "not null"],
)
def test_what_a_schema_says_beside_types_is_kept(change: Any) -> None:
    parts = [change(pa.record_batch({"x": np.arange(20_000) + n})) for n in range(2)]
    found = there_and_back(parts)
    assert found.schema.equals(parts[0].schema, check_metadata=True)
    assert found.equals(concat(parts))


def test_types_that_are_not_known_yet_are_learnt_from_the_other_pieces() -> None:
    parts = [pa.record_batch({"x": np.arange(20_000)}), pa.RecordBatch.from_arrays([pa.nulls(3)], names=["x"])]
    assert there_and_back(parts)["x"].to_pylist() == [*range(20_000), None, None, None]
