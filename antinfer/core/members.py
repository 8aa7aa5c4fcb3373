"""How the engine deals with workers: joining, requests, heart-beats, expiry. What follows from them is decided in rooms of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from antinfer.core import commands, events, guards
from antinfer.core.causes import Cause
from antinfer.core.commits import Commits
from antinfer.core.deadlines import Deadlines
from antinfer.core.events import StreamId
from antinfer.core.failures import Failures
from antinfer.core.granting import Granting
from antinfer.core.ids import Epoch, LeaseId, SessionId
from antinfer.core.interval import CommitPace
from antinfer.core.leasing import Leasing, Reign
from antinfer.core.ledger import Lease, SizeConflict
from antinfer.core.messages import (
    Answer,
    CommitOutcome,
    Grant,
    HeldRange,
    Interruption,
    Join,
    Push,
    Request,
    Return,
    Sizing,
    Verdict,
    Welcome,
)
from antinfer.core.ranges import Rows
from antinfer.core.sessions import Session
from antinfer.core.tail import Tail

_MOST_REMEMBERED: Final = 10_000


class Members:
    """Everything that happens between the master and its workers."""

    def __init__(self, reign: Reign) -> None:
        self._reign = reign
        self.leasing = Leasing(reign)
        self._pace = None if reign.config.interval is None else CommitPace(reign.config.interval)
        self._failures = Failures(self.leasing, self._pace)
        self._commits = Commits(self.leasing, self._failures)
        self._granting = Granting(self.leasing)
        self._tail = Tail(self.leasing, self._granting)
        self._deadlines = Deadlines(self.leasing)
        self._late: set[SessionId] = set()
        """Sessions whose workers have woken up late."""

    def restore(self, sessions: Iterable[Session], at: int) -> None:
        """Take over stored sessions; each gets a fresh time to live, because its worker has yet to find this master."""
        for session in sessions:
            self._reign.sessions.add(session, at)
            session.settles_until = None
        for lease in self._reign.ledger.leases.values():
            holder = self._reign.sessions.get(lease.session)
            assert holder is not None, f"lease {lease.id} of unknown session {lease.session}"
            holder.leases.add(lease.id)
            holder.is_ready = True
            lease.begin(at)

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
            self.leasing.send(event.stream, refusal)
            return
        session = reign.sessions.of_stream(event.stream)
        # A repeated join asks for the first answer; one that comes after requests is of a worker that holds its session for ended.
        if session is None or session.worker != join.worker or session.last_request:
            session = self._admit(event)
        self.leasing.send(
            event.stream,
            Welcome(
                Verdict.WORK,
                session=session.id,
                epoch=Epoch(reign.epoch),
                heartbeat_ms=reign.config.heartbeat_interval_ms(len(reign.sessions)),
                regranted=self._grants_to(session, 0),
                commit_ms=0 if self._pace is None else self._pace.told_ms,
                has_results=reign.meta.totals.rows_out > 0,
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
            self.leasing.tally.leases_dropped += len(former.leases)
            if former.leases:
                self.leasing.count(Cause.WORKER_LOST)
                if not join.held and self._pace is not None:
                    # Started again under its name, before it was missed.
                    self._pace.lost()
            self.leasing.end(former, event.at, f"{Cause.WORKER_LOST.value}: its worker joined again")
        session = Session(SessionId(f"{reign.epoch}-{reign.meta.next_session}"), join.worker)
        reign.meta.next_session += 1
        reign.sessions.add(session, event.at)
        reign.sessions.hear(session, event.stream, event.at)
        self.leasing.dirty.add(session.id)
        if not join.held:
            session.rests_until = event.at + self._failures.pause_ms(session.worker)
        for held in join.held:
            if not self._regrant(session, held, event.at):
                is_late = former is None and self._would_know(held.lease.epoch)
                what = f"{Cause.WOKE_LATE.value}: not granted again" if is_late else "not granted again"
                reign.story.tell_of(event.at, what, held.shard, held.rows, held.lease, session.worker)
        return session

    def _regrant(self, session: Session, held: HeldRange, at: int) -> bool:
        if not guards.may_regrant():
            return False
        pending = self._reign.ledger.take_exactly(held.shard, held.rows)
        if pending is None:
            return False
        lease = Lease.of(pending, self._reign.new_lease_id(), session.id, held.shard, 0, at)
        self.leasing.enter(session, lease, at, "granted again")
        return True

    # -- requests ----------------------------------------------------------------------------------------------------------------
    def _on_requested(self, event: events.Requested) -> None:
        request = event.request
        session = self._session_of(event.stream, request.session, event.at, number=request.number)
        if session is None:
            if request.session in self._late:
                what = f"commit refused ({Cause.WOKE_LATE.value}: its session had ended)"
                for commit in request.commits:
                    record = commit.record
                    self._reign.story.tell_of(event.at, what, record.shard, record.rows, commit.lease, record.worker)
            return
        if request.number < session.last_request:
            return
        repeated = request.number == session.last_request
        session.last_request = request.number
        if request.want:
            session.is_ready = True
        outcomes = self._apply(session, request, event.at, repeated=repeated)
        reign, leasing = self._reign, self.leasing
        if request.leaving:
            if not any(failure.lease is None for failure in request.failures):
                leasing.count(_leave_cause(session, request) or Cause.DRAINED)
            leasing.tally.leases_returned += len(session.leases)
            leasing.end(session, event.at, f"worker left{_because(_leave_cause(session, request))}")
            leasing.send(event.stream, Answer(request.number, Verdict.DRAIN, outcomes))
        elif reign.failure:
            leasing.send(event.stream, Answer(request.number, Verdict.FAILED, outcomes, reason=reign.failure))
        else:
            if repeated:
                grants = self._grants_to(session, request.number)
            else:
                grants = () if session.draining else self._granting.grant_up_to(session, request, event.at)
            if grants or outcomes or request.interruptions:
                leasing.dirty.add(session.id)
            reign.out.append(commands.Send(event.stream, self._answer(session, request, outcomes, grants, event.at)))
        reign.settle(event.at)

    def _grants_to(self, session: Session, number: int) -> tuple[Grant, ...]:
        """What still stands of the leases granted to a request; so a repeat, even to the next master, gets the first answer."""
        standing = (self._reign.ledger.leases[lease] for lease in sorted(session.leases))
        return tuple(self.leasing.grant(lease) for lease in standing if lease.request == number)

    def _apply(self, session: Session, request: Request, at: int, *, repeated: bool) -> tuple[CommitOutcome, ...]:
        if not repeated:
            for interruption in request.interruptions:
                self._note(session, interruption, at)
        for sizing in request.sizings:
            self._size(session, sizing, at)
        outcomes = tuple([self._commits.judge(session, commit, at) for commit in request.commits])
        for back in request.returns:
            lease = self.leasing.held(session, back.lease)
            if lease is not None:
                self._take_back(session, lease, back, at, why=_leave_cause(session, request))
        for failure in request.failures:
            # A lease fails once and is gone; a worker's failure would count again with every repeat.
            if failure.lease is not None or not repeated:
                self._failures.report(session, failure, at, leaving=request.leaving)
        self._drop_unheld(session, request.held, request.number - 1, at)
        if request.done:
            self.leasing.note_done(session, request.held, request.done, at)
        return outcomes

    def _note(self, session: Session, interruption: Interruption, at: int) -> None:
        """Count what interrupted a worker's processes, and tell it of the rows that were at work."""
        self.leasing.count(interruption.cause, interruption.times)
        what = f"{interruption.cause.value}: {interruption.detail or interruption.cause.text}"
        for each in interruption.ranges:
            lease = self.leasing.held(session, each.lease)
            if lease is not None:
                self._reign.story.tell(at, what, lease, session.worker, each.rows)

    def _take_back(self, session: Session, lease: Lease, back: Return, at: int, why: Cause | None) -> None:
        """Take a lease back, or a part of it; `why`: the worker is about to leave."""
        leasing = self.leasing
        asked, lease.asked = lease.asked, None
        what = f"returned{_because(asked.why if asked is not None else why)}"
        if back.start is None or back.start <= lease.rows.start:
            # What was asked back is for others: its worker asks for more in the same breath.
            leasing.release(session, lease, at, what, elsewhere=asked is not None)
        else:
            rows = Rows(back.start, lease.rows.stop)
            if not self._reign.ledger.give_back(lease, back.start, leasing.shunned(session, at)):
                return
            self._reign.story.tell(at, what, lease, session.worker, rows)
            leasing.nudge(max(1, asked.workers if asked is not None else 0))
        leasing.tally.leases_returned += 1
        if asked is not None and asked.why is Cause.YIELDED:
            leasing.count(Cause.YIELDED)

    def _answer(
        self, session: Session, request: Request, outcomes: tuple[CommitOutcome, ...], grants: tuple[Grant, ...], at: int
    ) -> Answer:
        if self._reign.ledger.is_complete:
            return Answer(request.number, Verdict.DONE, outcomes)
        if session.draining:
            return Answer(request.number, Verdict.DRAIN, outcomes)
        if request.want and at < session.rests_until:
            return Answer(request.number, Verdict.WAIT, outcomes, retry_ms=session.rests_until - at)
        if request.want and not grants:
            self.leasing.hungry[session.id] = None
            usual_ms = self._reign.config.wait_interval_ms(len(self._reign.sessions))
            return Answer(request.number, Verdict.WAIT, outcomes, retry_ms=self.leasing.hindrance.wait_ms(usual_ms, at))
        return Answer(request.number, Verdict.WORK, outcomes, grants)

    def _size(self, session: Session, sizing: Sizing, at: int) -> None:
        lease = self.leasing.held(session, sizing.lease)
        if lease is None:
            return
        try:
            cut = self._reign.ledger.size(lease.shard, sizing.rows)
        except SizeConflict as error:
            self.leasing.count(Cause.USER_ERROR)
            self._reign.fail(f"the input changed while the job ran: {error}")
            return
        self._reign.story.tell(at, f"sized to {sizing.rows} rows", lease, session.worker)
        for each in cut:
            self.leasing.tell_cut(each)

    # -- signs of life -----------------------------------------------------------------------------------------------------------
    def _on_heartbeat(self, event: events.HeartbeatSeen) -> None:
        beat = event.heartbeat
        session = self._session_of(event.stream, beat.session, event.at)
        if session is not None:
            self._drop_unheld(session, beat.held, beat.answered, event.at)
            if beat.done:
                self.leasing.note_done(session, beat.held, beat.done, event.at)

    def _on_stream_broken(self, event: events.StreamBroken) -> None:
        self._reign.sessions.lose_stream(event.stream, event.at)

    def _on_drain_requested(self, event: events.DrainRequested) -> None:
        session = self._reign.sessions.of_worker(event.worker)
        if session is not None:
            session.draining, session.drain_cause = True, event.cause
            self.leasing.dirty.add(session.id)
            self.leasing.push(session, Push(verdict=Verdict.DRAIN))

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
        elif reign.is_ruling:
            self._note_late(session_id)
        if number is not None:
            self.leasing.send(stream, Answer(number, verdict, reason=reign.failure))
        else:
            self.leasing.send(stream, Push(verdict=verdict, reason=reign.failure))
        return None

    def _note_late(self, session_id: SessionId) -> None:
        """Somebody speaks for a session that has ended; it may say several things before it hears so."""
        epoch = session_id.partition("-")[0]
        if session_id not in self._late and epoch.isdecimal() and self._would_know(int(epoch)):
            if len(self._late) >= _MOST_REMEMBERED:
                self._late.clear()
            self._late.add(session_id)
            self.leasing.count(Cause.WOKE_LATE)

    def _would_know(self, epoch: int) -> bool:
        """Tell whether this reign would know a session or a lease of reign `epoch` if it had not ended: not when the store was lost."""
        return epoch == self._reign.epoch or not self._reign.is_rebuilt

    # -- time passes -------------------------------------------------------------------------------------------------------------
    def look_around(self, at: int) -> None:
        """Do what is due: end the sessions that have been silent too long, find stuck ranges, share out the last rows, tell how often
        to commit."""
        reign = self._reign
        for session in reign.sessions.expired(at):
            self._failures.lose(session, at)
        self._deadlines.look(at)
        self._tail.balance(at)
        if self._pace is not None and (interval := self._pace.note(at, len(reign.sessions))) is not None:
            self.leasing.tell_everybody(Push(commit_ms=interval))

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _drop_unheld(self, session: Session, held: tuple[LeaseId, ...], answered: int, at: int) -> None:
        if not session.leases:
            return
        leases = self._reign.ledger.leases
        for lease_id in guards.unheld(((each, leases[each].request) for each in session.leases), held, answered):
            self.leasing.tally.leases_dropped += 1
            self.leasing.count(Cause.NOT_HELD)
            self.leasing.release(session, leases[lease_id], at, "not held by its worker")


def _leave_cause(session: Session, request: Request) -> Cause | None:
    """Return why a worker leaves, or is about to; None when it is not, as far as anybody knows."""
    failed = next((failure for failure in request.failures if failure.lease is None), None)
    if failed is not None:
        return failed.cause if failed.cause is not Cause.UNKNOWN else None
    if session.draining and request.cause in (Cause.DRAINED, Cause.UNKNOWN):
        # It was told to go, and does not know why.
        return session.drain_cause
    return request.cause if request.cause is not Cause.UNKNOWN else None


def _because(cause: Cause | None) -> str:
    return "" if cause is None else f" ({cause.value})"
