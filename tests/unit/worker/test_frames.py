from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from antinfer.worker.pipeline.frames import Frames, reach
from antinfer.worker.pipeline.pieces import Group, Piece, Root


def piece(scope: Root | Group, begin: int, stop: int) -> Piece:
    return Piece(scope, begin, stop, pa.record_batch({"x": np.arange(begin, stop)}))


def cut(begin: int, stop: int, at: list[int]) -> list[tuple[int, int]]:
    borders = [begin, *sorted({one for one in at if begin < one < stop}), stop]
    return list(pairwise(borders))


@given(st.integers(1, 50), st.integers(1, 12), st.lists(st.integers(1, 49)), st.randoms(use_true_random=False))
def test_frames_are_the_same_however_rows_come_in(end: int, rows: int, at: list[int], random: object) -> None:
    root = Root(0)
    root.end = end
    pieces = [piece(root, begin, stop) for begin, stop in cut(0, end, at)]
    random.shuffle(pieces)  # type: ignore[attr-defined]
    frames = Frames(rows)
    made = sorted((one for each in pieces for one in frames.put(each)), key=lambda one: one.begin)
    assert [(one.begin, one.stop) for one in made] == [(begin, min(begin + rows, end)) for begin in range(0, end, rows)]
    assert all(one.batch is not None and one.batch["x"].to_pylist() == list(range(one.begin, one.stop)) for one in made)
    assert frames.is_empty


def test_the_last_frame_waits_until_the_end_is_known() -> None:
    frames, root = Frames(4), Root(0)
    assert [(one.begin, one.stop) for one in frames.put(piece(root, 0, 6))] == [(0, 4)]
    assert not frames.is_empty
    root.end = 6
    assert [(one.begin, one.stop) for one in frames.complete(root)] == [(4, 6)]
    assert frames.is_empty


def test_rows_that_are_gone_count_as_there() -> None:
    frames, root = Frames(4), Root(0)
    assert frames.put(Piece(root, 0, 3, None)) == []
    (whole,) = frames.put(Piece(root, 3, 4, pa.record_batch({"x": [3]})))
    assert (whole.begin, whole.stop, whole.rows, whole.position(0)) == (0, 4, 1, 3)
    (nothing,) = frames.put(Piece(root, 4, 8, None))
    assert (nothing.begin, nothing.stop, nothing.batch) == (4, 8, None)


def test_half_frames_of_dropped_leases_are_forgotten() -> None:
    frames, root = Frames(4), Root(0)
    frames.put(piece(root, 0, 2))
    root.dropped = True
    assert frames.is_empty


@given(st.integers(0, 500), st.integers(1, 300), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_what_is_read_covers_every_frame_on_the_way(start: int, size: int, sizes: list[int]) -> None:
    wanted, (low, high) = (start, start + size), reach(start, start + size, sizes)
    assert low <= wanted[0] and high >= wanted[1]
    # Rows that come out of each cut whole: only those in frames that lie inside of what came in.
    for rows in sizes:
        low, high = low + -low % rows, high - high % rows
    assert low <= wanted[0] and high >= wanted[1]
    assert reach(0, 40, [40]) == (0, 40)
