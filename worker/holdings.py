"""The leases a worker holds, and what the stage host is told about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from antinfer.core.ids import LeaseId, ShardId, lease_of
from antinfer.core.messages import NO_ROWS, Acceptance, AtWork, CommitOutcome, Failure, Grant, HeldRange, Interruption
from antinfer.core.plan import Shard
from antinfer.core.ranges import Rows
from antinfer.worker import guards, hostlink
from antinfer.worker.leases import HeldLease
from antinfer.worker.signals import ToHost


class Holdings:
    """All leases of one worker, in the order they were granted, and the orders that follow for the host.

    A lease outlives every host: orders are given only while one is ready, and a new one gets what is left.
    """

    def __init__(self) -> None:
        self.leases: dict[LeaseId, HeldLease] = {}
        self.is_host_ready = False
        self._commit_ms = 0
        self._has_results = False
        self._renamed: dict[LeaseId, LeaseId] = {}
        self._actions: list[Any] = []

    def take_actions(self) -> list[Any]:
        """Return the orders that came up since the last call."""
        taken, self._actions = self._actions, []
        return taken

    def find(self, lease: LeaseId) -> HeldLease | None:
        """Return the lease of this id, also when the host knows it by its former id."""
        return self.leases.get(self._renamed.get(lease, lease))

    def renamed(self, told: Interruption) -> Interruption:
        """Return what the host told with the leases as the master knows them, less those that are not held any more."""
        found = ((self.find(each.lease), each.rows) for each in told.ranges)
        return replace(told, ranges=tuple(AtWork(lease.id, rows) for lease, rows in found if lease is not None))

    @property
    def computing(self) -> list[HeldLease]:
        """Leases for which the host has something to do."""
        return [lease for lease in self.leases.values() if lease.is_computing]

    # -- what the master said ----------------------------------------------------------------------------------------------------
    def take(self, grant: Grant, shard: Shard, *, is_wanted: bool) -> None:
        """Hold a granted lease; an unwanted one only until it is returned."""
        if grant.lease in self.leases:
            return
        lease = HeldLease.of(grant, shard)
        lease.is_released = not is_wanted
        self.leases[lease.id] = lease
        if is_wanted:
            self._tell(lease.work())

    def named(self) -> tuple[HeldRange, ...]:
        """Return the ranges to name when joining again."""
        return guards.held_ranges((lease.id, lease.shard.index, lease.rows) for lease in self.leases.values())

    def rejoin(self, regranted: Iterable[Grant], shards: Mapping[ShardId, Shard], *, is_wanted: bool) -> None:
        """Replace all leases by those granted again in a new session; the work on the others is lost."""
        former, self.leases = self.leases, {}
        renamed, self._renamed = self._renamed, {}
        for grant in regranted:
            old = next((lease for lease in former.values() if lease.shard.index == grant.shard and lease.rows == grant.rows), None)
            if old is None:
                self.take(grant, shards[grant.shard], is_wanted=is_wanted)
            else:
                del former[old.id]
                self._carry_over(old, grant)
        # What the host says may be under way since before the last time.
        self._renamed.update({first: self._renamed[then] for first, then in renamed.items() if then in self._renamed})
        for lease in former.values():
            self._drop(lease, is_known_to_host=lease.is_computing)

    def settle(self, outcome: CommitOutcome) -> None:
        """Apply what became of a commit."""
        lease = self.leases.get(lease_of(outcome.staged))
        if lease is None:
            return
        if outcome.acceptance is Acceptance.ACCEPTED:
            if any(record.staged == outcome.staged and record.rows_out for record in lease.staged):
                self.note_results()
            lease.accept(outcome.staged)
            self.shrink(lease, outcome.left or NO_ROWS)
        elif guards.is_sent_again(outcome.acceptance):
            if lease.staged and lease.staged[0].staged == outcome.staged:
                # Nothing earlier of this lease is left to be sent: master and worker disagree, so the rows go back.
                self._give_back(lease)
        else:
            self._refuse(lease, outcome)

    def shrink(self, lease: HeldLease, rows: Rows) -> None:
        """Keep only what is also in `rows`, and make the host do the same."""
        was_computing, stop, frontier = lease.is_computing, lease.rows.stop, lease.frontier
        self._let_go(lease.shrink(rows))
        if lease.is_empty:
            self._drop(lease, is_known_to_host=was_computing)
        elif lease.frontier < frontier:
            self._restart(lease)
        elif lease.rows.stop < stop or lease.frontier > frontier:
            self._tell(hostlink.Cut(lease.id, Rows(lease.frontier, lease.rows.stop)))

    def ask_back(self, lease: HeldLease, keep: int | None = None) -> None:
        """Have the host stage what is finished and let go of the rest; with `keep`, go on with the rows before that one."""
        if not lease.is_computing or lease.is_asked_back:
            return
        if keep is not None:
            if self.is_host_ready:
                self._tell(hostlink.YieldRest(lease.id, keep))
            else:
                lease.keep_to(keep)
            return
        lease.is_asked_back = True
        if self.is_host_ready:
            self._tell(hostlink.YieldRest(lease.id))
        else:
            lease.is_released = True

    def commit_every(self, ms: int) -> None:
        """Take in how often finished prefixes should be committed."""
        if ms and ms != self._commit_ms:
            self._commit_ms = ms
            self._tell(hostlink.CommitEvery(ms))

    def note_results(self) -> None:
        """Take in that rows have come out of the job: no host of ours may take its code for hopeless any more."""
        if not self._has_results:
            self._has_results = True
            self._tell(hostlink.HasResults())

    def release_all(self) -> None:
        """Count on the host no more: whatever is not staged goes back."""
        for lease in self.leases.values():
            lease.is_released = True

    def close(self, ended: set[LeaseId]) -> None:
        """Stop holding the leases that an answered request ended, and those that have nothing left."""
        for lease in list(self.leases.values()):
            if lease.id in ended or lease.is_over:
                del self.leases[lease.id]

    def drop_all(self) -> None:
        """Forget every lease, and make the host forget them."""
        for lease in list(self.leases.values()):
            self._drop(lease, is_known_to_host=lease.is_computing)

    # -- what the host said ------------------------------------------------------------------------------------------------------
    def on_ready(self) -> None:
        self.is_host_ready = True
        if self._has_results:
            self._tell(hostlink.HasResults())
        if self._commit_ms:
            self._tell(hostlink.CommitEvery(self._commit_ms))
        for lease in self.computing:
            self._tell(lease.work())

    def on_host_lost(self) -> HeldLease | None:
        """Note that the host is gone; return the lease that was first in line, when there was any and the host could work on it."""
        was_ready, self.is_host_ready = self.is_host_ready, False
        for lease in self.leases.values():
            lease.is_released = lease.is_released or lease.is_asked_back
        return next(iter(self.computing), None) if was_ready else None

    def on_sized(self, message: hostlink.Sized) -> None:
        lease = self.find(message.lease)
        if lease is not None:
            lease.sized = message.rows
            lease.is_sizing_told = False
            self._let_go(lease.shrink(Rows(0, message.rows)))

    def on_staged(self, message: hostlink.Staged) -> bool:
        """Queue the commit of what was staged; False when it cannot be committed."""
        lease, record = self.find(message.lease), message.record
        if lease is not None and lease_of(record.staged) == lease.id and record.start == lease.frontier and record.stop <= lease.rows.stop:
            lease.staged.append(record)
            return True
        self._let_go((record,))
        if lease is not None and record.stop > lease.frontier:
            # It was under way when the lease was cut or renamed: these rows must be computed again, and nothing after them fits.
            self._restart(lease)
        return False

    def on_kept(self, message: hostlink.Kept) -> None:
        lease = self.find(message.lease)
        if lease is not None:
            lease.keep_to(message.stop)

    def on_progress(self, message: hostlink.Progress) -> None:
        for lease_id, row in message.reached:
            lease = self.find(lease_id)
            if lease is not None:
                lease.reached = row

    def on_released(self, message: hostlink.Released) -> None:
        lease = self.find(message.lease)
        if lease is not None:
            lease.is_released = True

    def on_failed(self, message: hostlink.Failed, lease_id: LeaseId) -> None:
        lease = self.find(lease_id)
        if lease is not None:
            lease.failure = Failure(lease.id, message.kind, message.error, message.traceback, message.cause)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _tell(self, message: hostlink.ToHost) -> None:
        if self.is_host_ready:
            self._actions.append(ToHost(message))

    def _let_go(self, records: Iterable[Any]) -> None:
        self._actions.extend(guards.about_lost_objects(records))

    def _carry_over(self, lease: HeldLease, grant: Grant) -> None:
        """Keep the work on a range that was granted again; what was staged under the old lease cannot be committed (rule 13)."""
        old, lost, was_computing = lease.id, lease.staged, lease.is_computing
        lease.move_to(grant)
        self.leases[lease.id] = lease
        self._renamed[old] = lease.id
        self._let_go(lost)
        if not lost:
            if was_computing:
                self._tell(hostlink.Regrant(old, lease.id, lease.attempt))
            return
        if was_computing:
            self._tell(hostlink.Cut(old, NO_ROWS))
        if lease.is_asked_back:
            lease.is_released = True
        elif lease.is_computing:
            self._tell(lease.work())

    def _restart(self, lease: HeldLease) -> None:
        """Have the host compute again from the first row that is not staged; a lease that was asked back is let go instead."""
        self._tell(hostlink.Cut(lease.id, NO_ROWS))
        if lease.is_asked_back:
            lease.is_released = True
        elif lease.is_computing:
            self._tell(lease.work())

    def _refuse(self, lease: HeldLease, outcome: CommitOutcome) -> None:
        was_computing, left = lease.is_computing, outcome.left or NO_ROWS
        lost = lease.reject(outcome.staged)
        if not lost:
            self.shrink(lease, left)
            return
        self._let_go(lost + lease.shrink(left))
        if lease.rows.start >= lease.rows.stop:
            self._drop(lease, is_known_to_host=was_computing)
        else:
            self._restart(lease)

    def _give_back(self, lease: HeldLease) -> None:
        self._let_go(lease.reject(lease.staged[0].staged))
        lease.is_released = True
        self._tell(hostlink.Cut(lease.id, NO_ROWS))

    def _drop(self, lease: HeldLease, *, is_known_to_host: bool) -> None:
        self.leases.pop(lease.id, None)
        self._let_go(lease.staged)
        if is_known_to_host:
            self._tell(hostlink.Cut(lease.id, NO_ROWS))
