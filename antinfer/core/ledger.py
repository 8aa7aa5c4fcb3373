"""The range ledger: at every moment the rows of the plan are partitioned into untouched, pending, leased and committed.

Every method only moves or splits ranges, so no row can be lost or doubled by construction (DESIGN section 3). Size is O(open): untouched
shards are one cursor, finished ones a run list, and only shards in between have an entry of their own.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from antinfer.core import guards
from antinfer.core.causes import Cause
from antinfer.core.ids import LeaseId, SessionId, ShardId, WorkerId
from antinfer.core.plan import PlanIndex
from antinfer.core.ranges import UNSIZED, Rows, RowSet

_ADOPTED: Final = -(1 << 40)
"""Where the queue orders of a rebuilt ledger start: at the head, in plan order, behind whatever comes back later."""

_MOST_AHEAD: Final = 10_000
"""Shards that are touched at most, out of turn, for a worker that names an old range: each of them costs an entry."""

_MOST_PASSED_OVER: Final = 16
"""Ranges at the head of the queue that are passed over at most because they had better go to another worker."""


@dataclass(slots=True)
class Pending:
    """Rows that wait for a lease."""

    rows: Rows
    attempt: int
    """How many times these rows have been leased so far."""
    strikes: int
    """How many of those leases ended because the range itself was at fault."""
    order: int
    """Place in the queue: below zero for rows that came back (the head), above for the rest of a shard that was cut."""
    not_before: int = 0
    """Time (ms) before which the rows are not leased again; 0: at once."""
    losses: int = 0
    """How many workers were lost while these rows were first in line."""
    troubles: int = 0
    """How often storage failed them."""
    stalls: int = 0
    """How often they were stuck. Not part of the durable state."""
    shunned: Shunned | None = None
    """Who had better not have them again."""


class Shunned(NamedTuple):
    """A worker that a range should be kept from: it failed there, and may do better elsewhere."""

    worker: WorkerId
    until: int
    """Time in ms."""
    until_alone: int = 0
    """The same where there is no other worker."""


class Asked(NamedTuple):
    """A lease was asked back."""

    at: int
    """Time in ms."""
    why: Cause
    workers: int = 0
    """How many idle workers are to live on what comes back."""


@dataclass(slots=True)
class Lease:
    """The right of one session to commit ``[start, stop)`` of a shard; `start` moves up with every committed prefix."""

    id: LeaseId
    session: SessionId
    shard: ShardId
    rows: Rows
    attempt: int
    strikes: int
    request: int
    """Number of the request that asked for it (0: granted with the session)."""
    granted_at: int = 0
    """Time (ms) on the present master's clock. Like everything below but the two counts, not part of the durable state."""
    losses: int = 0
    """As in `Pending`."""
    troubles: int = 0
    """As in `Pending`."""
    stalls: int = 0
    """As in `Pending`."""
    first: int = 0
    """First row when it was granted."""
    reached: int = 0
    """First row that is not known to be computed."""
    base: int = 0
    """Row that was reached at `begun_at`."""
    begun_at: int = 0
    """Last time at which nothing beyond `base` was computed, as far as this master knows."""
    moved_at: int = 0
    """Last time at which more of it was computed, or at which it was granted."""
    committed_at: int | None = None
    """Last time at which some of it was committed; None: not under this master."""
    asked: Asked | None = None
    """That its worker was asked to give it back, or some of it, and has not answered."""

    @classmethod
    def of(cls, work: Pending | Lease, lease: LeaseId, session: SessionId, shard: ShardId, request: int, at: int) -> Lease:
        """Make one more lease on the rows of `work`."""
        rows = work.rows
        start = rows[0]
        counts = work.losses, work.troubles, work.stalls
        return cls(lease, session, shard, rows, work.attempt + 1, work.strikes, request, at, *counts, start, start, start, at, at)

    def begin(self, at: int) -> None:
        """Start the clock of a lease of which this master knows nothing yet."""
        self.granted_at = self.begun_at = self.moved_at = at
        self.first = self.reached = self.base = self.rows.start

    @property
    def is_unsized(self) -> bool:
        return self.rows.stop == UNSIZED

    @property
    def has_begun(self) -> bool:
        return self.reached > self.first


