"""Splitter and closing together, against a plain list model: whatever is filtered, spread and cut, rows come home to their parents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.worker.pipeline import closing, splitter
from antinfer.worker.pipeline.assembler import Assembled, Assembler, BatchLimits
from antinfer.worker.pipeline.pieces import BadRow, Group, Piece, Root, row_positions
from antinfer.worker.pipeline.splitter import Outcome


def piece(root: Root, begin: int, rows: int) -> Piece:
    return Piece(root, begin, begin + rows, pa.record_batch({"x": np.arange(begin, begin + rows)}))


def xs(found: Piece) -> list[Any]:
    return [] if found.batch is None else found.batch["x"].to_pylist()


def batch_of(call: Assembled) -> list[int]:
    return call.batch(lambda batch: batch)["x"].to_pylist()


def numbers(values: list[int]) -> pa.RecordBatch | None:
    return pa.record_batch({"x": np.array(values, dtype=np.int64)}) if values else None


def test_results_go_back_to_their_pieces() -> None:
    one, two = Root(0), Root(50)
    call = Assembled([piece(one, 0, 3), piece(two, 50, 2)])
    first, second = splitter.split(call, Outcome(numbers([10, 11, 12, 60, 61])), fans_out=False)
    assert (first.scope, xs(first), second.scope, xs(second)) == (one, [10, 11, 12], two, [60, 61])


def test_a_wrong_number_of_rows_is_noticed() -> None:
    with pytest.raises(ValueError, match="5 rows went in, 2 came out"):
        splitter.split(Assembled([piece(Root(0), 0, 5)]), Outcome(numbers([1, 2])), fans_out=False)


def test_bad_rows_are_given_up_in_their_own_lease() -> None:
    one, two = Root(0), Root(50)
    call = Assembled([piece(one, 0, 3), piece(two, 50, 2)])
    outcome = Outcome(numbers([0, 2, 51]), np.array([0, 2, 4]), [(1, BadRow("a")), (3, BadRow("b"))])
    first, second = splitter.split(call, outcome, fans_out=False)
    assert (one.bad, two.bad) == ({1: BadRow("a")}, {50: BadRow("b")})
    assert row_positions(first).tolist() == [0, 2] and row_positions(second).tolist() == [51]
    assert (first.begin, first.stop, second.begin, second.stop) == (0, 3, 50, 52)


def spread(call: Assembled, fan: dict[int, int]) -> Outcome:
    links = [row for row, x in enumerate(batch_of(call)) for _ in range(fan.get(x, 0))]
    children = [x * 100 + i for x in batch_of(call) for i in range(fan.get(x, 0))]
    return Outcome(numbers(children), np.array(links, dtype=np.int64))


def close_all(parts: list[Piece], *, into: str) -> list[Piece]:
    found = []
    for part in parts:
        group = part.scope
        assert isinstance(group, Group)
        group.order.add(part)
        if group.complete:
            closed = closing.gather(group, into, pa.schema([("x", pa.int64())])) if into else closing.flatten(group)
            found.append(closed)
    return found


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.dictionaries(st.integers(0, 59), st.integers(0, 4)),
    st.sets(st.integers(0, 59)),
    st.integers(1, 7),
    st.booleans(),
)
def test_children_come_home(sizes: list[int], fan: dict[int, int], kept: set[int], limit: int, gather: bool) -> None:
    root, at, inputs = Root(0), 0, Assembler(BatchLimits(limit + 3))
    for size in sizes:
        inputs.put(piece(root, at, size))
        at += size
    children: list[Piece] = []
    for call in iter(inputs.take, None):
        rows = np.array([row for row, x in enumerate(batch_of(call)) if x in kept], dtype=np.int64)
        survivors = splitter.select(call, Outcome(None, rows))
        for survivor in survivors:
            part = Assembled([survivor])
            outcome = spread(part, fan) if survivor.rows else Outcome(None)
            children += splitter.split(part, outcome, fans_out=True)

    middle = Assembler(BatchLimits(limit))
    done = [child for child in children if not child.rows]
    for child in children:
        if child.rows:
            middle.put(child)
    calls = list(iter(middle.take, None))
    for call in reversed(calls):
        done += splitter.split(call, Outcome(numbers([x + 1 for x in batch_of(call)])), fans_out=False)
    closed = sorted(close_all(done, into="c" if gather else ""), key=lambda found: found.begin)

    assert [found.begin for found in closed] == [0, *(found.stop for found in closed[:-1])] and closed[-1].stop == at
    if gather:
        lists = [value for found in closed if found.batch is not None for value in found.batch["c"].to_pylist()]
        rows = [x for x in range(at) if x in kept]
        assert lists == [[{"x": x * 100 + i + 1} for i in range(fan.get(x, 0))] for x in rows]
    else:
        assert [x for found in closed for x in xs(found)] == [x * 100 + i + 1 for x in range(at) if x in kept for i in range(fan.get(x, 0))]
        assert [p for found in closed for p in row_positions(found).tolist()] == [
            x for x in range(at) if x in kept for _ in range(fan.get(x, 0))
        ]


def test_groups_in_groups_close_from_the_inside() -> None:
    root = Root(0)
    outer = splitter.split(Assembled([piece(root, 0, 2)]), Outcome(numbers([0, 1, 10]), np.array([0, 0, 1])), fans_out=True)[0]
    inner = splitter.split(Assembled([outer]), Outcome(numbers([7, 8, 9]), np.array([0, 2, 2])), fans_out=True)[0]
    inner_group, outer_group = inner.scope, outer.scope
    assert isinstance(inner_group, Group) and isinstance(outer_group, Group)

    inner_group.order.add(inner)
    outer_group.order.add(closing.flatten(inner_group))
    home = closing.flatten(outer_group)

    assert home.scope is root and (home.begin, home.stop) == (0, 2)
    assert xs(home) == [7, 8, 9] and row_positions(home).tolist() == [0, 1, 1]


def test_a_bad_child_takes_its_parent_out_of_the_gather() -> None:
    root = Root(0)
    child = splitter.split(Assembled([piece(root, 0, 3)]), Outcome(numbers([1, 2, 3, 4]), np.array([0, 1, 1, 2])), fans_out=True)[0]
    outcome = Outcome(numbers([1, 3, 4]), np.array([0, 2, 3]), [(1, BadRow("child"))])
    (back,) = splitter.split(Assembled([child]), outcome, fans_out=False)
    (home,) = close_all([back], into="c")
    assert root.bad == {1: BadRow("child")}
    assert home.batch is not None and home.batch["c"].to_pylist() == [[{"x": 1}], [{"x": 4}]]
    assert row_positions(home).tolist() == [0, 2]


def test_a_row_that_the_flat_map_gave_up_is_no_parent() -> None:
    root = Root(0)
    outcome = Outcome(numbers([1, 3]), np.array([0, 2]), [(1, BadRow("no"))])
    (child,) = splitter.split(Assembled([piece(root, 0, 3)]), outcome, fans_out=True)
    (home,) = close_all([child], into="c")
    assert row_positions(home).tolist() == [0, 2] and home.batch is not None
    assert home.batch["c"].to_pylist() == [[{"x": 1}], [{"x": 3}]]
