"""The tail: when nothing is left to lease, idle workers live on what others give back, and at last on second copies.

A worker gives back what it has not begun, or, when it will be busy for long, all but its share of a range it is at. What neither gets on
nor comes back is leased a second time, and the first commit wins (rule 6).
"""

from __future__ import annotations

from collections import deque

from antinfer.core.causes import Cause
from antinfer.core.granting import Granting
from antinfer.core.leasing import Leasing
from antinfer.core.ledger import Asked, Lease
from antinfer.core.messages import Push, Yield
from antinfer.core.paces import rest_ms
from antinfer.core.sessions import Session


class Tail:
    """Shares out the last rows."""

    def __init__(self, leasing: Leasing, granting: Granting) -> None:
        self._leasing = leasing
        self._granting = granting

    def balance(self, at: int) -> None:
        """Find something for those who asked in vain. Costs O(open) while there are any, else nothing."""
        leasing, reign = self._leasing, self._leasing.reign
        if not leasing.hungry or leasing.hindrance.since is not None:
            return
        if reign.ledger.has_work(at):
            leasing.nudge(len(leasing.hungry))
            return
        hungry = (reign.sessions.get(session_id) for session_id in leasing.hungry)
        starving = sum(session is not None and not session.leases for session in hungry)
        if not starving:
            return
        self._ask_back(starving, at)
        self._granting.slow = deque(lease.id for lease in self._find_slow(at))
        leasing.nudge(len(self._granting.slow))

    def _ask_back(self, starving: int, at: int) -> None:
        """Ask for as much as feeds those who have nothing and are not about to get something."""
        reign = self._leasing.reign
        copy_after, tail_ms = reign.config.copy_after_ms, reign.config.tail_ms
        spare: list[tuple[Session, Lease]] = []
        long: list[tuple[float, Session, Lease]] = []
        for session in reign.sessions:
            if session.stream is None or not session.leases:
                continue
            first = min(session.leases)
            wait_ms = 0.0
            for lease_id in sorted(session.leases):
                lease = reign.ledger.leases[lease_id]
                if lease.asked is not None:
                    if copy_after is None or at - lease.asked.at < copy_after:
                        starving -= lease.asked.workers
                    elif lease.moved_at > lease.asked.at:
                        lease.asked = None  # it lives, so it has not heard us
                elif lease_id != first and not lease.has_begun and not (session.pace.rate and tail_ms and wait_ms < tail_ms):
                    spare.append((session, lease))
                elif tail_ms is not None and not lease.is_unsized and not reign.ledger.has_copy(lease):
                    rest = rest_ms(lease, session.pace, at)
                    wait_ms += rest
                    if rest >= 2 * tail_ms and lease.rows.stop - max(lease.reached, lease.rows.start) > 1:
                        long.append((rest, session, lease))
        spare.sort(key=lambda each: each[1].id, reverse=True)
        for session, lease in spare[: max(0, starving)]:
            self._ask(session, lease, at, None, 1)
            starving -= 1
        long.sort(key=lambda each: (-each[0], each[2].id))
        for rest, session, lease in long:
            if starving <= 0 or tail_ms is None:
                return
            shares = max(1, min(starving, int(rest / tail_ms) - 1))
            reached = max(lease.reached, lease.rows.start)
            self._ask(session, lease, at, reached + -(-(lease.rows.stop - reached) // (shares + 1)), shares)
            starving -= shares

    def _ask(self, session: Session, lease: Lease, at: int, keep: int | None, workers: int) -> None:
        lease.asked = Asked(at, Cause.YIELDED, workers)
        self._leasing.push(session, Push(yields=(Yield(lease.id, keep),)))

    def _find_slow(self, at: int) -> list[Lease]:
        """Return the leases that an idle worker may as well do over, the one that has been quiet for longest first."""
        slow = [lease for lease in self._leasing.reign.ledger.leases.values() if self._granting.is_slow(lease, at)]
        slow.sort(key=lambda lease: (lease.moved_at, lease.id))
        return slow
