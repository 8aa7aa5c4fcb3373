"""Row ranges and sets of rows: the arithmetic under the ledger.

All ranges are half-open ``[start, stop)`` and count rows from the start of their shard.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

UNSIZED: Final = 1 << 62
"""The stop of a range in a shard whose row count is not known yet; larger than any row offset."""


class Rows(NamedTuple):
    """The half-open row range ``[start, stop)`` of one shard."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def overlaps(self, other: Rows) -> bool:
        return self.start < other.stop and other.start < self.stop


class RowSet:
    """A set of non-negative integers kept as sorted, disjoint, non-touching runs.

    Holds committed rows of one shard, and the indexes of finished shards: both grow into few runs, so the set stays small whatever
    it has swallowed.
    """

    __slots__ = ("_starts", "_stops")

    def __init__(self, runs: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in runs:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Add ``[start, stop)``. Raises ValueError when it is empty or when any of it is already in the set."""
        if start >= stop:
            raise ValueError(f"empty range [{start}, {stop})")
        at = bisect_right(self._starts, start)
        if at and self._stops[at - 1] > start:
            raise ValueError(f"[{start}, {stop}) overlaps [{self._starts[at - 1]}, {self._stops[at - 1]})")
        if at < len(self._starts) and self._starts[at] < stop:
            raise ValueError(f"[{start}, {stop}) overlaps [{self._starts[at]}, {self._stops[at]})")
        joins_left = at > 0 and self._stops[at - 1] == start
        joins_right = at < len(self._starts) and self._starts[at] == stop
        if joins_left and joins_right:
            self._stops[at - 1] = self._stops.pop(at)
            del self._starts[at]
        elif joins_left:
            self._stops[at - 1] = stop
        elif joins_right:
            self._starts[at] = start
        else:
            self._starts.insert(at, start)
            self._stops.insert(at, stop)

    def overlaps(self, start: int, stop: int) -> bool:
        """Tell whether any of ``[start, stop)`` is in the set."""
        at = bisect_left(self._stops, start + 1)
        return at < len(self._starts) and self._starts[at] < stop

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
        return self.overlaps(value, value + 1)

    def __iter__(self) -> Iterator[Rows]:
        return (Rows(start, stop) for start, stop in zip(self._starts, self._stops, strict=True))

    def __len__(self) -> int:
        return sum(self._stops) - sum(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowSet) and self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RowSet({[tuple(run) for run in self]})"
