from __future__ import annotations

import os
import socket

import numpy as np
import pyarrow as pa

from antinfer.worker.predictors.wire import Channel
from antinfer.worker.shm import Slab, SlabWriter


def mapped(descriptor: int | None) -> Slab:
    assert descriptor is not None
    return Slab(descriptor, os.fstat(descriptor).st_size)


def test_batches_travel_and_slabs_grow() -> None:
    writer = SlabWriter("test")
    small = pa.record_batch({"x": np.arange(10), "s": [str(i) for i in range(10)]})
    length, fresh = writer.write(small.slice(2, 5))
    slab = mapped(fresh)
    assert slab.read(length).equals(small.slice(2, 5))

    length, fresh = writer.write(small)
    assert fresh is None and slab.read(length).equals(small)

    large = pa.record_batch({"x": np.random.default_rng(0).random(1_000_000)})
    length, fresh = writer.write(large)
    assert mapped(fresh).read(length).equals(large)


def test_dictionaries_that_no_estimate_knows_fit() -> None:
    words = pa.array(["abc" * 1_000_000, "x"] * 3).dictionary_encode()
    batch = pa.record_batch({"d": words})
    length, fresh = SlabWriter("test").write(batch)
    assert mapped(fresh).read(length).equals(batch)


def test_a_loan_that_is_held_on_to_is_noticed() -> None:
    writer = SlabWriter("test")
    length, fresh = writer.write(pa.record_batch({"x": np.arange(10)}))
    slab = mapped(fresh)
    loan = slab.lend(length)
    assert loan.batch is not None
    column = loan.batch["x"]
    assert not loan.give_back()
    del column
    assert loan.give_back()

    writer.forget()
    _, fresh = writer.write(pa.record_batch({"x": np.arange(10)}))
    mapped(fresh)


def test_descriptors_arrive_with_their_messages() -> None:
    ours, theirs = socket.socketpair()
    here, there = Channel(ours), Channel(theirs)
    before = len(os.listdir("/proc/self/fd"))
    batches = [pa.record_batch({"x": np.arange(n + 1)}) for n in range(6)]
    for n, batch in enumerate(batches):
        length, fresh = SlabWriter("test").write(batch)
        here.send({"n": n, "length": length}, fresh)
        here.send({"n": "text" * n})
    for n, batch in enumerate(batches):
        message = there.receive()
        assert message is not None and message.data["n"] == n
        assert mapped(message.descriptor).read(message.data["length"]).equals(batch)
        text = there.receive()
        assert text is not None and text.data == {"n": "text" * n} and text.descriptor is None
    assert len(os.listdir("/proc/self/fd")) == before
    here.close()
    assert there.receive() is None
    there.close()
