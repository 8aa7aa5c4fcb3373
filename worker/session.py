"""The worker's session: a pure machine between master, stage host and launcher. Signals go in with their time, actions come out.

It has at most one unanswered request, which it repeats verbatim until it is answered; what happens meanwhile is told with the next one, so
commits are grouped by the master's own pace. When the master is away the host works on and the commits wait. The same class runs in the
agent and in the simulator, so nothing here may read a clock or do anything itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import assert_never

from antinfer.core.causes import Cause
from antinfer.core.ids import LeaseId, SessionId, ShardId, WorkerId
from antinfer.core.messages import (
    Answer,
    Downward,
    Failure,
    FailureKind,
    Interruption,
    Join,
    Push,
    Request,
    Upward,
    Verdict,
    Welcome,
)
from antinfer.core.plan import Shard
from antinfer.core.scaling import exits
from antinfer.worker import guards, hostlink, interruptions
from antinfer.worker.holdings import Holdings
from antinfer.worker.hostwatch import HostWatch
from antinfer.worker.leases import HeldLease, report
from antinfer.worker.policy import SessionPolicy
from antinfer.worker.signals import (
    Action,
    Connect,
    Connected,
    Disconnected,
    DrainAsked,
    Event,
    Exit,
    HostDied,
    HostSaid,
    Received,
    SendUp,
    StartHost,
    StopHost,
    Ticked,
)


class _Link(Enum):
    DOWN = "down"
    JOINING = "joining"
    UP = "up"


class Session:
    """One worker's dealings with its master, over all reconnects. Not thread-safe."""

    def __init__(self, worker: WorkerId, job: str = "", policy: SessionPolicy | None = None) -> None:
        """
        Args:
            worker: name of this process, not used by another one alive.
            job: job id to insist on; empty: whatever the master serves.
            policy: times and limits.
        """
        self.worker = worker
        self._job = job
        self._policy = policy or SessionPolicy()
        self._heartbeat_ms = self._policy.heartbeat_ms
        self._holdings = Holdings()
        self._watch = HostWatch(self._policy.host, worker)
        self._slots = 0
        self._link = _Link.DOWN
        self._id = SessionId("")
        self._number = 0
        self._answered = 0
        self._unanswered: Join | Request | None = None
        self._asked_at = 0
        self._sent_at = 0
        self._hungry_at = 0
        self._attempts = 0
        self._opened_at: int | None = None
        """When the present stream was opened, until it has carried an answer; None as well while there is none."""
        self._breaks = 0
        """Streams in a row that broke before they had carried one."""
        self._losses: list[Failure] = []
        """Failures of the host as a whole that the master does not know of yet."""
        self._interruptions: list[Interruption] = []
        """What the next request is to tell of our processes; the unanswered one tells its own again."""
        self._drain_since: int | None = None
        self._drain_cause = Cause.DRAINED
        self._exit_code, self._exit_reason = 0, ""
        self._is_over = False
        self._actions: list[Action] = []

    # -- entry points ------------------------------------------------------------------------------------------------------------
    def start(self) -> list[Action]:
        """Return the first actions: the host starts up while we look for a master."""
        return [StartHost(0), Connect(0)]

    def step(self, event: Event) -> list[Action]:
        """Apply one event; return what must be done, in order. After `Exit` everything is ignored."""
        if self._is_over:
            return []
        at = event.at
        match event:
            case Connected():
                self._on_connected(at)
            case Disconnected():
                self._link = _Link.DOWN
                self._reconnect(at)
            case Received():
                self._on_received(at, event.message, event.shards)
            case HostSaid():
                self._on_host_said(at, event.message)
            case HostDied():
                self._on_host_died(at, event.detail, event.cause)
            case DrainAsked():
                self._drain_cause = event.cause
                if event.cause is Cause.PREEMPTED and self._drain_since is None:
                    # Whoever started us must not take it for the end of the job, nor for a failure.
                    self._exit_code = exits.TAKEN_AWAY
                self._drain(at, event.reason)
            case Ticked():
                pass
            case _:
                assert_never(event)
        self._watch_drain(at)
        self._talk(at)
        actions, self._actions = self._holdings.take_actions() + self._actions, []
        return actions

    @property
    def wake_at(self) -> int | None:
        """Time (ms) at which `Ticked` is due; None when there is nothing to wait for."""
        if self._is_over:
            return None
        times: list[int] = []
        if self._link is not _Link.DOWN and self._unanswered is not None:
            times.append(self._asked_at + self._policy.repeat_ms)
        if self._link is _Link.UP:
            times.append(self._sent_at + self._heartbeat_ms)
            if self._unanswered is None and self._wish():
                times.append(self._hungry_at)
        if self._drain_since is not None:
            soft, hard = self._drain_deadlines(self._drain_since)
            times.append(soft if self._holdings.computing else hard)
        return min(times, default=None)

    @property
    def leases(self) -> Mapping[LeaseId, HeldLease]:
        """What is held, in the order it was granted; for display and for tests."""
        return self._holdings.leases

    @property
    def is_connected(self) -> bool:
        """True while there is a stream and a session."""
        return self._link is _Link.UP

    # -- to the master -----------------------------------------------------------------------------------------------------------
    def _on_connected(self, at: int) -> None:
        self._opened_at = at
        if not self._id:
            self._join(at)
            return
        self._link = _Link.UP
        if self._unanswered is not None:
            self._ask(at, self._unanswered)
        else:
            self._beat(at)

    def _reconnect(self, at: int) -> None:
        policy = self._policy
        if self._opened_at is not None:
            if at - self._opened_at >= policy.held_ms:
                self._attempts = self._breaks = 0
            else:
                self._breaks += 1
            self._opened_at = None
        pause = _doubled(policy.backoff_ms, policy.longest_backoff_ms, self._attempts)
        slower = _doubled(policy.break_ms, policy.longest_break_ms, self._breaks - policy.free_breaks)
        self._attempts += 1
        self._actions.append(Connect(max(pause, slower)))

    def _join(self, at: int) -> None:
        """Ask for a session. An unanswered request of an earlier one is void: what it told is told again, or lost with its leases."""
        self._id = SessionId("")
        self._number = self._answered = 0
        self._link = _Link.JOINING
        if isinstance(self._unanswered, Request):
            self._interruptions[:0] = self._unanswered.interruptions
        self._ask(at, Join(self.worker, self._job, self._holdings.named()))

    def _talk(self, at: int) -> None:
        """Say what there is to say."""
        if self._is_over or self._link is _Link.DOWN:
            return
        if self._unanswered is None:
            request = self._next_request(at)
            if request is not None:
                self._ask(at, request)
        elif at - self._asked_at >= self._policy.repeat_ms:
            self._ask(at, self._unanswered)
        if self._link is _Link.UP and at - self._sent_at >= self._heartbeat_ms:
            self._beat(at)

    def _next_request(self, at: int) -> Request | None:
        holdings = self._holdings
        told = report(holdings.leases.values())
        leaving = self._drain_since is not None and told.is_whole and not holdings.computing
        want = self._wish()
        # What we have mended ourselves is not worth a message of its own: it goes in place of the next sign of life.
        mended = bool(self._interruptions) and self._link is _Link.UP and at - self._sent_at >= self._heartbeat_ms
        if not (told or self._losses or mended or leaving or (want and at >= self._hungry_at)):
            return None
        self._number += 1
        interruptions, self._interruptions = tuple(self._interruptions), []
        return Request(
            session=self._id,
            number=self._number,
            sizings=told.sizings,
            commits=told.commits,
            returns=told.returns,
            failures=told.failures + tuple(self._losses),
            held=(held := tuple(lease for lease in holdings.leases if lease not in told.ended)),
            want=want,
            leaving=leaving,
            done=tuple(holdings.leases[lease].done for lease in held),
            cause=Cause.UNKNOWN if self._drain_since is None else self._drain_cause,
            interruptions=interruptions,
        )

    def _wish(self) -> int:
        """Leases that would keep the host busy; it is full when as many as it has slots are not staged to their end."""
        if not self._holdings.is_host_ready or self._drain_since is not None:
            return 0
        return max(0, self._slots - len(self._holdings.computing))

    def _ask(self, at: int, message: Join | Request) -> None:
        self._unanswered = message
        self._asked_at = at
        self._send(at, message)

    def _beat(self, at: int) -> None:
        beat = guards.heartbeat(self._id, tuple(self._holdings.leases), self._answered)
        done = tuple(lease.done for lease in self._holdings.leases.values())
        self._send(at, replace(beat, done=done))

    def _send(self, at: int, message: Upward) -> None:
        self._sent_at = at
        self._actions.append(SendUp(message))

    # -- from the master ---------------------------------------------------------------------------------------------------------
    def _on_received(self, at: int, message: Downward, shards: Mapping[ShardId, Shard]) -> None:
        if not isinstance(message, Push):
            self._opened_at, self._breaks = None, 0
        match message:
            case Welcome():
                if self._link is _Link.JOINING:
                    self._on_welcome(at, message, shards)
            case Answer():
                if isinstance(self._unanswered, Request) and self._unanswered.number == message.number:
                    self._on_answer(at, self._unanswered, message, shards)
            case Push():
                if self._link is _Link.UP:
                    self._on_push(at, message)
            case _:
                assert_never(message)

    def _on_welcome(self, at: int, welcome: Welcome, shards: Mapping[ShardId, Shard]) -> None:
        if welcome.session:
            self._id = welcome.session
            self._link = _Link.UP
            self._unanswered = None
            self._attempts = 0
            self._hungry_at = at
            self._heartbeat_ms = welcome.heartbeat_ms or self._heartbeat_ms
            self._holdings.commit_every(welcome.commit_ms)
            if welcome.has_results:
                self._holdings.note_results()
            self._holdings.rejoin(welcome.regranted, shards, is_wanted=self._drain_since is None)
        self._obey(at, welcome.verdict, welcome.reason)

    def _on_answer(self, at: int, request: Request, answer: Answer, shards: Mapping[ShardId, Shard]) -> None:
        if answer.verdict in (Verdict.NOT_MASTER, Verdict.UNKNOWN_SESSION, Verdict.UNKNOWN_JOB):
            self._obey(at, answer.verdict, answer.reason)
            return
        self._unanswered = None
        self._answered = answer.number
        self._attempts = 0
        self._apply(request, answer)
        for grant in answer.grants:
            self._holdings.take(grant, shards[grant.shard], is_wanted=self._drain_since is None)
        if len(answer.grants) < request.want:
            self._hungry_at = at + (answer.retry_ms or self._policy.idle_ms)
        if request.leaving and answer.verdict is not Verdict.FAILED:
            self._exit(self._exit_code, self._exit_reason)
        else:
            self._obey(at, answer.verdict, answer.reason)

    def _apply(self, request: Request, answer: Answer) -> None:
        """Count as told what the request told, and take in what became of it."""
        holdings = self._holdings
        self._losses = [loss for loss in self._losses if loss not in request.failures]
        for sizing in request.sizings:
            if sizing.lease in holdings.leases:
                holdings.leases[sizing.lease].is_sizing_told = True
        for outcome in answer.outcomes:
            holdings.settle(outcome)
        for back in request.returns:
            if back.lease in holdings.leases and holdings.leases[back.lease].returned_from == back.start:
                holdings.leases[back.lease].returned_from = None
        ended = {back.lease for back in request.returns if back.start is None}
        ended.update(failure.lease for failure in request.failures if failure.lease is not None)
        holdings.close(ended)

    def _on_push(self, at: int, push: Push) -> None:
        for cut in push.cuts:
            lease = self._holdings.find(cut.lease)
            if lease is not None:
                self._holdings.shrink(lease, cut.rows)
        for one in push.yields:
            lease = self._holdings.find(one.lease)
            if lease is not None:
                self._holdings.ask_back(lease, one.keep)
        self._holdings.commit_every(push.commit_ms)
        if push.verdict is Verdict.WORK:
            self._hungry_at = at
        elif push.verdict is not None:
            self._obey(at, push.verdict, push.reason)

    def _obey(self, at: int, verdict: Verdict, reason: str) -> None:
        match verdict:
            case Verdict.WORK | Verdict.WAIT:
                pass
            case Verdict.DRAIN:
                self._drain(at, reason or "drained by the master")
            case Verdict.DONE:
                self._exit(0, reason or "the job is done")
            case Verdict.FAILED | Verdict.UNKNOWN_JOB:
                self._exit(1, reason or f"the master says: {verdict.value}")
            case Verdict.NOT_MASTER:
                self._link = _Link.DOWN
                if not guards.keeps_work(verdict):
                    self._holdings.drop_all()
                self._reconnect(at)
            case Verdict.UNKNOWN_SESSION:
                if self._drain_since is None or self._losses:
                    self._join(at)
                else:
                    self._exit(self._exit_code, f"{self._exit_reason}; the session had ended before")
            case _:
                assert_never(verdict)

    # -- from the host -----------------------------------------------------------------------------------------------------------
    def _on_host_said(self, at: int, message: hostlink.FromHost) -> None:
        match message:
            case hostlink.Ready():
                self._slots = message.slots
                self._hungry_at = min(self._hungry_at, at)
                self._holdings.on_ready()
            case hostlink.Sized():
                self._holdings.on_sized(message)
            case hostlink.Staged():
                if self._holdings.on_staged(message):
                    self._watch.note_progress()
            case hostlink.Released():
                self._holdings.on_released(message)
            case hostlink.Kept():
                self._holdings.on_kept(message)
            case hostlink.Failed():
                self._on_failed(at, message)
            case hostlink.Interrupted():
                interruptions.add(self._interruptions, self._holdings.renamed(message.told))
            case hostlink.Progress():
                self._holdings.on_progress(message)
            case _:
                assert_never(message)

    def _on_failed(self, at: int, message: hostlink.Failed) -> None:
        if message.lease is not None:
            self._holdings.on_failed(message, message.lease)
            return
        cause = message.cause
        if message.kind is FailureKind.FATAL and cause is Cause.UNKNOWN and not self._holdings.is_host_ready:
            # It may have worked here before: what fails now may be this node.
            cause = Cause.START_ERROR
        self._losses.append(Failure(None, message.kind, message.error, message.traceback, cause))
        if message.kind is FailureKind.FATAL:
            self._give_up(at, message.error)
        else:
            self._actions.append(StopHost())
            self._on_host_died(at, message.error, cause, is_told=True)

    def _on_host_died(self, at: int, detail: str, cause: Cause, *, is_told: bool = False) -> None:
        """Start another host, or give up; `is_told`: the master will hear of this death anyway."""
        first = self._holdings.on_host_lost()
        if self._drain_since is not None:
            self._holdings.release_all()
            return
        pause = self._watch.note_death(at)
        if first is not None:
            first.host_deaths += 1
            if self._watch.is_culprit(first.host_deaths):
                error = f"the stage host died {first.host_deaths} times with these rows first in line, at last: {detail}"
                first.failure = Failure(first.id, FailureKind.RANGE, error, cause=cause)
                self._watch.note_progress()
                is_told = True
        if pause is None:
            reason = f"the stage host keeps dying, at last: {detail}"
            self._losses.append(Failure(None, FailureKind.STORAGE, reason, cause=cause))
            self._give_up(at, reason)
            return
        if not is_told:
            interruptions.add(self._interruptions, interruptions.of_host(cause, detail, first))
        self._actions.append(StartHost(pause))

    # -- the end -----------------------------------------------------------------------------------------------------------------
    def _drain(self, at: int, reason: str) -> None:
        """Commit what is finished, return the rest, leave."""
        if self._drain_since is not None:
            return
        self._drain_since = at
        self._exit_reason = reason
        for lease in self._holdings.computing:
            self._holdings.ask_back(lease)

    def _give_up(self, at: int, reason: str) -> None:
        """Leave because the host cannot work here; what it staged is still committed."""
        self._drain_since = at if self._drain_since is None else self._drain_since
        self._exit_code, self._exit_reason = 1, reason
        self._holdings.release_all()

    def _drain_deadlines(self, since: int) -> tuple[int, int]:
        return since + self._policy.grace_ms * 3 // 4, since + self._policy.grace_ms

    def _watch_drain(self, at: int) -> None:
        if self._drain_since is None or self._is_over:
            return
        soft, hard = self._drain_deadlines(self._drain_since)
        if at >= soft:
            self._holdings.release_all()
        if at >= hard:
            self._exit(self._exit_code, f"{self._exit_reason}; the master could not be told everything in time")
        elif self._link is not _Link.UP and not self._holdings.leases and not self._losses:
            self._exit(self._exit_code, self._exit_reason)

    def _exit(self, code: int, reason: str) -> None:
        self._is_over = True
        self._actions += [StopHost(), Exit(code, reason)]


def _doubled(first_ms: int, longest_ms: int, times: int) -> int:
    """Return the pause before the next attempt; none before the first. Whoever carries it out spreads it."""
    return 0 if times <= 0 else min(longest_ms, first_ms << min(times - 1, 16))
