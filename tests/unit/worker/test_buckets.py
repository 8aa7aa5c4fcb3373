from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.errors import UserCodeError
from antinfer.worker.pipeline import buckets
from antinfer.worker.pipeline.assembler import Assembled, BatchLimits
from antinfer.worker.pipeline.buckets import BucketQueue, Buckets
from antinfer.worker.pipeline.pieces import Group, Piece, Root


def piece(root: Root, begin: int, lengths: list[int]) -> Piece:
    return Piece(root, begin, begin + len(lengths), pa.record_batch({"n": np.array(lengths), "x": np.arange(begin, begin + len(lengths))}))


def lengths_of(call: Assembled) -> list[int]:
    return call.batch(lambda batch: batch)["n"].to_pylist()


def queue(rows: int, **options: Any) -> BucketQueue:
    return BucketQueue(BatchLimits(rows), Buckets("n", **options), "stage 's'")


def put(into: BucketQueue, whole: Piece) -> None:
    for part in buckets.sort(whole, into._buckets, "stage 's'"):
        into.put(part, into.measure(part))


@given(
    st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=30), min_size=1, max_size=5),
    st.integers(1, 10),
    st.none() | st.integers(1, 500),
    st.sampled_from([(), (10, 100)]),
)
def test_every_row_comes_once_in_its_bucket_and_home_in_order(
    pieces: list[list[int]], rows: int, most: int | None, edges: tuple[int, ...]
) -> None:
    waiting = queue(rows, edges=edges, max_tokens=most)
    at = 0
    for lengths in pieces:
        put(waiting, piece(Root(at), at, lengths))
        at += len(lengths)
    groups: dict[int, Group] = {}
    total = 0
    while (call := waiting.take()) is not None:
        found = lengths_of(call)
        total += len(found)
        assert len(set(waiting._buckets.of(np.array(found)).tolist())) == 1
        assert len(found) <= rows and (most is None or len(found) == 1 or len(found) * max(found) <= most)
        for part in call.parts:
            assert isinstance(part.scope, Group)
            part.scope.order.add(part)
            groups[id(part.scope)] = part.scope
    assert total == at and waiting.rows == waiting.size_bytes == 0
    homes = sorted((buckets.unsort(group) for group in groups.values() if group.complete), key=lambda home: home.begin)
    assert [value for home in homes if home.batch is not None for value in home.batch["n"].to_pylist()] == [
        length for lengths in pieces for length in lengths
    ]
    assert [home.batch["x"].to_pylist() for home in homes if home.batch is not None] == [list(range(h.begin, h.stop)) for h in homes]


def test_a_full_bucket_goes_first_and_then_the_one_with_the_oldest_row() -> None:
    waiting = queue(3, edges=[10])
    put(waiting, piece(Root(0), 0, [99]))
    put(waiting, piece(Root(10), 10, [1, 2]))
    assert not waiting.full()
    put(waiting, piece(Root(20), 20, [3, 4]))
    assert waiting.full()
    assert [lengths_of(call) for call in iter(waiting.take, None)] == [[1, 2, 3], [99], [4]]


def test_a_rare_bucket_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_PATIENCE_BATCHES", 3)
    waiting = queue(2, edges=[10])
    put(waiting, piece(Root(0), 0, [99]))
    taken = []
    for begin in range(10, 60, 10):
        put(waiting, piece(Root(begin), begin, [1, 1]))
        call = waiting.take()
        assert call is not None
        taken.append(lengths_of(call))
    assert taken == [[1, 1]] * 3 + [[99], [1, 1]]


def test_a_row_longer_than_the_budget_goes_alone() -> None:
    waiting = queue(10, edges=[1000], max_tokens=50)
    put(waiting, piece(Root(0), 0, [60, 5, 5, 70]))
    assert [lengths_of(call) for call in iter(waiting.take, None)] == [[60], [5, 5], [70]]


def test_rows_of_dropped_leases_are_thrown_away() -> None:
    waiting = queue(2)
    gone = Root(0)
    put(waiting, piece(gone, 0, [3, 3, 3]))
    gone.dropped = True
    assert waiting.take() is None and waiting.rows == waiting.size_bytes == 0


@pytest.mark.parametrize(
    ("column", "lengths"),
    [
        (pa.array([3, None, 5]), [3, 0, 5]),
        (pa.array(["ab", None, "äöü"]), [2, 0, 3]),
        (pa.array([b"ab", b"", b"c"]), [2, 0, 1]),
        (pa.array([[1, 2], None, []]), [2, 0, 0]),
        (pa.array([3, 4], pa.uint8()), [3, 4]),
        (pa.nulls(2), [0, 0]),
        (pa.array(["abc"], pa.large_string()), [3]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_lengths(column: pa.Array, lengths: list[int]) -> None:
    assert Buckets("c").lengths(pa.record_batch({"c": column}), "s").tolist() == lengths


def test_columns_without_a_length_are_refused() -> None:
    with pytest.raises(UserCodeError, match="'c', which is double"):
        Buckets("c").lengths(pa.record_batch({"c": [0.5]}), "stage 's'")
    with pytest.raises(UserCodeError, match="no column 'c' for its bucket_by; there are d"):
        Buckets("c").lengths(pa.record_batch({"d": [1]}), "stage 's'")


def test_buckets_end_at_their_edges() -> None:
    lengths = np.array([0, 1, 2, 3, 4, 5, 32, 33, 64, 65])
    assert Buckets("c", (32, 64)).of(lengths).tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 2]
    assert Buckets("c").of(lengths).tolist() == [0, 0, 1, 2, 2, 3, 5, 6, 6, 7]
