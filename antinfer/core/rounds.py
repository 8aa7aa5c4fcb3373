"""Retry rounds: reigns over a finished output whose plan of work is exactly the rows in quarantine.

A round is opened once, durably, with the rows that were in quarantine then, and is the last one until all of them were tried again. A
record of round r covers a range of a shard but speaks only of the rows of the round that lie in it: it supersedes what earlier records say
of them. So the rows of a round are partitioned as those of a plan are, and all that holds for ranges holds here (DESIGN section 3).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from antinfer.core.ids import ShardId
from antinfer.core.ledger import Ledger, OpenShard, Pending
from antinfer.core.plan import Retry, Shard
from antinfer.core.ranges import Rows, RowSet
from antinfer.core.records import CommitRecord

GAP: Final = 4_096
"""Rows that are read over between two rows of a round, rather than leased as ranges of their own: parts stay few, and batches full."""


class RetriedShard:
    """The rows of one shard that a round takes out of quarantine."""

    __slots__ = ("_before", "_starts", "_stops", "rows")

    def __init__(self, rows: int, runs: Iterable[Rows]) -> None:
        """
        Args:
            rows: row count of the whole shard.
            runs: the rows of the round: rising, and without any that touch.

        Raises:
            ValueError: The runs are not in order, or go beyond the shard.
        """
        self.rows = rows
        listed = list(runs)
        self._starts = [start for start, _ in listed]
        self._stops = [stop for _, stop in listed]
        edges = [edge for run in listed for edge in run]
        if edges != sorted(set(edges)) or (edges and not 0 <= edges[0] < edges[-1] <= rows):
            raise ValueError(f"the runs {listed[:3]}... are not in order inside of {rows} rows")
        self._before = [0, *accumulate(stop - start for start, stop in listed)]

    def __len__(self) -> int:
        return self._before[-1]

    def __iter__(self) -> Iterator[Rows]:
        return map(Rows, self._starts, self._stops)

    def count(self, rows: Rows) -> int:
        """Return how many rows of the round lie in `rows`."""
        return self._below(rows.stop) - self._below(rows.start)

    def ranges(self) -> Iterator[Rows]:
        """Return what to lease: runs with less than `GAP` rows between them as one range. Begins and ends with rows of the round."""
        start = 0
        for at, stop in enumerate(self._stops, 1):
            if at == len(self._stops) or self._starts[at] - stop >= GAP:
                yield Rows(self._starts[start], stop)
                start = at

    def _below(self, offset: int) -> int:
        at = bisect_right(self._starts, offset)
        return self._before[at] - (max(0, self._stops[at - 1] - offset) if at else 0)


class Round:
    """One retry round: its number, and its rows by shard."""

    def __init__(self, number: int, shards: Mapping[ShardId, RetriedShard]) -> None:
        self.number = number
        self.shards = dict(sorted((shard_id, shard) for shard_id, shard in shards.items() if len(shard)))

    @property
    def rows(self) -> int:
        """Rows of the round in all."""
        return sum(map(len, self.shards.values()))

    def takes(self, record: CommitRecord) -> bool:
        """Tell whether `record` is one of this round, and about all of its rows in the range."""
        shard = self.shards.get(ShardId(record.shard))
        if shard is None or record.round != self.number or not 0 <= record.start < record.stop <= shard.rows:
            return False
        return record.rows_retried == shard.count(record.rows)

    def hand_out(self, shard: Shard) -> Retry:
        """Return what a worker has to know beside `shard` of the plan to do a range of it in this round."""
        return Retry(self.number, tuple(edge for run in self.shards[shard.index] for edge in run))

    def begin(self, ledger: Ledger, done: Iterable[CommitRecord]) -> None:
        """Let `ledger`, whose plan is complete, hold every row as committed but those of the round that are not in `done`.

        Raises:
            ValueError: Records of `done` are not of this round, or two of them cover the same rows.
        """
        committed: dict[ShardId, RowSet] = {}
        for record in sorted(done, key=lambda record: (record.shard, record.start)):
            if not self.takes(record):
                raise ValueError(f"rows [{record.start}, {record.stop}) are not what round {self.number} takes")
            committed.setdefault(ShardId(record.shard), RowSet()).add(record.start, record.stop)
        opened: dict[ShardId, OpenShard] = {}
        order = 0
        for shard_id, shard in self.shards.items():
            settled = committed.get(shard_id, RowSet())
            left = [gap for rows in shard.ranges() for gap in settled.gaps(*rows) if shard.count(gap)]
            if left:
                opened[shard_id] = _open(shard.rows, left, order)
                order += len(left)
        finished = _all_but(len(ledger.plan), list(opened))
        ledger.restore(len(ledger.plan), finished, opened.items())
        ledger.dirty.update(opened)


def _open(rows: int, left: Sequence[Rows], order: int) -> OpenShard:
    shard = OpenShard(rows, RowSet(RowSet(left).gaps(0, rows)))
    shard.pending = {each.start: Pending(each, 0, 0, order + at) for at, each in enumerate(left, 1)}
    return shard


def _all_but(shards: int, opened: Sequence[ShardId]) -> RowSet:
    return RowSet(RowSet((shard, shard + 1) for shard in opened).gaps(0, shards))
