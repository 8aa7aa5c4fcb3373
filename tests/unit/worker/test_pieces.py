from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.worker.pipeline import pieces
from antinfer.worker.pipeline.pieces import BadRow, Order, Piece, Root


def piece(begin: int, stop: int, positions: list[int] | None = None) -> Piece:
    at = list(range(begin, stop)) if positions is None else positions
    batch = pa.record_batch({"x": np.array(at, dtype=np.int64)}) if at else None
    return Piece(Root(0), begin, stop, batch, None if positions is None else np.array(positions, dtype=np.int64))


@given(st.permutations(range(8)))
def test_order_gives_back_the_prefix_as_soon_as_it_is_whole(arrival: list[int]) -> None:
    order, taken, here = Order(0), [], set()
    for index in arrival:
        here.add(index)
        order.add(piece(index * 10, index * 10 + 10))
        taken += order.take()
        whole = next((n for n in range(8) if n not in here), 8)
        assert order.cursor == whole * 10
        assert [found.begin for found in taken] == [n * 10 for n in range(whole)]


def test_a_piece_that_comes_twice_is_an_error() -> None:
    order = Order(0)
    order.add(piece(0, 10))
    with pytest.raises(ValueError, match="twice"):
        order.add(piece(0, 10))
    order.add(piece(20, 30))
    with pytest.raises(ValueError, match="twice"):
        order.add(piece(20, 30))


def test_cutting_a_filtered_piece_covers_what_was_dropped_once() -> None:
    first, second = piece(10, 30, [11, 14, 25]).cut(2)
    assert (first.begin, first.stop, first.rows) == (10, 25, 2)
    assert (second.begin, second.stop, second.rows) == (25, 30, 1)


@pytest.mark.parametrize(("stop", "kept"), [(30, [11, 14, 25]), (25, [11, 14]), (12, [11]), (11, [])])
def test_until_trims_rows_by_position(stop: int, kept: list[int]) -> None:
    trimmed = piece(10, 30, [11, 14, 25]).until(stop)
    assert trimmed.stop == stop and trimmed.rows == len(kept)
    assert piece(10, 30).until(stop).rows == stop - 10


def test_rows_given_up_are_left_out_by_position() -> None:
    filtered = piece(10, 30, [11, 14, 25])
    pieces.give_up(filtered, 1, BadRow("first"))
    pieces.give_up(filtered, 1, BadRow("second"))
    assert filtered.root.bad == {14: BadRow("first")}
    rest = pieces.without_bad(filtered)
    assert rest.batch is not None and rest.batch["x"].to_pylist() == [11, 25]
    assert pieces.row_positions(rest).tolist() == [11, 25]


def test_neighbours_are_taken_without_a_copy_and_repeats_are_not_neighbours() -> None:
    batch = pa.record_batch({"x": np.arange(10)})
    near = pieces.take(batch, np.array([3, 4, 5, 6, 7]))
    assert near is not None and near["x"].buffers()[1].address == batch["x"].buffers()[1].address
    few = pieces.take(batch, np.array([3, 4]))
    assert few is not None and few.to_pydict() == {"x": [3, 4]} and few.get_total_buffer_size() < batch.get_total_buffer_size()
    repeated = pieces.take(batch, np.array([0, 0, 2]))
    assert repeated is not None and repeated["x"].to_pylist() == [0, 0, 2]
    assert pieces.take(batch, np.array([], dtype=np.int64)) is None


def test_rows_of_types_that_arrow_cannot_pick_from_are_taken_too() -> None:
    names = [f"a name that is too long to be kept in the view itself: {i}" for i in range(9)]
    ends = pa.RunEndEncodedArray.from_arrays(pa.array([4, 9], pa.int32()), pa.array(["a", "b"]))
    batch = pa.record_batch({"view": pa.array(names, pa.string_view()), "ends": ends})
    rows = [0, 2, 3, 3, 8]
    taken = pieces.take(batch, np.array(rows))
    assert taken is not None and taken.schema.equals(batch.schema)
    assert taken.to_pydict() == {"view": [names[i] for i in rows], "ends": ["ab"[i >= 4] for i in rows]}
