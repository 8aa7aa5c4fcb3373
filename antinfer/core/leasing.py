"""What can happen to leases and sessions, one operation each, and who is told: the ground that the rules about workers stand on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from antinfer.core import commands
from antinfer.core.causes import Cause
from antinfer.core.config import EngineConfig
from antinfer.core.documents import Meta
from antinfer.core.events import StreamId
from antinfer.core.hindrance import Hindrance
from antinfer.core.ids import LeaseId, SessionId
from antinfer.core.ledger import Lease, Ledger, Shunned
from antinfer.core.messages import NO_ROWS, Downward, Grant, LeaseCut, Push, Verdict
from antinfer.core.paces import advance
from antinfer.core.publications import Publications
from antinfer.core.records import CommitRecord
from antinfer.core.sessions import Session, Sessions
from antinfer.core.story import Story
from antinfer.core.tally import Tally


class Reign(Protocol):
    """What the parts that deal with workers need of the engine that they belong to."""

    config: EngineConfig
    epoch: int
    ledger: Ledger
    sessions: Sessions
    publications: Publications
    meta: Meta
    story: Story
    out: list[commands.Command]
    failure: str
    is_rebuilt: bool

    @property
    def is_ruling(self) -> bool: ...
    def is_of_round(self, record: CommitRecord) -> bool: ...
    def new_lease_id(self) -> LeaseId: ...
    def accept(self, record: CommitRecord, lease: Lease, at: int, who: str) -> list[Lease]: ...
    def fail(self, reason: str, traceback: str = "") -> None: ...
    def settle(self, at: int) -> None: ...


class Leasing:
    """Leases and the sessions that hold them."""

    def __init__(self, reign: Reign) -> None:
        self.reign = reign
        self.dirty: set[SessionId] = set()
        """Sessions whose document is out of date."""
        self.counters_dirty = False
        """A counter in the meta document moved though no other document did."""
        self.hungry: dict[SessionId, None] = {}
        """Sessions that asked for more than there was, the first one first."""
        self.tally = Tally()
        self.hindrance = Hindrance(reign.config.hindrance)

    def count(self, cause: Cause, times: int = 1) -> None:
        """The job was interrupted once more, or `times` times."""
        self.reign.meta.causes[cause.value] += times
        self.counters_dirty = True

    def held(self, session: Session, lease_id: LeaseId) -> Lease | None:
        lease = self.reign.ledger.leases.get(lease_id)
        return lease if lease is not None and lease.session == session.id else None

    def enter(self, session: Session, lease: Lease, at: int, what: str) -> None:
        """Grant a lease."""
        leases = session.leases
        if not leases:
            session.pace.begin(at)
        leases.add(lease.id)
        self.reign.ledger.lease(lease)
        self.reign.story.tell(at, what, lease, session.worker)

    def note_done(self, session: Session, held: tuple[LeaseId, ...], done: tuple[int, ...], at: int) -> None:
        """Take in how far a worker is."""
        leases = self.reign.ledger.leases
        reached = [(leases.get(lease), row) for lease, row in zip(held, done, strict=False)]
        self.note_reached(session, [(lease, row) for lease, row in reached if lease is not None and lease.session == session.id], at)

    def note_reached(self, session: Session, reached: Iterable[tuple[Lease, int]], at: int) -> None:
        """Take in that of each of these leases of a worker the rows before a row are computed."""
        is_old = session.is_settling(at)
        news = sum([advance(lease, row, at, is_old=is_old) for lease, row in reached])
        if is_old:
            session.pace.begin(at)
        elif news:
            session.moved_at = at
        session.pace.note(news, at)

    def release(
        self,
        session: Session,
        lease: Lease,
        at: int,
        what: str,
        *,
        split: bool = False,
        not_before: int = 0,
        elsewhere: bool = False,
        rest_ms: int = 0,
    ) -> None:
        """End a lease; what is left of it goes back to the head of the queue.

        Args:
            session: that holds it.
            lease: that stands.
            at: time in ms.
            what: became of it, for its story.
            split: cut the rows in two.
            not_before: time before which the rows are not leased again.
            elsewhere: another worker should have them, if there is one.
            rest_ms: time for which this one does not get them even if there is none; only with `elsewhere`.
        """
        reign = self.reign
        reign.story.tell(at, what, lease, session.worker)
        session.leases.discard(lease.id)
        shunned = self.shunned(session, max(at, not_before) + rest_ms) if elsewhere else None
        reign.ledger.release(lease, not_before=not_before, split=split, shunned=shunned)
        if not not_before:
            self.nudge(1)

    def shunned(self, session: Session, at: int) -> Shunned:
        """Say of rows that go back, and may be leased again at time `at`, that others should have them first."""
        return Shunned(session.worker, at + self.reign.config.elsewhere_ms, at)

    def strike(self, session: Session, lease: Lease, at: int, what: str) -> None:
        """End a lease whose rows may be what is wrong; they are cornered when it goes on."""
        ranges = self.reign.config.ranges
        rest_ms = ranges.delay_ms(lease.strikes + 1, lease.shard, lease.rows.start)
        lease.strikes, split = ranges.strike(lease.strikes, lease.rows.size)
        self.release(session, lease, at, what, split=split, elsewhere=True, rest_ms=rest_ms)

    def end(self, session: Session, at: int, why: str) -> None:
        """End a session; nobody is to blame for what it held."""
        self.dismiss(session)
        for lease_id in sorted(session.leases, reverse=True):
            self.release(session, self.reign.ledger.leases[lease_id], at, why)

    def dismiss(self, session: Session) -> None:
        """Take a session off the table; its leases are the caller's to release, the last one first."""
        self.reign.sessions.remove(session)
        self.hungry.pop(session.id, None)
        self.dirty.add(session.id)

    # -- what workers are told ---------------------------------------------------------------------------------------------------
    def grant(self, lease: Lease) -> Grant:
        """Return what the holder of a lease is told about it."""
        strikes, losses = lease.strikes, lease.losses
        if not strikes and not losses:
            return Grant(lease.id, lease.shard, lease.rows, lease.attempt)
        ranges, reason = self.reign.config.ranges, ""
        if ranges.should_quarantine(strikes, losses, lease.rows.size):
            reason = f"this row ended its worker or its processes {max(strikes, losses)} times"
        return Grant(lease.id, lease.shard, lease.rows, lease.attempt, reason, ranges.is_suspect(strikes, losses))

    def nudge(self, tasks: int) -> None:
        """Tell up to `tasks` hungry workers to ask again now."""
        if not self.hungry or self.hindrance.since is not None:
            return
        for session_id in list(self.hungry)[:tasks]:
            del self.hungry[session_id]
            session = self.reign.sessions.get(session_id)
            if session is not None:
                self.push(session, Push(verdict=Verdict.WORK))

    def tell_everybody(self, push: Push) -> None:
        for session in self.reign.sessions:
            self.push(session, push)

    def tell_cut(self, lease: Lease) -> None:
        """Tell the holder of a lease that it shrank or ended."""
        holder = self.reign.sessions.get(lease.session)
        if holder is None:
            return
        over = lease.rows.start >= lease.rows.stop
        if over:
            holder.leases.discard(lease.id)
        self.push(holder, Push(cuts=(LeaseCut(lease.id, NO_ROWS if over else lease.rows),)))

    def push(self, session: Session, push: Push) -> None:
        if session.stream is not None:
            self.send(session.stream, push)

    def send(self, stream: StreamId, message: Downward) -> None:
        self.reign.out.append(commands.Send(stream, message))
