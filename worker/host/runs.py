"""Runs: what the host knows about each lease it works on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from antinfer.core.ids import LeaseId
from antinfer.core.messages import AtWork
from antinfer.core.plan import Retry, Shard
from antinfer.core.ranges import UNSIZED, Rows
from antinfer.worker.hostlink import Failed, Released, Work
from antinfer.worker.pipeline.pieces import Piece, Positions, Root

if TYPE_CHECKING:
    from antinfer.worker.host.parts import OpenPart


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows as they were read, less the columns that nobody needs at the end."""

    start: int
    stop: int
    size_bytes: int
    """Credit taken for the whole of what was read."""
    kept: pa.RecordBatch
    """Carryover columns and those kept for quarantine."""


class Run(Root):
    """One lease on its way. Guarded by the lock of `Leases`, but for what the pipeline itself puts into a `Root`."""

    def __init__(self, work: Work) -> None:
        super().__init__(work.rows.start)
        self.lease: LeaseId = work.lease
        self.shard: Shard = work.shard
        self.start = work.rows.start
        self.stop = work.rows.stop
        """`UNSIZED` until the reader has met the end of the shard."""
        self.end = work.shard.rows
        self.attempt = work.attempt
        self.quarantine = work.quarantine
        self.alone = work.alone
        self.begun = False
        """True once a reader has taken it up."""
        self.round = 0 if work.shard.retry is None else work.shard.retry.round
        self._retried = _offsets(work.shard.retry)
        self.chunks: deque[Chunk] = deque()
        self.written = work.rows.start
        """Everything before this position is in a part, closed or open."""
        self.staged = work.rows.start
        """Everything before this position is in a staged part."""
        self.part_since: float | None = None
        """When the open part was begun; None without one."""
        self.held_bytes = 0
        """Credit for what the open part holds in memory."""
        self.crowds = False
        """True while the open part is to be committed early, because it takes too much of the credit."""
        self.ending: Released | Failed | None = None
        """Last word about this lease, said when the finished prefix is staged."""
        self.part: OpenPart | None = None
        """Belongs to the writer whose turn it is."""
        self.claimed = False
        """True while a writer is at work on it, or it waits for one."""

    def retried(self, start: int, stop: int) -> Positions | None:
        """Return which rows of ``[start, stop)`` the retry round takes, None for all of them: there is no round."""
        offsets = self._retried
        return None if offsets is None else offsets[np.searchsorted(offsets, start) : np.searchsorted(offsets, stop)]

    @property
    def sized(self) -> bool:
        return self.stop != UNSIZED

    @property
    def finished(self) -> bool:
        return self.order.cursor >= self.stop


def _offsets(retry: Retry | None) -> Positions | None:
    if retry is None:
        return None
    starts, stops = np.array(retry.runs[::2], np.int64), np.array(retry.runs[1::2], np.int64)
    before = np.concatenate(([0], np.cumsum(stops - starts)))
    # Each row is as far behind the start of its run as it is behind the rows of the runs before.
    return np.arange(before[-1], dtype=np.int64) + np.repeat(starts - before[:-1], stops - starts)


def at_work(pieces: Iterable[Piece]) -> tuple[AtWork, ...]:
    """Return the leases that pieces belong to, with the rows from the first to the last of each."""
    spans: dict[Run, tuple[int, int]] = {}
    for piece in pieces:
        origin, run = piece.origin, piece.root
        if isinstance(run, Run):
            begin, stop = spans.get(run, (origin.begin, origin.stop))
            spans[run] = min(begin, origin.begin), max(stop, origin.stop)
    return tuple(AtWork(run.lease, Rows(*span)) for run, span in spans.items())
