"""What workers report as failed, and workers that are lost: which cause it was, and which budget pays (DESIGN section 7)."""

from __future__ import annotations

import re
from typing import Final

from antinfer.core.causes import Budget, Cause
from antinfer.core.ids import WorkerId
from antinfer.core.interval import CommitPace
from antinfer.core.leasing import Leasing
from antinfer.core.ledger import Lease
from antinfer.core.messages import Failure, FailureKind
from antinfer.core.sessions import Session

_USUAL: Final = {
    FailureKind.RANGE: Cause.PROCESS_CRASH,
    FailureKind.STORAGE: Cause.STORAGE,
    FailureKind.FATAL: Cause.USER_ERROR,
}
"""What a kind of failure means where the worker does not say more."""
_MOST_REMEMBERED: Final = 10_000
"""Workers and errors that are remembered at most."""


class Failures:
    """Patience with everything that fails."""

    def __init__(self, leasing: Leasing, pace: CommitPace | None) -> None:
        self._leasing = leasing
        self._pace = pace
        self._gave_up: set[WorkerId] = set()
        """Workers that gave up since anybody got on with anything."""
        self._gave_up_since = 0
        self._losses: dict[WorkerId, int] = {}
        """How often each worker was lost before it had committed anything, in a row."""
        self._starts: dict[str, _FailedStart] = {}
        """By error."""

    def note_commit(self, session: Session) -> None:
        """Work was done: whatever failed before was no proof that it cannot be."""
        self._gave_up.clear()
        self._starts.clear()
        if not session.has_committed:
            session.has_committed = session.is_ready = True
            self._losses.pop(session.worker, None)

    # -- reported ----------------------------------------------------------------------------------------------------------------
    def report(self, session: Session, failure: Failure, at: int, *, leaving: bool) -> None:
        """Deal with what a worker says has failed; `leaving`: it stops for good."""
        leasing = self._leasing
        if leasing.reign.ledger.is_complete:
            return  # nothing is left that a failure could keep from being done
        cause = failure.cause if failure.cause is not Cause.UNKNOWN else _USUAL[failure.kind]
        if failure.lease is None:
            self._report_worker(session, failure, cause, at, leaving=leaving)
            return
        lease = leasing.held(session, failure.lease)
        if lease is None:
            return  # these rows are another's by now, who will say so if they cannot be done
        leasing.count(cause)
        if failure.kind is FailureKind.FATAL:
            leasing.reign.fail(failure.error, failure.traceback)
            return
        leasing.tally.leases_failed += 1
        if failure.kind is FailureKind.RANGE:
            leasing.strike(session, lease, at, f"failed ({cause.value}: {failure.error})")
        else:
            self._rest(session, lease, failure, cause, at)

    def _rest(self, session: Session, lease: Lease, failure: Failure, cause: Cause, at: int) -> None:
        """Try again later, elsewhere."""
        config, hindrance = self._leasing.reign.config, self._leasing.hindrance
        if cause.hinders_everybody:
            hindrance.meet(failure.error, at)
            if hindrance.has_lasted(at):
                self._leasing.reign.fail(failure.error)
            else:
                self._leasing.release(session, lease, at, f"{cause.value} ({failure.error})")
            return
        # Whatever was committed meanwhile shows that storage can be reached after all.
        lease.troubles = lease.troubles + 1 if lease.rows.start == lease.first else 1
        if lease.troubles >= config.storage_attempts:
            self._leasing.reign.fail(f"{failure.error} (tried {lease.troubles} times)", failure.traceback)
            return
        not_before = at + config.storage.delay_ms(lease.troubles, lease.shard, lease.rows.start)
        self._leasing.release(session, lease, at, f"{cause.value} ({failure.error})", not_before=not_before, elsewhere=True)

    def _report_worker(self, session: Session, failure: Failure, cause: Cause, at: int, *, leaving: bool) -> None:
        """The worker as a whole cannot go on."""
        reign = self._leasing.reign
        if cause is Cause.HOPELESS and reign.meta.totals.rows_out:
            # It had not heard yet that the code works: it leaves, and is told when it comes back.
            self._leasing.count(cause)
            return
        if failure.kind is FailureKind.FATAL:
            if session.is_ready and cause is not Cause.START_ERROR:
                self._leasing.count(cause)
                reign.fail(failure.error, failure.traceback)
            else:
                self._leasing.count(Cause.START_ERROR)
                self._report_start(session, failure)
            return
        self._leasing.count(cause)
        if leaving:
            self._note_gave_up(session, at)
            if len(self._gave_up) >= reign.config.worker_failures:
                reign.fail(f"{failure.error} (the last of {len(self._gave_up)} workers that gave up while nobody got on)")

    def _note_gave_up(self, session: Session, at: int) -> None:
        others = (other for other in self._leasing.reign.sessions if other is not session)
        if any(other.moved_at is not None and other.moved_at > self._gave_up_since for other in others):
            self._gave_up.clear()
        if not self._gave_up:
            self._gave_up_since = at
        self._gave_up.add(session.worker)

    def _report_start(self, session: Session, failure: Failure) -> None:
        """The pipeline could not be set up: is it the code, or this node?"""
        reign, budget = self._leasing.reign, self._leasing.reign.config.starts
        if len(self._starts) >= _MOST_REMEMBERED:
            self._starts.clear()
        failed = self._starts.setdefault(_signature(failure.error), _FailedStart())
        failed.times += 1
        failed.workers.add(session.worker)
        others = [other for other in reign.sessions if other is not session and not other.draining]
        if any(other.is_ready for other in others):
            return  # it works there, so it is this node that is broken
        everybody = {worker for each in self._starts.values() for worker in each.workers}
        has_worked = reign.meta.totals.commits > 0
        nobody_left = not has_worked and all(other.worker in everybody for other in others)
        same_everywhere = not has_worked and len(failed.workers) >= budget.workers
        if nobody_left or same_everywhere or failed.times >= budget.tries:
            reign.fail(failure.error, failure.traceback)

    # -- found out ---------------------------------------------------------------------------------------------------------------
    def lose(self, session: Session, at: int) -> None:
        """End a session whose worker is gone without a word."""
        leasing, tally = self._leasing, self._leasing.tally
        if session.draining:
            cause = Cause.PREEMPTED
        else:
            cause = Cause.WORKER_LOST if session.stream is None else Cause.NODE_LOST
        leasing.count(cause)
        tally.workers_expired += 1
        tally.leases_expired += len(session.leases)
        if cause.budget is Budget.WORKER:
            self._note_loss(session)
        leasing.dismiss(session)
        first = min(session.leases, default=None)
        for lease_id in sorted(session.leases, reverse=True):
            lease, split = leasing.reign.ledger.leases[lease_id], False
            # A lease that has seen a commit gets on; of the others only the first in line can have done any harm.
            if cause.strikes_range and lease_id == first and lease.rows.start == lease.first:
                lease.losses, split = leasing.reign.config.ranges.lose(lease.losses, lease.rows.size)
            leasing.release(session, lease, at, cause.value, split=split)

    def pause_ms(self, worker: WorkerId) -> int:
        """Return how long a worker that joins has to wait for work."""
        return self._leasing.reign.config.workers.delay_ms(self._losses.get(worker, 0), worker)

    def _note_loss(self, session: Session) -> None:
        if self._pace is not None:
            self._pace.lost()
        if session.has_committed:
            return
        if len(self._losses) >= _MOST_REMEMBERED:
            self._losses.clear()
        self._losses[session.worker] = self._losses.get(session.worker, 0) + 1


class _FailedStart:
    """What is known about one error at start."""

    def __init__(self) -> None:
        self.times = 0
        self.workers: set[WorkerId] = set()


def _signature(error: str) -> str:
    """Return what an error has in common on all workers: not its numbers, such as process ids and addresses."""
    return re.sub(r"\d+", "0", error)
