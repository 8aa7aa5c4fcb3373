"""Ranges that are stuck on a worker that lives: asked back first, then taken away.

What tells is not how long a range takes but how long nothing of it was computed, against the time that all the rest of it should take at
the measured rate. Whenever a range was stuck it is given twice the patience the next time, so that what is merely slow is done in the end.
"""

from __future__ import annotations

from typing import Final

from antinfer.core.causes import Cause
from antinfer.core.config import DeadlinePolicy
from antinfer.core.leasing import Leasing
from antinfer.core.ledger import Asked, Lease
from antinfer.core.messages import NO_ROWS, LeaseCut, Push, Yield
from antinfer.core.paces import rate_of
from antinfer.core.sessions import Session

_MOST_DOUBLINGS: Final = 6


def patience_ms(policy: DeadlinePolicy, session: Session, lease: Lease) -> float:
    """Return how long nothing of `lease` may be computed before it counts as stuck."""
    if session.moved_at is None:
        patience: float = policy.first_ms
    else:
        rate = rate_of(lease, session.pace)
        if lease.is_unsized or not rate:
            rest: float = lease.moved_at - lease.granted_at
        else:
            rest = (lease.rows.stop - max(lease.reached, lease.rows.start)) / rate
        patience = max(policy.shortest_ms, policy.factor * rest)
    return patience * (1 << min(lease.stalls, _MOST_DOUBLINGS))


class Deadlines:
    """Looks for stuck ranges."""

    def __init__(self, leasing: Leasing) -> None:
        self._leasing = leasing
        self._next_look = 0

    def look(self, at: int) -> None:
        """Ask back what is stuck, and take away what was not given back. Costs O(leases), once in a while."""
        reign = self._leasing.reign
        if at < self._next_look:
            return
        self._next_look = at + reign.config.deadlines.looks_ms
        for session in list(reign.sessions):
            # Without anybody else to do them rows are best left where they are: processes that hang are the worker's to find.
            if session.leases and session.stream is not None and reign.sessions.has_others(session):
                self._look_at(session, at)

    def _look_at(self, session: Session, at: int) -> None:
        reign = self._leasing.reign
        policy, awake = reign.config.deadlines, reign.sessions.awake_since
        first = min(session.leases)
        for lease_id in sorted(session.leases):
            lease = reign.ledger.leases[lease_id]
            if lease.asked is not None and lease.asked.why is Cause.STUCK:
                if at - max(lease.asked.at, awake) >= policy.answer_ms:
                    self._take_away(session, lease, at)
            elif lease.has_begun or lease_id == first:
                # Behind others in line a range waits; once it is first, the time that its worker last did something counts.
                since = lease.moved_at if lease.has_begun else max(lease.moved_at, session.moved_at or 0)
                if at - max(since, awake) >= patience_ms(policy, session, lease):
                    lease.asked = Asked(at, Cause.STUCK)
                    lease.stalls += 1
                    self._leasing.count(Cause.STUCK)
                    reign.story.tell(at, "is stuck, asked back", lease, session.worker)
                    self._leasing.push(session, Push(yields=(Yield(lease.id),)))

    def _take_away(self, session: Session, lease: Lease, at: int) -> None:
        """The worker did not even give it back: its processes hang, and these rows may be why."""
        self._leasing.tally.leases_taken += 1
        self._leasing.strike(session, lease, at, "was stuck, taken away")
        self._leasing.push(session, Push(cuts=(LeaseCut(lease.id, NO_ROWS),)))
