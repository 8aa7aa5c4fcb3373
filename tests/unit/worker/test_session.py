"""The session machine, one behaviour at a time: signals in, actions out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from antinfer.core.causes import Cause
from antinfer.core.ids import Epoch, LeaseId, SessionId, ShardId, WorkerId, staged_name
from antinfer.core.messages import (
    NO_ROWS,
    Acceptance,
    Answer,
    CommitOutcome,
    FailureKind,
    Grant,
    Heartbeat,
    HeldRange,
    Join,
    LeaseCut,
    Push,
    Request,
    Return,
    Sizing,
    Verdict,
    Welcome,
    Yield,
)
from antinfer.core.plan import Piece, Shard
from antinfer.core.ranges import UNSIZED, Rows
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.worker import hostlink
from antinfer.worker.policy import SessionPolicy
from antinfer.worker.session import Session
from antinfer.worker.signals import (
    Action,
    Connect,
    Connected,
    Disconnected,
    Exit,
    HostDied,
    HostSaid,
    Received,
    SendUp,
    StartHost,
    Ticked,
    ToHost,
)

A, B = LeaseId(1, 1), LeaseId(1, 2)


def shard(index: int = 0, rows: int | None = 100) -> Shard:
    return Shard(ShardId(index), (Piece("in.parquet", 0, 1, rows),), rows, 1_000)


def record(lease: LeaseId, start: int, stop: int, index: int = 0, nonce: str = "a") -> CommitRecord:
    return CommitRecord(index, start, stop, staged_name(lease, index, start, stop, nonce), (StagedObject("part"),), stop - start)


class Bench:
    """A session with a clock of its own, driven by hand."""

    def __init__(self, policy: SessionPolicy | None = None) -> None:
        self.session = Session(WorkerId("w"), policy=policy)
        self.at = 0
        self.actions = self.session.start()

    def tell(self, signal: type, *values: Any) -> list[Action]:
        self.actions = self.session.step(signal(self.at, *values))
        return self.actions

    def master(self, message: Any, *shards: Shard) -> list[Action]:
        known = {one.index: one for one in shards or (shard(0), shard(1))}
        return self.tell(Received, message, known)

    def host(self, message: hostlink.FromHost) -> list[Action]:
        return self.tell(HostSaid, message)

    def sent(self, kind: type) -> list[Any]:
        return [action.message for action in self.actions if isinstance(action, SendUp) and isinstance(action.message, kind)]

    def told(self, *kinds: type) -> list[Any]:
        return [action.message for action in self.actions if isinstance(action, ToHost) and isinstance(action.message, kinds or object)]

    def request(self) -> Request:
        (request,) = self.sent(Request)
        assert isinstance(request, Request)
        return request

    def done(self, kind: type) -> list[Any]:
        return [action for action in self.actions if isinstance(action, kind)]

    def joined(self, session: str = "s1", slots: int = 2) -> Bench:
        self.tell(Connected)
        self.master(Welcome(Verdict.WORK, SessionId(session), Epoch(1), heartbeat_ms=1_000))
        self.host(hostlink.Ready(0.1, slots))
        return self

    def working(self, *grants: Grant) -> Bench:
        """Joined, and holding `grants`; nothing unanswered."""
        self.joined(slots=len(grants))
        self.master(Answer(1, Verdict.WORK, grants=grants))
        assert [work.lease for work in self.told(hostlink.Work)] == [grant.lease for grant in grants]
        return self

    def answer(self, number: int, *outcomes: CommitOutcome, verdict: Verdict = Verdict.WORK, grants: tuple[Grant, ...] = ()) -> None:
        self.master(Answer(number, verdict, outcomes, grants, retry_ms=1_000))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def near() -> Bench:
    """One whose master is on the same machine."""
    return Bench(SessionPolicy(backoff_ms=50, longest_backoff_ms=50))


GRANT_A, GRANT_B = Grant(A, ShardId(0), Rows(0, 100)), Grant(B, ShardId(1), Rows(0, 100))


def test_starts_host_and_connection_at_once(bench: Bench) -> None:
    assert bench.actions == [StartHost(0), Connect(0)]


def test_joins_first_and_asks_for_leases_only_when_the_host_is_ready(bench: Bench) -> None:
    bench.tell(Connected)
    assert bench.sent(Join) == [Join(WorkerId("w"), "")]
    bench.master(Welcome(Verdict.WORK, SessionId("s1"), Epoch(1), heartbeat_ms=1_000))
    assert bench.sent(Request) == []
    bench.host(hostlink.Ready(0.5, 3))
    assert bench.request() == Request(SessionId("s1"), 1, want=3)


def test_every_host_hears_before_its_first_work_that_the_job_has_results(bench: Bench) -> None:
    bench.tell(Connected)
    bench.master(Welcome(Verdict.WORK, SessionId("s1"), Epoch(1), heartbeat_ms=1_000, has_results=True))
    for _ in range(2):
        bench.host(hostlink.Ready(0.5, 1))
        assert bench.told() == [hostlink.HasResults()]
        bench.tell(HostDied, "killed")


def test_the_host_hears_of_results_when_the_first_rows_that_came_out_are_committed(bench: Bench) -> None:
    bench.working(GRANT_A)
    barren = replace(record(A, 0, 10), rows_out=0, rows_quarantined=10)
    for number, each in ((2, barren), (3, record(A, 10, 20)), (4, record(A, 20, 30))):
        bench.host(hostlink.Staged(A, each))
        bench.answer(number, CommitOutcome(each.staged, Acceptance.ACCEPTED, Rows(each.stop, 100)))
        assert bench.told(hostlink.HasResults) == ([hostlink.HasResults()] if number == 3 else [])


def test_commits_are_grouped_while_a_request_is_unanswered(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    assert [commit.record.stop for commit in bench.request().commits] == [10]
    for start in (10, 20):
        bench.host(hostlink.Staged(A, record(A, start, start + 10)))
        assert bench.sent(Request) == []
    bench.answer(2, CommitOutcome(record(A, 0, 10).staged, Acceptance.ACCEPTED, Rows(10, 100)))
    assert bench.request().number == 3
    assert [commit.record.start for commit in bench.request().commits] == [10, 20]


def test_an_unanswered_request_is_repeated_verbatim_on_the_next_stream(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    request = bench.request()
    bench.tell(Disconnected)
    assert bench.done(Connect) == [Connect(0)]
    bench.host(hostlink.Staged(A, record(A, 10, 20)))
    assert bench.sent(Request) == []
    bench.tell(Connected)
    assert bench.request() == request


def test_an_unanswered_request_is_repeated_on_a_silent_stream(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    request = bench.request()
    bench.at += 10_000
    bench.tell(Ticked)
    assert bench.request() == request


def test_comes_back_with_a_heartbeat_when_nothing_is_unanswered(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.tell(Disconnected)
    bench.tell(Connected)
    assert bench.sent(Heartbeat) == [Heartbeat(SessionId("s1"), (A,), 1, done=(0,))]
    assert bench.sent(Join) == []


def test_pauses_between_attempts_grow(bench: Bench) -> None:
    pauses = []
    for _ in range(10):
        bench.tell(Disconnected)
        pauses += [connect.after_ms for connect in bench.done(Connect)]
    assert pauses == [0, 100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000, 1_000]


def pauses_between_breaks(bench: Bench, times: int, *, held_ms: int = 50) -> list[int]:
    """Break so many streams before they have carried an answer; return the pauses before the next ones."""
    pauses = []
    for _ in range(times):
        bench.tell(Connected)
        bench.at += held_ms
        bench.tell(Disconnected)
        pauses += [connect.after_ms for connect in bench.done(Connect)]
    return pauses


def test_streams_that_break_unanswered_again_and_again_are_tried_ever_more_slowly(near: Bench) -> None:
    near.working(GRANT_A)
    near.host(hostlink.Staged(A, record(A, 0, 10)))
    near.tell(Disconnected)
    assert pauses_between_breaks(near, 9) == [50, 50, 50, 100, 200, 400, 800, 1_500, 1_500]
    near.tell(Connected)
    near.answer(2, CommitOutcome(record(A, 0, 10).staged, Acceptance.ACCEPTED, Rows(10, 100)))
    near.tell(Disconnected)
    assert near.done(Connect) == [Connect(0)], "the master answers again"


def test_a_master_that_is_not_there_is_tried_as_often_as_ever(near: Bench) -> None:
    near.working(GRANT_A)
    pauses = []
    for _ in range(20):
        near.tell(Disconnected)
        pauses += [connect.after_ms for connect in near.done(Connect)]
    assert pauses == [0, *[50] * 19]


def test_streams_that_held_for_a_while_were_well_although_there_was_nothing_to_answer(near: Bench) -> None:
    near.working(GRANT_A)
    assert pauses_between_breaks(near, 9, held_ms=1_000) == [0] * 9


def test_heartbeats_name_leases_and_the_last_answer_seen(bench: Bench) -> None:
    bench.working(GRANT_A, GRANT_B)
    assert bench.session.wake_at == 1_000
    bench.at = 1_000
    bench.tell(Ticked)
    assert bench.sent(Heartbeat) == [Heartbeat(SessionId("s1"), (A, B), 1, done=(0, 0))]


def test_a_finished_lease_makes_room_for_another(bench: Bench) -> None:
    bench.working(GRANT_A, GRANT_B)
    bench.host(hostlink.Staged(A, record(A, 0, 100)))
    assert bench.request().want == 1
    bench.answer(2, CommitOutcome(record(A, 0, 100).staged, Acceptance.ACCEPTED))
    assert list(bench.session.leases) == [B]
    assert bench.told() == [hostlink.HasResults()]


def test_wait_is_obeyed_until_the_pause_is_over_or_a_nudge(bench: Bench) -> None:
    bench.joined()
    bench.answer(1, verdict=Verdict.WAIT)
    bench.at = 500
    bench.tell(Ticked)
    assert bench.sent(Request) == []
    bench.master(Push(verdict=Verdict.WORK))
    assert bench.request().want == 2
    bench.answer(2, verdict=Verdict.WAIT)
    assert bench.session.wake_at == 1_500
    bench.at = 1_500
    bench.tell(Ticked)
    assert bench.request().number == 3


def test_sizing_goes_before_the_commit_and_closes_the_range(bench: Bench) -> None:
    bench.joined(slots=1)
    bench.master(Answer(1, Verdict.WORK, grants=(Grant(A, ShardId(0), Rows(0, UNSIZED)),)), shard(0, None))
    bench.host(hostlink.Sized(A, 30))
    assert bench.request().sizings == (Sizing(A, 30),)
    bench.host(hostlink.Staged(A, record(A, 0, 30)))
    bench.answer(2)
    request = bench.request()
    assert (request.sizings, len(request.commits), request.want) == ((), 1, 1)


def test_an_empty_shard_is_over_once_its_size_is_told(bench: Bench) -> None:
    bench.joined(slots=1)
    bench.master(Answer(1, Verdict.WORK, grants=(Grant(A, ShardId(0), Rows(0, UNSIZED)),)), shard(0, None))
    bench.host(hostlink.Sized(A, 0))
    assert bench.request().sizings == (Sizing(A, 0),)
    assert list(bench.session.leases) == [A]
    bench.answer(2)
    assert not bench.session.leases


# -- rule 15: answers that must not be mistaken for one another ------------------------------------------------------------------
def test_not_master_keeps_everything_and_tries_another(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    request = bench.request()
    bench.answer(2, verdict=Verdict.NOT_MASTER)
    assert bench.done(Connect) == [Connect(0)]
    assert list(bench.session.leases) == [A] and bench.told() == []
    bench.tell(Connected)
    assert bench.request() == request


def test_retry_keeps_the_objects_and_sends_them_in_order(bench: Bench) -> None:
    bench.working(GRANT_A)
    first, second = record(A, 0, 10), record(A, 10, 20)
    bench.host(hostlink.Staged(A, first))
    bench.host(hostlink.Staged(A, second))
    bench.answer(2, CommitOutcome(first.staged, Acceptance.ACCEPTED, Rows(10, 100)))
    third = record(A, 20, 30)
    bench.host(hostlink.Staged(A, third))
    bench.answer(3, CommitOutcome(second.staged, Acceptance.ACCEPTED, Rows(20, 100)))
    fourth = record(A, 30, 40)
    bench.host(hostlink.Staged(A, fourth))
    bench.answer(4, CommitOutcome(fourth.staged, Acceptance.RETRY, Rows(20, 100)))
    assert [commit.record for commit in bench.request().commits] == [third, fourth]


def test_retry_of_the_first_in_line_returns_the_lease(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    bench.answer(2, CommitOutcome(record(A, 0, 10).staged, Acceptance.RETRY, Rows(0, 100)))
    assert bench.request().returns == (Return(A),)
    assert bench.told() == [hostlink.Cut(A, NO_ROWS)]


def test_refused_ends_the_lease_and_makes_the_host_forget_it(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    bench.answer(2, CommitOutcome(record(A, 0, 10).staged, Acceptance.REFUSED))
    assert not bench.session.leases
    assert bench.told() == [hostlink.Cut(A, NO_ROWS)]


def test_refused_with_something_left_computes_what_is_left(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.host(hostlink.Staged(A, record(A, 0, 30)))
    bench.host(hostlink.Staged(A, record(A, 30, 60)))
    bench.answer(2, CommitOutcome(record(A, 0, 30).staged, Acceptance.REFUSED, Rows(50, 100)))
    cut, work = bench.told()
    assert (cut, work.lease, work.rows) == (hostlink.Cut(A, NO_ROWS), A, Rows(50, 100))


# -- cuts and yields -------------------------------------------------------------------------------------------------------------
def test_a_cut_is_passed_on_to_the_host(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.master(Push(cuts=(LeaseCut(A, Rows(0, 40)),)))
    assert bench.told() == [hostlink.Cut(A, Rows(0, 40))]
    bench.master(Push(cuts=(LeaseCut(A, NO_ROWS),)))
    assert bench.told() == [hostlink.Cut(A, NO_ROWS)]
    assert not bench.session.leases


def test_rows_staged_across_a_cut_are_computed_again(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.master(Push(cuts=(LeaseCut(A, Rows(50, 100)),)))
    bench.host(hostlink.Staged(A, record(A, 0, 40)))
    assert bench.told() == [] and bench.sent(Request) == []
    bench.host(hostlink.Staged(A, record(A, 40, 60)))
    assert [work.rows for work in bench.told(hostlink.Work)] == [Rows(50, 100)]
    bench.host(hostlink.Staged(A, record(A, 50, 60, nonce="b")))
    assert [commit.record.start for commit in bench.request().commits] == [50]


def test_yield_commits_the_finished_prefix_and_returns_the_rest(bench: Bench) -> None:
    bench.working(GRANT_A, GRANT_B)
    bench.master(Push(yields=(Yield(B),)))
    assert bench.told() == [hostlink.YieldRest(B)]
    bench.host(hostlink.Staged(B, record(B, 0, 40, 1)))
    bench.answer(2, CommitOutcome(record(B, 0, 40, 1).staged, Acceptance.ACCEPTED, Rows(40, 100)))
    bench.host(hostlink.Released(B))
    request = bench.request()
    assert (request.returns, request.held) == ((Return(B),), (A,))
    bench.answer(3)
    assert list(bench.session.leases) == [A]


# -- rule 18: joining again ------------------------------------------------------------------------------------------------------
def test_a_range_granted_again_goes_on_under_its_new_lease(bench: Bench) -> None:
    bench.working(GRANT_A, GRANT_B)
    bench.master(Push(verdict=Verdict.UNKNOWN_SESSION))
    held = (HeldRange(A, ShardId(0), Rows(0, 100)), HeldRange(B, ShardId(1), Rows(0, 100)))
    assert bench.sent(Join) == [Join(WorkerId("w"), "", held)]
    new = LeaseId(2, 1)
    bench.master(Welcome(Verdict.WORK, SessionId("s2"), Epoch(2), 1_000, regranted=(Grant(new, ShardId(0), Rows(0, 100), 2),)))
    assert bench.told() == [hostlink.Regrant(A, new, 2), hostlink.Cut(B, NO_ROWS)]
    bench.host(hostlink.Staged(new, record(new, 0, 10)))
    assert list(bench.session.leases) == [new]


def test_what_was_staged_under_the_old_lease_is_computed_again(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    bench.answer(2, verdict=Verdict.UNKNOWN_SESSION)
    assert bench.sent(Join)[0].held == (HeldRange(A, ShardId(0), Rows(0, 100)),)
    new = LeaseId(2, 1)
    bench.master(Welcome(Verdict.WORK, SessionId("s2"), Epoch(2), 1_000, regranted=(Grant(new, ShardId(0), Rows(0, 100)),)))
    cut, work = bench.told()
    assert (cut, work.lease, work.rows) == (hostlink.Cut(A, NO_ROWS), new, Rows(0, 100))


def test_an_object_named_after_the_old_lease_is_not_committed(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.master(Push(verdict=Verdict.UNKNOWN_SESSION))
    new = LeaseId(2, 1)
    bench.master(Welcome(Verdict.WORK, SessionId("s2"), Epoch(2), 1_000, regranted=(Grant(new, ShardId(0), Rows(0, 100)),)))
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    assert bench.told(hostlink.Work)[0].rows == Rows(0, 100)
    assert not bench.session.leases[new].staged


def test_what_the_host_says_is_understood_after_two_rejoins(bench: Bench) -> None:
    bench.working(GRANT_A)
    for n in (1, 2):
        bench.master(Push(verdict=Verdict.UNKNOWN_SESSION))
        again = Grant(LeaseId(2, n), ShardId(0), Rows(0, 100))
        bench.master(Welcome(Verdict.WORK, SessionId(f"s{n + 1}"), Epoch(2), 1_000, regranted=(again,)))
    bench.told()
    # It was being staged all the while. Unheard, its rows would be waited for for ever.
    bench.host(hostlink.Staged(A, record(A, 0, 100)))
    assert [(work.lease, work.rows) for work in bench.told(hostlink.Work)] == [(LeaseId(2, 2), Rows(0, 100))]


# -- the host --------------------------------------------------------------------------------------------------------------------
def test_leases_outlive_a_dead_host(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    bench.tell(HostDied, "killed by SIGKILL")
    assert bench.done(StartHost) == [StartHost(0)]
    bench.host(hostlink.Ready(0.1, 1))
    assert [work.rows for work in bench.told(hostlink.Work)] == [Rows(10, 100)]
    assert list(bench.session.leases) == [A]


def test_the_first_in_line_is_failed_when_hosts_keep_dying_on_it(bench: Bench) -> None:
    bench.working(GRANT_A, GRANT_B)
    bench.tell(HostDied, "killed by SIGSEGV")
    bench.host(hostlink.Ready(0.1, 2))
    bench.tell(HostDied, "killed by SIGSEGV")
    (failure,) = bench.request().failures
    assert (failure.lease, failure.kind) == (A, FailureKind.RANGE)
    assert "SIGSEGV" in failure.error
    bench.answer(2)
    assert list(bench.session.leases) == [B]


def test_a_host_that_never_gets_ready_makes_the_worker_give_up(bench: Bench) -> None:
    bench.joined()
    bench.answer(1, verdict=Verdict.WAIT)
    pauses: list[int] = []
    while not bench.sent(Request):
        bench.at += 100
        bench.tell(HostDied, "exit status 1")
        pauses += [start.after_ms for start in bench.done(StartHost)]
    assert pauses[0] == 0
    for pause, middle in zip(pauses[1:], [500, 1_000, 2_000, 4_000], strict=True):
        assert 0.75 * middle <= pause <= 1.25 * middle
    request = bench.request()
    assert request.leaving and request.failures[0].lease is None
    bench.answer(2, verdict=Verdict.DRAIN)
    (end,) = bench.done(Exit)
    assert end.code == 1 and "exit status 1" in end.reason


def test_a_fatal_error_at_start_is_told_even_before_the_master_was_found(bench: Bench) -> None:
    bench.host(hostlink.Failed(None, FailureKind.FATAL, "no module named faces", "Traceback ..."))
    bench.tell(Connected)
    bench.master(Welcome(Verdict.WORK, SessionId("s1"), Epoch(1), 1_000))
    (failure,) = bench.request().failures
    assert (failure.kind, failure.traceback) == (FailureKind.FATAL, "Traceback ...")
    bench.answer(1, verdict=Verdict.DRAIN)
    assert bench.done(Exit) == [Exit(1, "no module named faces")]


def test_a_host_that_cannot_start_again_may_be_the_fault_of_its_node(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.tell(HostDied, "killed by SIGKILL")
    bench.host(hostlink.Failed(None, FailureKind.FATAL, "no CUDA device"))
    assert [failure.cause for failure in bench.request().failures] == [Cause.START_ERROR]
