"""How the engine deals with workers: joining, requests, heart-beats, expiry, and the balance at the tail."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from antinfer.core import commands, events, guards
from antinfer.core.config import EngineConfig
from antinfer.core.documents import Meta
from antinfer.core.events import StreamId
from antinfer.core.ids import Epoch, LeaseId, SessionId
from antinfer.core.ledger import Lease, Ledger, SizeConflict
from antinfer.core.messages import (
    NO_ROWS,
    Acceptance,
    Answer,
    Commit,
    CommitOutcome,
    Downward,
    Failure,
    FailureKind,
    Grant,
    HeldRange,
    Join,
    LeaseCut,
    Push,
    Request,
    Sizing,
    Verdict,
    Welcome,
    Yield,
)
from antinfer.core.publications import Publications
from antinfer.core.records import CommitRecord
from antinfer.core.sessions import Session, Sessions
from antinfer.core.story import Story
from antinfer.core.tally import Tally


class Reign(Protocol):
    """What this module needs of the engine that it is a part of."""

    config: EngineConfig
    epoch: int
    ledger: Ledger
    sessions: Sessions
    publications: Publications
    meta: Meta
    story: Story
    out: list[commands.Command]
    failure: str

    @property
    def is_ruling(self) -> bool: ...
    def new_lease_id(self) -> LeaseId: ...
    def is_of_round(self, record: CommitRecord) -> bool: ...
    def accept(self, record: CommitRecord, lease: Lease, at: int, who: str) -> list[Lease]: ...
    def fail(self, reason: str, traceback: str = "") -> None: ...
    def settle(self, at: int) -> None: ...


class Members:
    """Everything that happens between the master and its workers."""

    def __init__(self, reign: Reign) -> None:
        self._reign = reign
        self.dirty: set[SessionId] = set()
        """Sessions whose document is out of date."""
        self.counters_dirty = False
        """A counter in the meta document moved though no other document did."""
        self._hungry: dict[SessionId, None] = {}
        self._slow: deque[LeaseId] = deque()
        self._worker_failures = 0
        self.tally = Tally()

    def restore(self, sessions: Iterable[Session], at: int) -> None:
        """Take over stored sessions; each gets a fresh time to live, because its worker has yet to find this master."""
        for session in sessions:
            self._reign.sessions.add(session, at)
        for lease in self._reign.ledger.leases.values():
            holder = self._reign.sessions.get(lease.session)
            assert holder is not None, f"lease {lease.id} of unknown session {lease.session}"
            holder.leases.add(lease.id)
            lease.granted_at = at

    def handlers(self) -> dict[type, Callable[[Any], None]]:
        """What to call with an event of each type that workers bring about."""
        return {
            events.Joined: self._on_joined,
            events.Requested: self._on_requested,
            events.HeartbeatSeen: self._on_heartbeat,
            events.StreamBroken: self._on_stream_broken,
            events.DrainRequested: self._on_drain_requested,
        }

    # -- joining -----------------------------------------------------------------------------------------------------------------
    def _on_joined(self, event: events.Joined) -> None:
        reign, join = self._reign, event.join
        refusal = self._refusal(join)
        if refusal is not None:
            self._send(event.stream, refusal)
            return
        session = reign.sessions.of_stream(event.stream)
        # A repeated join asks for the first answer; one that comes after requests is of a worker that holds its session for ended.
        if session is None or session.worker != join.worker or session.last_request:
            session = self._admit(event)
        self._send(
            event.stream,
            Welcome(
                Verdict.WORK,
                session=session.id,
                epoch=Epoch(reign.epoch),
                heartbeat_ms=reign.config.heartbeat_interval_ms(len(reign.sessions)),
                regranted=self._grants_to(session, 0),
            ),
        )

    def _refusal(self, join: Join) -> Welcome | None:
        reign = self._reign
        if reign.failure:
            return Welcome(Verdict.FAILED, reason=reign.failure)
        if not reign.is_ruling:
            return Welcome(Verdict.NOT_MASTER)
        if join.job and reign.config.job and join.job != reign.config.job:
            return Welcome(Verdict.UNKNOWN_JOB, reason=f"this master serves job {reign.config.job}")
        if reign.ledger.is_complete:
            return Welcome(Verdict.DONE)
        return None

    def _admit(self, event: events.Joined) -> Session:
        reign, join = self._reign, event.join
        former = reign.sessions.of_worker(join.worker)
        if former is not None:
            self.tally.leases_dropped += len(former.leases)
            self._end(former, event.at, "worker joined again", struck=False)
        session = Session(SessionId(f"{reign.epoch}-{reign.meta.next_session}"), join.worker)
        reign.meta.next_session += 1
        reign.sessions.add(session, event.at)
        reign.sessions.hear(session, event.stream, event.at)
        self.dirty.add(session.id)
        for held in join.held:
            self._regrant(session, held, event.at)
        return session

    def _regrant(self, session: Session, held: HeldRange, at: int) -> None:
        if not guards.may_regrant():
            return
        pending = self._reign.ledger.take_exactly(held.shard, held.rows)
        if pending is not None:
            lease = Lease(self._reign.new_lease_id(), session.id, held.shard, pending.rows, pending.attempt + 1, pending.strikes, request=0)
            self._enter(session, lease, at, "granted again")

    # -- requests ----------------------------------------------------------------------------------------------------------------
    def _on_requested(self, event: events.Requested) -> None:
        request = event.request
        session = self._session_of(event.stream, request.session, event.at, number=request.number)
        if session is None or request.number < session.last_request:
            return
        repeated = request.number == session.last_request
        session.last_request = request.number
        outcomes = self._apply(session, request, event.at)
        reign = self._reign
        if request.leaving:
            self.tally.leases_returned += len(session.leases)
            self._end(session, event.at, "worker left", struck=False)
            self._send(event.stream, Answer(request.number, Verdict.DRAIN, outcomes))
        elif reign.failure:
            self._send(event.stream, Answer(request.number, Verdict.FAILED, outcomes, reason=reign.failure))
        else:
            if repeated:
                grants = self._grants_to(session, request.number)
            else:
                grants = () if session.draining else self._grant_up_to(session, request, event.at)
            if grants or outcomes:
                self.dirty.add(session.id)
            self._send(event.stream, self._answer(session, request, outcomes, grants))
        reign.settle(event.at)

    def _grants_to(self, session: Session, number: int) -> tuple[Grant, ...]:
        """What still stands of the leases granted to a request; so a repeat, even to the next master, gets the first answer."""
        standing = (self._reign.ledger.leases[lease] for lease in sorted(session.leases))
        return tuple(_grant(lease, self._reign.config) for lease in standing if lease.request == number)

    def _apply(self, session: Session, request: Request, at: int) -> tuple[CommitOutcome, ...]:
        for sizing in request.sizings:
            self._size(session, sizing, at)
        outcomes = tuple([self._commit(session, commit, at) for commit in request.commits])
        for back in request.returns:
            lease = self._held(session, back.lease)
            if lease is not None:
                self.tally.leases_returned += 1
                self._release(session, lease, at, "returned")
        for failure in request.failures:
            self._fail(session, failure, at)
        self._drop_unheld(session, request.held, request.number - 1, at)
        return outcomes

    def _answer(self, session: Session, request: Request, outcomes: tuple[CommitOutcome, ...], grants: tuple[Grant, ...]) -> Answer:
        if self._reign.ledger.is_complete:
            return Answer(request.number, Verdict.DONE, outcomes)
        if session.draining:
            return Answer(request.number, Verdict.DRAIN, outcomes)
        if request.want and not grants:
            self._hungry[session.id] = None
            return Answer(request.number, Verdict.WAIT, outcomes, retry_ms=self._reign.config.wait_ms)
        return Answer(request.number, Verdict.WORK, outcomes, grants)

    def _commit(self, session: Session, commit: Commit, at: int) -> CommitOutcome:
        reign, record = self._reign, commit.record
        standing = reign.ledger.leases.get(commit.lease)
        left = standing.rows if standing is not None and standing.session == session.id else None
        if guards.is_recorded(record.staged, reign.publications.records):
            return CommitOutcome(record.staged, Acceptance.ACCEPTED, left)
        if (
            standing is None
            or reign.failure
            or not guards.commit_belongs(record, commit.lease, standing.session, session.id)
            or record.shard != standing.shard
            or not reign.is_of_round(record)
        ):
            self.tally.commits_refused += 1
            return CommitOutcome(record.staged, Acceptance.REFUSED, left)
        if guards.is_out_of_order(record.start, standing.rows.start):
            return CommitOutcome(record.staged, Acceptance.RETRY, standing.rows)
        if record.start != standing.rows.start or not record.start < record.stop <= standing.rows.stop:
            self.tally.commits_refused += 1
            return CommitOutcome(record.staged, Acceptance.REFUSED, standing.rows)
        if record.schema and reign.meta.schema and record.schema != reign.meta.schema:
            reign.fail(
                f"rows [{record.start}, {record.stop}) of shard {record.shard} have another output schema than the first commit: "
                "the pipeline must return the same columns and types for every batch"
            )
            self.tally.commits_refused += 1
            return CommitOutcome(record.staged, Acceptance.REFUSED, standing.rows)
        reign.meta.schema = reign.meta.schema or record.schema
        self._worker_failures = 0
        session.near = (standing.shard, record.stop)
        for other in reign.accept(record, standing, at, session.worker):
            self._tell_cut(other)
        if standing.id not in reign.ledger.leases:
            session.leases.discard(standing.id)
            return CommitOutcome(record.staged, Acceptance.ACCEPTED)
        return CommitOutcome(record.staged, Acceptance.ACCEPTED, standing.rows)

    def _size(self, session: Session, sizing: Sizing, at: int) -> None:
        lease = self._held(session, sizing.lease)
        if lease is None:
            return
        try:
            cut = self._reign.ledger.size(lease.shard, sizing.rows)
        except SizeConflict as error:
            self._reign.fail(f"the input changed while the job ran: {error}")
            return
        self._reign.story.tell(at, f"sized to {sizing.rows} rows", lease, session.worker)
        for each in cut:
            self._tell_cut(each)

    def _fail(self, session: Session, failure: Failure, at: int) -> None:
        reign = self._reign
        if failure.kind is FailureKind.FATAL:
            reign.fail(failure.error, failure.traceback)
            return
        if failure.lease is None:
            self._worker_failures += 1
            if self._worker_failures >= reign.config.worker_failures:
                reign.fail(f"{failure.error} (the last of {self._worker_failures} workers that gave up without a commit between)")
            return
        lease = self._held(session, failure.lease)
        if lease is None:
            return
        self.tally.leases_failed += 1
        if failure.kind is FailureKind.RANGE:
            self._release(session, lease, at, f"failed ({failure.error})", struck=True)
        elif lease.attempt >= reign.config.storage_attempts:
            reign.fail(f"{failure.error} (tried {lease.attempt} times)", failure.traceback)
        else:
            not_before = at + reign.config.storage.delay_ms(lease.attempt)
            self._release(session, lease, at, f"storage trouble ({failure.error})", not_before=not_before)

    def _grant_up_to(self, session: Session, request: Request, at: int) -> tuple[Grant, ...]:
        reign = self._reign
        granted: list[Lease] = []
        self._hungry.pop(session.id, None)
        for _ in range(min(request.want, reign.config.max_grants)):
            taken = reign.ledger.take(at, reign.config.task_rows, session.near)
            if taken is None:
                if not session.leases and (copy := self._grant_copy(session, request, at)) is not None:
                    granted.append(copy)
                break
            shard, pending = taken
            lease = Lease(reign.new_lease_id(), session.id, shard, pending.rows, pending.attempt + 1, pending.strikes, request.number, at)
            session.near = (shard, pending.rows.stop)
            self._enter(session, lease, at, "leased")
            self.tally.leases_retried += lease.attempt > 1
            granted.append(lease)
        return tuple([_grant(lease, reign.config) for lease in granted])

    def _grant_copy(self, session: Session, request: Request, at: int) -> Lease | None:
        """A worker with nothing at all to do runs a second copy of a lease that takes long; the first commit wins (rule 6)."""
        while self._slow:
            first = self._reign.ledger.leases.get(self._slow.popleft())
            if first is None or first.session == session.id or len(self._reign.ledger.open[first.shard].leases) > 1:
                continue
            lease = Lease(
                self._reign.new_lease_id(),
                session.id,
                first.shard,
                first.rows,
                first.attempt + 1,
                first.strikes,
                request.number,
                at,
            )
            self._enter(session, lease, at, f"leased as a copy of {first.id}")
            self.tally.second_copies += 1
            return lease
        return None

    # -- signs of life -----------------------------------------------------------------------------------------------------------
    def _on_heartbeat(self, event: events.HeartbeatSeen) -> None:
        beat = event.heartbeat
        session = self._session_of(event.stream, beat.session, event.at)
        if session is not None:
            self._drop_unheld(session, beat.held, beat.answered, event.at)

    def _on_stream_broken(self, event: events.StreamBroken) -> None:
        self._reign.sessions.lose_stream(event.stream, event.at)

    def _on_drain_requested(self, event: events.DrainRequested) -> None:
        session = self._reign.sessions.of_worker(event.worker)
        if session is not None:
            session.draining = True
            self.dirty.add(session.id)
            self._push(session, Push(verdict=Verdict.DRAIN))

    def _session_of(self, stream: StreamId, session_id: SessionId, at: int, number: int | None = None) -> Session | None:
        """Find the session and note its sign of life; answers in its stead when there is none to talk to."""
        reign = self._reign
        session = reign.sessions.get(session_id)
        if session is not None and (reign.is_ruling or reign.failure):
            reign.sessions.hear(session, stream, at)
            return session
        verdict = Verdict.UNKNOWN_SESSION if reign.is_ruling else Verdict.NOT_MASTER
        if reign.failure:
            verdict = Verdict.FAILED
        elif reign.is_ruling and reign.ledger.is_complete:
            verdict = Verdict.DONE
        if number is not None:
            self._send(stream, Answer(number, verdict, reason=reign.failure))
        else:
            self._send(stream, Push(verdict=verdict, reason=reign.failure))
        return None

    def expire(self, at: int) -> None:
        """End the sessions that have been silent too long."""
        for session in self._reign.sessions.expired(at):
            self.tally.workers_expired += 1
            self.tally.leases_expired += len(session.leases)
            self._end(session, at, "worker lost", struck=not session.draining)

    # -- the tail ----------------------------------------------------------------------------------------------------------------
    def balance_tail(self, at: int) -> None:
        """When nothing is left to lease: nudge the hungry once rows have rested long enough, ask those who hold several leases to yield one
        for each worker that has none, and note which leases have become old enough for a second copy."""
        if not self._hungry:
            return
        reign = self._reign
        if reign.ledger.has_work(at):
            self.nudge(len(self._hungry))
            return
        hungry = (reign.sessions.get(session_id) for session_id in self._hungry)
        starving = sum(session is not None and not session.leases for session in hungry)
        if not starving:
            return
        copy_after = reign.config.copy_after_ms
        slow: list[Lease] = []
        for session in reign.sessions:
            if starving and len(session.leases) > 1:
                last = reign.ledger.leases[max(session.leases)]
                if not last.asked_to_yield:
                    last.asked_to_yield = True
                    starving -= 1
                    self._push(session, Push(yields=(Yield(last.id),)))
            if copy_after is not None and session.id not in self._hungry:
                leases = (reign.ledger.leases[lease] for lease in session.leases)
                slow.extend(lease for lease in leases if at - lease.granted_at >= copy_after)
        self._slow = deque(lease.id for lease in sorted(slow, key=lambda lease: lease.granted_at))
        if self._slow:
            self.nudge(len(self._slow))

    def nudge(self, tasks: int) -> None:
        """Tell up to `tasks` starving workers to ask again now."""
        for session_id in list(self._hungry)[:tasks]:
            del self._hungry[session_id]
            session = self._reign.sessions.get(session_id)
            if session is not None:
                self._push(session, Push(verdict=Verdict.WORK))

    def tell_everybody(self, push: Push) -> None:
        for session in self._reign.sessions:
            self._push(session, push)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _held(self, session: Session, lease_id: LeaseId) -> Lease | None:
        lease = self._reign.ledger.leases.get(lease_id)
        return lease if lease is not None and lease.session == session.id else None

    def _enter(self, session: Session, lease: Lease, at: int, what: str) -> None:
        lease.granted_at = at
        session.leases.add(lease.id)
        self._reign.ledger.lease(lease)
        self._reign.story.tell(at, what, lease, session.worker)

    def _release(self, session: Session, lease: Lease, at: int, what: str, *, struck: bool = False, not_before: int = 0) -> None:
        self._reign.story.tell(at, what, lease, session.worker)
        session.leases.discard(lease.id)
        split = False
        if struck:
            lease.strikes, split = self._reign.config.ranges.strike(lease.strikes, lease.rows.size)
        self._reign.ledger.release(lease, not_before=not_before, split=split)
        if not not_before:
            self.nudge(1)

    def _drop_unheld(self, session: Session, held: tuple[LeaseId, ...], answered: int, at: int) -> None:
        if not session.leases:
            return
        leases = self._reign.ledger.leases
        for lease_id in guards.unheld(((each, leases[each].request) for each in session.leases), held, answered):
            self.tally.leases_dropped += 1
            self._release(session, leases[lease_id], at, "not held by its worker")

    def _end(self, session: Session, at: int, why: str, *, struck: bool) -> None:
        reign = self._reign
        reign.sessions.remove(session)
        self._hungry.pop(session.id, None)
        self.dirty.add(session.id)
        for lease_id in sorted(session.leases, reverse=True):
            self._release(session, reign.ledger.leases[lease_id], at, why, struck=struck)

    def _tell_cut(self, lease: Lease) -> None:
        """Tell the holder of a lease that it shrank or ended."""
        holder = self._reign.sessions.get(lease.session)
        if holder is None:
            return
        over = lease.rows.start >= lease.rows.stop
        if over:
            holder.leases.discard(lease.id)
        self._push(holder, Push(cuts=(LeaseCut(lease.id, NO_ROWS if over else lease.rows),)))

    def _push(self, session: Session, push: Push) -> None:
        if session.stream is not None:
            self._send(session.stream, push)

    def _send(self, stream: StreamId, message: Downward) -> None:
        self._reign.out.append(commands.Send(stream, message))


def _grant(lease: Lease, config: EngineConfig) -> Grant:
    reason = ""
    if lease.strikes and config.ranges.should_quarantine(lease.strikes, lease.rows.size):
        reason = f"this row ended its worker or its processes {lease.strikes} times"
    return Grant(lease.id, lease.shard, lease.rows, lease.attempt, reason)