@dataclass(slots=True)
class OpenShard:
    """A shard that has been touched and is not finished."""

    rows: int | None
    committed: RowSet = field(default_factory=RowSet)
    pending: dict[int, Pending] = field(default_factory=dict)
    """By first row."""
    leases: dict[LeaseId, Lease] = field(default_factory=dict)

    @property
    def stop(self) -> int:
        return UNSIZED if self.rows is None else self.rows

    def is_finished(self) -> bool:
        return not self.pending and not self.leases and self.rows is not None


class SizeConflict(Exception):
    """A shard was found to have another number of rows than before: the input changed under the job."""


class Ledger:
    """The partition of the plan's rows, and the queue of pending ranges."""

    def __init__(self, plan: PlanIndex) -> None:
        self.plan = plan
        self.cursor = 0
        """First untouched shard; every later one is untouched too."""
        self.finished = RowSet()
        """Indexes of shards below the cursor with every row committed."""
        self.open: dict[ShardId, OpenShard] = {}
        self.leases: dict[LeaseId, Lease] = {}
        self.dirty: set[ShardId] = set()
        """Shards whose document is out of date."""
        self._queue: list[tuple[int, ShardId, int]] = []
        self._resting: list[tuple[int, int, ShardId, int]] = []
        """Entries of the queue whose rows rest, by the time at which they may be leased."""
        self._waiting = 0
        self._waiting_unsized = 0
        self._counted_from = 0
        self._counted_to = 0
        self._untouched = 0
        self._untouched_unsized = 0
        self._head = 0
        self._tail = 0
        self._adopted = _ADOPTED

    # -- leasing -----------------------------------------------------------------------------------------------------------------
    def take(
        self, now: int, limit: int | None, near: tuple[ShardId, int] | None, worker: WorkerId | None = None, *, is_alone: bool = False
    ) -> tuple[ShardId, Pending] | None:
        """Remove the next rows to be leased from the queue: what came back first, then the rest of the shard that this worker is
        reading (it has the row group decoded), then an untouched shard, then the rest of another's shard.

        Args:
            now: time in ms.
            limit: most rows of one task, None for no limit.
            near: shard and row where the asking worker's last lease ended.
            worker: who asks, to be kept from ranges that shun it.
            is_alone: nobody else could take them.

        Returns:
            The rows, now owned by the caller, or None when there is nothing to lease at present.
        """
        head = self._peek(now, worker, is_alone=is_alone) if self._queue or self._resting else None
        if head is not None and head[1].order < 0:
            return self._cut(*head, limit)
        if near is not None and (shard := self.open.get(near[0])) is not None:
            rest = shard.pending.get(near[1])
            if rest is not None and rest.not_before <= now and not _shuns(rest, worker, now, is_alone=is_alone):
                return self._cut(near[0], rest, limit)
        if (touched := self._touch_next(limit)) is not None:
            return touched
        return None if head is None else self._cut(*head, limit)

    def take_exactly(self, shard_id: ShardId, rows: Rows) -> Pending | None:
        """Remove exactly `rows` from the queue if they are all pending in one piece; None when somebody touched them (rule 18).

        A ledger that was rebuilt may not have got to their shard yet.
        """
        if self.cursor <= shard_id < min(len(self.plan), self.cursor + _MOST_AHEAD):
            for index in range(self.cursor, shard_id + 1):
                self._open(ShardId(index))
            self.cursor = shard_id + 1
        shard = self.open.get(shard_id)
        if shard is None:
            return None
        rows = Rows(rows.start, min(rows.stop, shard.stop))
        for pending in shard.pending.values():
            if pending.rows.start <= rows.start < rows.stop <= pending.rows.stop:
                break
        else:
            return None
        self._dequeue(shard, pending)
        if pending.rows.start < rows.start:
            self._enqueue(shard_id, Rows(pending.rows.start, rows.start), pending, pending.order)
        if rows.stop < pending.rows.stop:
            self._enqueue(shard_id, Rows(rows.stop, pending.rows.stop), pending, pending.order)
        self.dirty.add(shard_id)
        return replace(pending, rows=rows)

    def lease(self, lease: Lease) -> None:
        """Enter a lease on rows that `take` removed, or a second copy of a lease that stands."""
        self.leases[lease.id] = lease
        self.open[lease.shard].leases[lease.id] = lease
        self.dirty.add(lease.shard)

    @property
    def untouched(self) -> int:
        """Planned shards of which no row was ever leased."""
        return len(self.plan) - self.cursor

    def has_copy(self, lease: Lease) -> bool:
        """Tell whether another lease stands on the same rows."""
        return any(other is not lease and other.rows.overlaps(lease.rows) for other in self.open[lease.shard].leases.values())

    def has_work(self, now: int) -> bool:
        return self.cursor < len(self.plan) or self._peek(now, None) is not None

    def waiting_rows(self) -> int | None:
        """Return how many rows are untouched or pending; None when some of them are in shards of unknown size. Costs O(1)."""
        if self._counted_to < len(self.plan):
            rows, unsized = self.plan.sized_rows(self._counted_to, len(self.plan))
            self._untouched += rows
            self._untouched_unsized += unsized
            self._counted_to = len(self.plan)
        if self._counted_from < self.cursor:
            rows, unsized = self.plan.sized_rows(self._counted_from, self.cursor)
            self._untouched -= rows
            self._untouched_unsized -= unsized
            self._counted_from = self.cursor
        return None if self._untouched_unsized or self._waiting_unsized else self._untouched + self._waiting

    # -- committing --------------------------------------------------------------------------------------------------------------
    def commit(self, lease: Lease, stop: int) -> list[Lease]:
        """Move the prefix ``[lease.rows.start, stop)`` to committed, and cut it from every other lease on those rows (rule 6).

        Returns:
            The other leases that shrank or ended.
        """
        shard = self.open[lease.shard]
        start = lease.rows.start
        shard.committed.add(start, stop)
        cut: list[Lease] = []
        if len(shard.leases) > 1:
            done = Rows(start, stop)
            cut = [other for other in shard.leases.values() if other is not lease and other.rows.overlaps(done)]
            for other in cut:
                self._shrink(shard, other, Rows(max(other.rows.start, stop), other.rows.stop))
        if stop < lease.rows.stop:
            lease.rows = Rows(stop, lease.rows.stop)
        else:
            self._drop(shard, lease)
        self._settle(lease.shard, shard)
        return cut

    def size(self, shard_id: ShardId, rows: int) -> list[Lease]:
        """Set the row count of a shard and clip what was open-ended.

        Returns:
            The leases that shrank or ended.

        Raises:
            SizeConflict: when the count contradicts an earlier one, or rows beyond it are committed.
        """
        shard = self.open.get(shard_id)
        if shard is None or shard.rows is not None:
            known = self.plan.rows(shard_id) if shard is None else shard.rows
            if known is not None and known != rows:
                raise SizeConflict(f"shard {shard_id} had {known} rows and now has {rows}")
            return []
        if shard.committed.overlaps(rows, UNSIZED):
            raise SizeConflict(f"shard {shard_id} has {rows} rows, but later rows of it are already committed")
        shard.rows = rows
        for start, pending in list(shard.pending.items()):
            if pending.rows.stop > rows:
                self._dequeue(shard, pending)
                if start < rows:
                    # Its place in the queue is as it was: entries name the first row alone.
                    shard.pending[start] = pending
                    pending.rows = Rows(start, rows)
                    self._count(pending.rows, 1)
        cut = [lease for lease in shard.leases.values() if lease.rows.stop > rows]
        for lease in cut:
            self._shrink(shard, lease, Rows(min(lease.rows.start, rows), rows))
        self._settle(shard_id, shard)
        return cut

    # -- giving back -------------------------------------------------------------------------------------------------------------
    def release(self, lease: Lease, *, not_before: int = 0, split: bool = False, shunned: Shunned | None = None) -> None:
        """End a lease; rows that no other lease covers become pending at the HEAD of the queue (rule 6).

        Args:
            lease: a lease that stands.
            not_before: see `Pending`.
            split: cut the rows in two, so that what is wrong with them can be cornered.
            shunned: see `Pending`.
        """
        shard = self.open[lease.shard]
        self._drop(shard, lease)
        for other in shard.leases.values():
            if other.rows.overlaps(lease.rows):
                # What is known against the rows outlives this lease, though another one stands on them.
                other.strikes, other.losses = max(other.strikes, lease.strikes), max(other.losses, lease.losses)
        model = Pending(lease.rows, lease.attempt, lease.strikes, 0, not_before, lease.losses, lease.troubles, lease.stalls, shunned)
        for rows in guards.rows_freed(lease.rows, [other.rows for other in shard.leases.values()]):
            for part in reversed(rows.halves() if split and rows.size > 1 else (rows,)):
                self._head -= 1
                self._enqueue(lease.shard, part, model, self._head)
        self._settle(lease.shard, shard)

    def give_back(self, lease: Lease, start: int, shunned: Shunned | None = None) -> bool:
        """Cut ``[start, stop)`` off a lease, to be leased by others from the HEAD of the queue; False when that cannot be.

        A range with a second copy is left whole: its leases must cover the same rows.
        """
        rest = Rows(start, lease.rows.stop)
        if not lease.rows.start < start < rest.stop or self.has_copy(lease):
            return False
        lease.rows = Rows(lease.rows.start, start)
        self._head -= 1
        self._enqueue(
            lease.shard,
            rest,
            Pending(rest, lease.attempt, lease.strikes, 0, 0, lease.losses, lease.troubles, lease.stalls, shunned),
            self._head,
        )
        self.dirty.add(lease.shard)
        return True

    # -- rebuilding --------------------------------------------------------------------------------------------------------------
    def adopt(self, shard_id: ShardId, committed: Iterable[Rows]) -> None:
        """Take over what an output proves about a shard: these rows are committed, the others pending. Shards come in rising order.

        Raises:
            ValueError: when two of the ranges overlap.
        """
        for index in range(self.cursor, shard_id):
            self._open(ShardId(index))
        self.cursor = max(self.cursor, shard_id + 1)
        shard = OpenShard(self.plan.rows(shard_id))
        for rows in committed:
            shard.committed.add(*rows)
        self.open[shard_id] = shard
        for gap in shard.committed.gaps(0, shard.stop):
            self._adopted += 1
            self._enqueue(shard_id, gap, Pending(gap, 0, 0, 0), self._adopted)
        self._head = min(self._head, _ADOPTED)
        self._settle(shard_id, shard)

    def restore(self, cursor: int, finished: RowSet, shards: Iterable[tuple[ShardId, OpenShard]]) -> None:
        """Replace the whole partition by one that was stored."""
        self.cursor, self.finished = cursor, finished
        for shard_id, shard in shards:
            self.open[shard_id] = shard
            self.leases.update(shard.leases)
            for start, pending in shard.pending.items():
                self._count(pending.rows, 1)
                self._queue.append((pending.order, shard_id, start))
                self._head = min(self._head, pending.order)
                self._tail = max(self._tail, pending.order)
        heapq.heapify(self._queue)

    @property
    def is_complete(self) -> bool:
        """True when the plan is complete and every row of it is committed."""
        return not self.open and self.plan.complete and self.cursor == len(self.plan)

    def pending(self) -> Iterator[tuple[ShardId, Pending]]:
        """All pending ranges, in no order."""
        return ((shard_id, pending) for shard_id, shard in self.open.items() for pending in shard.pending.values())

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _touch_next(self, limit: int | None) -> tuple[ShardId, Pending] | None:
        """Open the next untouched shard that has rows; its first ones never see the queue."""
        while self.cursor < len(self.plan):
            shard_id = ShardId(self.cursor)
            self.cursor += 1
            rows = self.plan.rows(shard_id)
            shard = self.open[shard_id] = OpenShard(rows)
            if rows != 0:
                self.dirty.add(shard_id)
                return shard_id, self._split(shard_id, Pending(Rows(0, shard.stop), 0, 0, 0), limit)
            self._settle(shard_id, shard)
        return None

    def _open(self, shard_id: ShardId) -> None:
        shard = self.open[shard_id] = OpenShard(self.plan.rows(shard_id))
        if shard.stop:
            self._tail += 1
            self._enqueue(shard_id, Rows(0, shard.stop), Pending(Rows(0, 0), 0, 0, 0), self._tail)
        self._settle(shard_id, shard)

    def _enqueue(self, shard_id: ShardId, rows: Rows, like: Pending, order: int) -> None:
        self.open[shard_id].pending[rows.start] = Pending(
            rows, like.attempt, like.strikes, order, like.not_before, like.losses, like.troubles, like.stalls, like.shunned
        )
        self._count(rows, 1)
        heapq.heappush(self._queue, (order, shard_id, rows.start))

    def _dequeue(self, shard: OpenShard, pending: Pending) -> None:
        """Take a range out; its entry in the queue is dropped when it is met."""
        del shard.pending[pending.rows.start]
        self._count(pending.rows, -1)

    def _count(self, rows: Rows, sign: int) -> None:
        start, stop = rows
        if stop == UNSIZED:
            self._waiting_unsized += sign
        else:
            self._waiting += sign * (stop - start)

    def _peek(self, now: int, worker: WorkerId | None, *, is_alone: bool = False) -> tuple[ShardId, Pending] | None:
        """The first range in the queue that `worker` may be given now; entries whose range is gone are dropped on the way."""
        queue, resting = self._queue, self._resting
        while resting and resting[0][0] <= now:
            heapq.heappush(queue, heapq.heappop(resting)[1:])
        passed_over: list[tuple[int, ShardId, int]] = []
        found = None
        while queue and len(passed_over) < _MOST_PASSED_OVER:
            order, shard_id, start = queue[0]
            shard = self.open.get(shard_id)
            pending = shard.pending.get(start) if shard is not None else None
            if pending is not None and pending.order == order:
                if pending.not_before > now:
                    heapq.heappush(resting, (pending.not_before, *queue[0]))
                elif _shuns(pending, worker, now, is_alone=is_alone):
                    passed_over.append(queue[0])
                else:
                    found = (shard_id, pending)
                    break
            heapq.heappop(queue)
        for entry in passed_over:
            heapq.heappush(queue, entry)
        return found

    def _cut(self, shard_id: ShardId, pending: Pending, limit: int | None) -> tuple[ShardId, Pending]:
        self._dequeue(self.open[shard_id], pending)
        self.dirty.add(shard_id)
        return shard_id, self._split(shard_id, pending, limit)

    def _split(self, shard_id: ShardId, taken: Pending, limit: int | None) -> Pending:
        """Put what is more than `limit` rows of a range back into the queue; return the rest of it."""
        start, stop = taken.rows
        if limit is None or stop - start <= limit or stop == UNSIZED:
            return taken
        self._tail += 1
        self._enqueue(shard_id, Rows(start + limit, stop), taken, taken.order if taken.order < 0 else self._tail)
        return replace(taken, rows=Rows(start, start + limit))

    def _shrink(self, shard: OpenShard, lease: Lease, rows: Rows) -> None:
        lease.rows = rows
        if rows.start >= rows.stop:
            self._drop(shard, lease)

    def _drop(self, shard: OpenShard, lease: Lease) -> None:
        del shard.leases[lease.id]
        del self.leases[lease.id]

    def _settle(self, shard_id: ShardId, shard: OpenShard) -> None:
        self.dirty.add(shard_id)
        if not shard.pending and not shard.leases and shard.rows is not None:
            del self.open[shard_id]
            self.finished.add(shard_id, shard_id + 1)


def _shuns(pending: Pending, worker: WorkerId | None, now: int, *, is_alone: bool) -> bool:
    shunned = pending.shunned
    return shunned is not None and shunned.worker == worker and now < (shunned.until_alone if is_alone else shunned.until)
