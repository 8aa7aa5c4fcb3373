from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.core.ranges import UNSIZED, Rows, RowSet


def test_touching_runs_merge_from_both_sides():
    rows = RowSet([(0, 3), (6, 9)])
    rows.add(3, 6)
    assert list(rows) == [Rows(0, 9)]
    assert len(rows) == 9


@pytest.mark.parametrize(
    ("start", "stop"), [(2, 4), (0, 1), (4, 6), (0, 9), (3, 5)], ids=["over the start", "inside", "over the stop", "around", "same"]
)
def test_a_row_cannot_be_added_twice(start, stop):
    rows = RowSet([(0, 1), (3, 5)])
    with pytest.raises(ValueError, match="overlaps"):
        rows.add(start, stop)
    assert list(rows) == [Rows(0, 1), Rows(3, 5)]


def test_empty_range_is_refused():
    with pytest.raises(ValueError, match="empty"):
        RowSet().add(4, 4)


def test_gaps_reach_to_an_open_end():
    assert RowSet([(0, 2), (5, 6)]).gaps(0, UNSIZED) == [Rows(2, 5), Rows(6, UNSIZED)]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), max_size=20), st.integers(0, 50), st.integers(0, 10))
def test_agrees_with_a_plain_set_of_integers(wanted, start, length):
    rows, plain = RowSet(), set()
    for first, size in wanted:
        run = set(range(first, first + size))
        if run & plain:
            assert rows.overlaps(first, first + size)
            continue
        assert not rows.overlaps(first, first + size)
        rows.add(first, first + size)
        plain |= run
    assert {row for run in rows for row in range(*run)} == plain
    assert len(rows) == len(plain)
    runs = list(rows)
    assert all(left.stop < right.start for left, right in itertools.pairwise(runs))
    gaps = {row for gap in rows.gaps(start, start + length) for row in range(*gap)}
    assert gaps == set(range(start, start + length)) - plain
    assert RowSet(runs) == rows


def test_halves_of_a_range_and_of_one_without_a_known_end():
    assert Rows(3, 8).halves() == (Rows(3, 5), Rows(5, 8))
    rest, heads = Rows(0, UNSIZED), []
    while len(heads) < 5:
        head, rest = rest.halves()
        heads.append(head)
    assert [head.size for head in heads] == [1_024, 1_024, 2_048, 4_096, 8_192], "a shard of any length is reached in a few steps"
    assert rest == Rows(16_384, UNSIZED)
