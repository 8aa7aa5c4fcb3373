"""What batches take that are held in memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from antinfer.storage.held import HeldBatches, apart


def test_batches_count_until_they_are_taken() -> None:
    held = HeldBatches()
    batches = [pa.record_batch({"x": np.arange(n)}) for n in (10, 20)]
    for batch in batches:
        held.add(batch)
    assert held and held.size_bytes == 8 * 30
    assert held.take() == batches
    assert not held and held.size_bytes == 0


def test_a_dictionary_that_batches_share_counts_once() -> None:
    """Of 1,000 strings of 1,000 bytes; each row has an index of four bytes."""
    words = pa.DictionaryArray.from_arrays(np.arange(1000, dtype=np.int32), [f"{n:01000d}" for n in range(1000)])
    source = pa.record_batch({"word": words})
    held = HeldBatches()
    for at in range(0, 1000, 10):
        held.add(source.slice(at, 10))
    assert 1_000_000 <= held.size_bytes <= 1_000_000 + 1000 * (4 + 8) + 100
    held.take()
    held.add(source.slice(0, 10))
    assert held.size_bytes >= 1_000_000, "it is held anew"


def test_some_columns_do_not_keep_the_memory_of_all() -> None:
    """All columns of a batch from an Arrow file lie in one buffer."""
    written = pa.BufferOutputStream()
    made = pa.record_batch({"id": np.arange(1000), "image": [bytes(10_000)] * 1000})
    with pa.ipc.new_stream(written, made.schema) as writer:
        writer.write_batch(made)
    path = written.getvalue()
    del written, made
    before = pa.total_allocated_bytes()
    (source,) = pa.ipc.open_stream(pa.py_buffer(path.to_pybytes()))
    some = apart(source.select(["id"]), source)
    assert some["id"].to_pylist() == list(range(1000))
    assert some["id"].buffers()[1].address != source["id"].buffers()[1].address
    most = apart(source.select(["image"]), source)
    assert most["image"].buffers()[2].address == source["image"].buffers()[2].address, "copying it would take as much again"
    assert pa.total_allocated_bytes() - before < 100_000
