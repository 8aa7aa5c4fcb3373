from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.worker.pipeline.assembler import Assembled, Assembler, BatchLimits
from antinfer.worker.pipeline.pieces import Piece, Root


def piece(root: Root, start: int, rows: int) -> Piece:
    return Piece(root, start, start + rows, pa.record_batch({"x": np.arange(start, start + rows)}))


def values(call: Assembled) -> list[int]:
    return call.batch(lambda batch: batch)["x"].to_pylist()


@given(st.lists(st.integers(1, 40), min_size=1), st.integers(1, 25))
def test_batches_are_full_and_hold_every_row_in_order(sizes: list[int], limit: int) -> None:
    assembler = Assembler(BatchLimits(limit))
    root, at = Root(0), 0
    for size in sizes:
        assembler.put(piece(root, at, size))
        at += size
    calls = []
    while (call := assembler.take()) is not None:
        calls.append(call)

    assert [value for call in calls for value in values(call)] == list(range(at))
    assert all(call.rows == limit for call in calls[:-1])
    assert assembler.rows == assembler.size_bytes == 0
    # What the parts cover touches: no position is lost between two batches.
    parts = [part for call in calls for part in call.parts]
    assert [part.begin for part in parts] == [0, *(part.stop for part in parts[:-1])]


def test_a_batch_is_cut_across_tasks_and_knows_its_parts() -> None:
    one, two = Root(0), Root(100)
    assembler = Assembler(BatchLimits(8))
    assembler.put(piece(one, 0, 5))
    assembler.put(piece(two, 100, 5))
    assert assembler.full()

    call = assembler.take()

    assert call is not None and values(call) == [0, 1, 2, 3, 4, 100, 101, 102]
    assert [part.root for part in call.parts] == [one, two]
    assert not assembler.full() and assembler.rows == 2


def test_what_was_begun_first_is_finished_first() -> None:
    """Readers read several leases side by side; with a worker are lost the rows of all that it has begun and not finished."""
    older, newer = Root(0), Root(100)
    older.turn, newer.turn = 1, 2
    assembler = Assembler(BatchLimits(4))
    for each, start in ((older, 0), (newer, 100), (older, 2), (newer, 102), (older, 4)):
        assembler.put(piece(each, start, 2))
    first = assembler.take()
    assert first is not None and values(first) == [0, 1, 2, 3]
    assembler.put(piece(older, 6, 2))
    left = [values(call) for call in iter(assembler.take, None)]
    assert left == [[4, 5, 6, 7], [100, 101, 102, 103]]
    assert assembler.rows == assembler.size_bytes == 0


def test_one_piece_is_not_copied() -> None:
    assembler = Assembler(BatchLimits(4))
    whole = piece(Root(0), 0, 8)
    assembler.put(whole)
    call = assembler.take()
    assert call is not None and whole.batch is not None
    assert call.batch(lambda batch: batch)["x"].buffers()[1].address == whole.batch["x"].buffers()[1].address


def test_pieces_of_dropped_leases_are_thrown_away() -> None:
    gone, here = Root(0), Root(0)
    assembler = Assembler(BatchLimits(10))
    assembler.put(piece(gone, 0, 3))
    assembler.put(piece(here, 0, 2))
    gone.dropped = True
    call = assembler.take()
    assert call is not None and values(call) == [0, 1]
    assert assembler.take() is None


def test_bytes_cut_a_batch_and_a_large_row_goes_alone() -> None:
    assembler = Assembler(BatchLimits(1000, max_bytes=20))
    assembler.put(piece(Root(0), 0, 7))
    assert assembler.full()
    taken = [call.rows for call in iter(assembler.take, None)]
    assert sum(taken) == 7 and max(taken) == 2

    small = Assembler(BatchLimits(1000, max_bytes=1))
    small.put(piece(Root(0), 0, 3))
    assert [call.rows for call in iter(small.take, None)] == [1, 1, 1]


@pytest.mark.parametrize("rows", [2, 3, 9])
def test_halves_keep_order_parts_and_deaths(rows: int) -> None:
    parts = [piece(Root(0), 0, rows - 1), piece(Root(50), 50, 1)]
    first, second = Assembled(parts, deaths=2, cut_from=16).halves()
    assert values(first) + values(second) == [*range(rows - 1), 50]
    assert first.rows == rows // 2 and first.deaths == second.deaths == 2
    assert first.cut_from == second.cut_from == 16
