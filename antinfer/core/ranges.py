"""Row ranges and sets of rows: the arithmetic under the ledger.

All ranges are half-open ``[start, stop)`` and count rows from the start of their shard.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

UNSIZED: Final = 1 << 62
"""The stop of a range in a shard whose row count is not known yet; larger than any row offset."""
_UNSIZED_HEAD: Final = 1_024


class Rows(NamedTuple):
    """The half-open row range ``[start, stop)`` of one shard."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def overlaps(self, other: Rows) -> bool:
        return self.start < other.stop and other.start < self.stop

    def halves(self) -> tuple[Rows, Rows]:
        """Return the range in two; of one of unknown length the head is as long as all before it."""
        start, stop = self
        middle = start + max(start, _UNSIZED_HEAD) if stop == UNSIZED else (start + stop) // 2
        return Rows(start, middle), Rows(middle, stop)


class RowSet:
    """A set of non-negative integers kept as sorted, disjoint, non-touching runs.

    Holds committed rows of one shard, and the indexes of finished shards: both grow into few runs, so the set stays small whatever
    it has swallowed.
    """

    __slots__ = ("_edges",)

    def __init__(self, runs: Iterable[tuple[int, int]] = ()) -> None:
        # Start and stop of every run in turn: an odd number of edges at or below a value means that it is inside of a run.
        self._edges: list[int] = []
        for start, stop in runs:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Add ``[start, stop)``. Raises ValueError when it is empty or when any of it is already in the set."""
        if start >= stop:
            raise ValueError(f"empty range [{start}, {stop})")
        edges = self._edges
        at = bisect_right(edges, start)
        if at % 2:
            raise ValueError(f"[{start}, {stop}) overlaps [{edges[at - 1]}, {edges[at]})")
        if at < len(edges) and edges[at] < stop:
            raise ValueError(f"[{start}, {stop}) overlaps [{edges[at]}, {edges[at + 1]})")
        joins_left = at > 0 and edges[at - 1] == start
        joins_right = at < len(edges) and edges[at] == stop
        if joins_left and joins_right:
            del edges[at - 1 : at + 1]
        elif joins_left:
            edges[at - 1] = stop
        elif joins_right:
            edges[at] = start
        else:
            edges[at:at] = (start, stop)

    def overlaps(self, start: int, stop: int) -> bool:
        """Tell whether any of ``[start, stop)`` is in the set."""
        at = bisect_right(self._edges, start)
        return at % 2 == 1 or (at < len(self._edges) and self._edges[at] < stop)

    def gaps(self, start: int, stop: int) -> list[Rows]:
        """Return what of ``[start, stop)`` is not in the set, in order."""
        found: list[Rows] = []
        for run_start, run_stop in self:
            if run_stop <= start:
                continue
            if run_start >= stop:
                break
            if run_start > start:
                found.append(Rows(start, run_start))
            start = max(start, run_stop)
        if start < stop:
            found.append(Rows(start, stop))
        return found

    def __contains__(self, value: int) -> bool:
        return bisect_right(self._edges, value) % 2 == 1

    def __iter__(self) -> Iterator[Rows]:
        return map(Rows, self._edges[::2], self._edges[1::2])

    def __bool__(self) -> bool:
        return bool(self._edges)

    def __len__(self) -> int:
        return sum(self._edges[1::2]) - sum(self._edges[::2])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowSet) and self._edges == other._edges

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RowSet({[tuple(run) for run in self]})"
