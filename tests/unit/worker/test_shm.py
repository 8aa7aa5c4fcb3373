from __future__ import annotations

import os
import socket
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from antinfer.worker.layout import Layout, divide
from antinfer.worker.predictors.wire import Channel
from antinfer.worker.shm import Slab, SlabShelf, SlabWriter


def mapped(descriptor: int | None) -> Slab:
    assert descriptor is not None
    return Slab(descriptor, os.fstat(descriptor).st_size)


def test_batches_travel_and_slabs_grow() -> None:
    writer = SlabWriter("test")
    small = pa.record_batch({"x": np.arange(10), "s": [str(i) for i in range(10)]})
    layout, fresh = writer.write(divide([small.slice(2, 5)]))
    slab = mapped(fresh)
    assert slab.read(layout).equals(small.slice(2, 5))

    layout, fresh = writer.write(divide([small]))
    assert fresh is None and slab.read(layout).equals(small)

    large = pa.record_batch({"x": np.random.default_rng(0).random(1_000_000)})
    layout, fresh = writer.write(divide([large]))
    assert mapped(fresh).read(layout).equals(large)


def test_dictionaries_that_no_estimate_knows_fit() -> None:
    words = pa.array(["abc" * 1_000_000, "x"] * 3).dictionary_encode()
    batch = pa.record_batch({"d": words})
    layout, fresh = SlabWriter("test").write(divide([batch]))
    assert mapped(fresh).read(layout).equals(batch)


def test_a_loan_that_is_held_on_to_is_noticed() -> None:
    writer = SlabWriter("test")
    layout, fresh = writer.write(divide([pa.record_batch({"x": np.arange(10)})]))
    slab = mapped(fresh)
    loan = slab.lend(layout)
    assert loan.batch is not None
    column = loan.batch["x"]
    assert not loan.give_back()
    del column
    assert loan.give_back()

    writer.forget()
    _, fresh = writer.write(divide([pa.record_batch({"x": np.arange(10)})]))
    mapped(fresh)


def test_a_slab_is_written_again_only_when_its_reader_has_given_it_back() -> None:
    shelf, slabs, returned = SlabShelf("test"), {}, []
    batches = [pa.record_batch({"x": np.full(200_000, n)}) for n in range(6)]
    lent = []
    for n in range(3):
        place, layout, fresh = shelf.write(batches[n])
        slabs[place] = mapped(fresh)
        lent.append(slabs[place].lend(layout, partial(returned.append, place)).batch)
    assert [*slabs] == [0, 1, 2] and all(found is not None and found.equals(batches[n]) for n, found in enumerate(lent))

    part = lent[1].slice(7, 1)  # type: ignore[union-attr]
    lent[0] = lent[1] = None
    assert returned == [0], "one row of the other is still held"
    shelf.give_back(returned)
    assert [shelf.write(batches[3])[::2], shelf.write(batches[4])[0]] == [(0, None), 3]
    assert part["x"].to_pylist() == [1] and lent[2] is not None and lent[2].equals(batches[2])
    del part
    assert returned == [0, 1]


def test_a_shelf_has_slabs_of_the_sizes_that_are_written() -> None:
    shelf = SlabShelf("test")
    batches = [pa.record_batch({"x": np.zeros(size, np.int8)}) for size in (2 << 20, 8 << 20)]
    assert [shelf.write(batch)[0] for batch in batches] == [0, 1]
    for first, second in ((0, 1), (1, 0), (0, 1)):
        shelf.give_back([0, 1])
        assert [shelf.write(batches[at])[::2] for at in (first, second)] == [(first, None), (second, None)]
    assert 10 << 20 < shelf.size_bytes < 14 << 20


def test_a_descriptor_that_the_kernel_has_thrown_away_is_missed() -> None:
    ours, theirs = socket.socketpair()
    here, there = Channel(ours), Channel(theirs)
    here.send({"n": 1})
    ours.sendall(b'{"n":2,"slab":true}\n')
    assert there.receive() is not None
    with pytest.raises(OSError, match="Too many open files"):
        there.receive()
    here.close()
    there.close()


def test_descriptors_arrive_with_their_messages() -> None:
    ours, theirs = socket.socketpair()
    here, there = Channel(ours), Channel(theirs)
    before = len(os.listdir("/proc/self/fd"))
    batches = [pa.record_batch({"x": np.arange(n + 1)}) for n in range(6)]
    for n, batch in enumerate(batches):
        layout, fresh = SlabWriter("test").write(divide([batch]))
        here.send({"n": n, "lies": layout.to_json()}, fresh)
        here.send({"n": "text" * n})
    for n, batch in enumerate(batches):
        message = there.receive()
        assert message is not None and message.data["n"] == n
        assert mapped(message.descriptor).read(Layout.from_json(message.data["lies"])).equals(batch)
        text = there.receive()
        assert text is not None and text.data == {"n": "text" * n} and text.descriptor is None
    assert len(os.listdir("/proc/self/fd")) == before
    here.close()
    assert there.receive() is None
    there.close()
