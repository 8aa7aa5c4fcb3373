"""The session machine: ranges shared with idle workers, progress, commit intervals, and why a worker leaves."""

from __future__ import annotations

import pytest

from antinfer.core.causes import Cause
from antinfer.core.ids import Epoch, SessionId
from antinfer.core.messages import Acceptance, CommitOutcome, Heartbeat, Push, Return, Verdict, Welcome, Yield
from antinfer.core.ranges import Rows
from antinfer.worker import hostlink
from antinfer.worker.signals import Connected, DrainAsked, HostDied, Ticked
from tests.unit.worker.test_session import GRANT_A, GRANT_B, A, B, Bench, record


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_shared_range_goes_on_with_what_is_kept_and_the_rest_goes_back(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.master(Push(yields=(Yield(A, 50),)))
    assert bench.told() == [hostlink.YieldRest(A, 50)]
    bench.host(hostlink.Kept(A, 60))
    request = bench.request()
    assert (request.returns, request.held) == ((Return(A, 60),), (A,)), "the host had got beyond row 50"
    bench.host(hostlink.Staged(A, record(A, 0, 60)))
    bench.answer(2)
    assert bench.request().commits[0].record.stop == 60 and bench.request().returns == ()
    bench.answer(3, CommitOutcome(record(A, 0, 60).staged, Acceptance.ACCEPTED))
    assert not bench.session.leases


def test_rows_that_go_back_are_told_although_the_kept_ones_were_committed_before(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.host(hostlink.Staged(A, record(A, 0, 60)))
    bench.master(Push(yields=(Yield(A, 50),)))
    bench.host(hostlink.Kept(A, 60))
    bench.answer(2, CommitOutcome(record(A, 0, 60).staged, Acceptance.ACCEPTED, Rows(60, 100)))
    assert bench.request().returns == (Return(A, 60),)
    bench.answer(3)
    assert not bench.session.leases


def test_a_range_is_shared_although_the_host_is_away(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    bench.answer(2, CommitOutcome(record(A, 0, 10).staged, Acceptance.ACCEPTED, Rows(10, 100)))
    bench.tell(HostDied, "killed")
    bench.master(Push(yields=(Yield(A, 50),)))
    assert bench.request().returns == (Return(A, 50),)
    bench.answer(3)
    bench.host(hostlink.Ready(0.1, 1))
    assert [work.rows for work in bench.told(hostlink.Work)] == [Rows(10, 50)]


def test_rows_that_are_kept_are_not_blamed_for_what_died_of_rows_that_went_back(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.tell(HostDied, "killed by SIGSEGV")
    bench.master(Push(yields=(Yield(A, 50),)))
    bench.answer(2)
    bench.host(hostlink.Ready(0.1, 1))
    bench.tell(HostDied, "killed by SIGSEGV")
    assert bench.session.leases[A].failure is None, "the first one may have died of a row behind the 50th"
    bench.host(hostlink.Ready(0.1, 1))
    bench.tell(HostDied, "killed by SIGSEGV")
    assert bench.session.leases[A].failure is not None


def test_the_master_hears_how_far_each_lease_is(bench: Bench) -> None:
    bench.working(GRANT_A, GRANT_B)
    bench.host(hostlink.Progress(30, (), ((A, 30), (B, 5))))
    bench.host(hostlink.Staged(B, record(B, 0, 10, 1)))
    assert bench.request().done == (30, 10)
    bench.at += 1_000
    bench.tell(Ticked)
    assert bench.sent(Heartbeat)[0].done == (30, 10)


def test_the_commit_interval_reaches_every_host(bench: Bench) -> None:
    bench.tell(Connected)
    bench.master(Welcome(Verdict.WORK, SessionId("s1"), Epoch(1), heartbeat_ms=1_000, commit_ms=30_000))
    assert bench.told() == []
    bench.host(hostlink.Ready(0.1, 2))
    assert bench.told() == [hostlink.CommitEvery(30_000)]
    bench.master(Push(commit_ms=9_000))
    assert bench.told() == [hostlink.CommitEvery(9_000)]
    bench.tell(HostDied, "killed")
    bench.host(hostlink.Ready(0.1, 2))
    assert bench.told() == [hostlink.CommitEvery(9_000)]


@pytest.mark.parametrize("cause", [Cause.PREEMPTED, Cause.DRAINED])
def test_a_worker_says_why_it_leaves(bench: Bench, cause: Cause) -> None:
    bench.working()
    bench.tell(DrainAsked, "the node goes away", cause)
    assert bench.request().leaving
    assert bench.request().cause is cause
