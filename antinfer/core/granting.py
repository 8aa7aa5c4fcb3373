"""Granting: which rows a worker that asks for work gets, and how many at a time."""

from __future__ import annotations

from collections import deque
from typing import Final

from antinfer.core.ids import LeaseId
from antinfer.core.leasing import Leasing
from antinfer.core.ledger import Lease
from antinfer.core.messages import Grant, Request
from antinfer.core.sessions import Session

_SHARES: Final = 2
"""What is left is dealt out in portions of one part in so many for every worker, so that the last ones are small (guided scheduling)."""
_MOST_AT_THE_TAIL: Final = 2
"""Leases that one worker holds at most once tasks are cut small: one to work on, one to go on with."""


class Granting:
    """Deals out what waits."""

    def __init__(self, leasing: Leasing) -> None:
        self._leasing = leasing
        self.slow: deque[LeaseId] = deque()
        """Leases that may have a second copy, the first one first."""

    def grant_up_to(self, session: Session, request: Request, at: int) -> tuple[Grant, ...]:
        """Grant as many leases as the worker wants and there are."""
        leasing, reign = self._leasing, self._leasing.reign
        leasing.hungry.pop(session.id, None)
        if at < session.rests_until:
            return ()
        granted: list[Lease] = []
        config, ledger, workers = reign.config, reign.ledger, len(reign.sessions)
        is_alone = workers <= 1
        # While there are whole shards for all a portion is no smaller than those.
        is_tail = not is_alone and session.pace.rate > 0 and ledger.untouched < _SHARES * workers + request.want
        for _ in range(leasing.hindrance.allows(min(request.want, config.max_grants), at)):
            limit, small = config.task_rows, None
            if is_tail:
                small = self._small_task(session, workers)
                if small is not None and (limit is None or small < limit):
                    limit = small
            taken = ledger.take(at, limit, session.near, session.worker, is_alone=is_alone)
            if taken is None:
                if not session.leases and (copy := self._grant_copy(session, request, at)) is not None:
                    granted.append(copy)
                break
            shard, pending = taken
            lease = Lease.of(pending, reign.new_lease_id(), session.id, shard, request.number, at)
            session.near = (shard, pending.rows.stop)
            leasing.enter(session, lease, at, "leased")
            leasing.tally.leases_retried += lease.attempt > 1
            granted.append(lease)
            if small is not None and lease.rows.size == small and len(session.leases) >= _MOST_AT_THE_TAIL:
                break
        if granted:
            leasing.hindrance.note_grant(at)
        return tuple([leasing.grant(lease) for lease in granted])

    def is_slow(self, lease: Lease, at: int) -> bool:
        """Tell whether a lease, which has no copy yet, gets on so badly that an idle worker may as well do it over."""
        reign = self._leasing.reign
        copy_after, awake = reign.config.copy_after_ms, reign.sessions.awake_since
        holder = reign.sessions.get(lease.session)
        if copy_after is None or holder is None or reign.ledger.has_copy(lease):
            return False
        if not lease.has_begun and lease.id != min(holder.leases):
            # Behind others in line it need not get on, but it should come back when it is asked for.
            return lease.asked is not None and at - max(lease.asked.at, awake) >= copy_after
        # What cannot be shared is worth a copy although it gets on, in the end.
        is_long = (lease.is_unsized or lease.rows.size == 1) and at - max(lease.granted_at, awake) >= 3 * copy_after
        return is_long or at - max(lease.moved_at, awake) >= copy_after

    def _small_task(self, session: Session, workers: int) -> int | None:
        """Return the rows of one portion near the end, for a worker of this speed; None where nothing is known to be cut."""
        reign = self._leasing.reign
        tail_ms, rate = reign.config.tail_ms, session.pace.rate
        waiting = reign.ledger.waiting_rows()
        if tail_ms is None or waiting is None:
            return None
        return max(1, int(rate * tail_ms), int(waiting * rate / (_SHARES * workers * reign.sessions.mean_rate())))

    def _grant_copy(self, session: Session, request: Request, at: int) -> Lease | None:
        """A worker with nothing at all to do runs a second copy of a lease that does not get on; the first commit wins (rule 6)."""
        leasing, reign = self._leasing, self._leasing.reign
        while self.slow:
            first = reign.ledger.leases.get(self.slow.popleft())
            if first is None or first.session == session.id or not self.is_slow(first, at):
                continue
            if first.strikes or first.losses:
                # It may kill its next worker too; and while one copy after the other is under way it is never split.
                continue
            lease = Lease.of(first, reign.new_lease_id(), session.id, first.shard, request.number, at)
            leasing.enter(session, lease, at, f"leased as a copy of {first.id}")
            leasing.tally.second_copies += 1
            return lease
        return None
