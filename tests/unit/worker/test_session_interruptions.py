"""The session machine: what it tells of interruptions that were mended."""

from __future__ import annotations

import pytest

from antinfer.core.causes import Cause
from antinfer.core.ids import Epoch, LeaseId, SessionId
from antinfer.core.messages import (
    Acceptance,
    Answer,
    AtWork,
    CommitOutcome,
    Grant,
    Heartbeat,
    Interruption,
    Join,
    Request,
    Verdict,
    Welcome,
)
from antinfer.core.ranges import Rows
from antinfer.worker import hostlink, interruptions
from antinfer.worker.signals import Connected, Disconnected, DrainAsked, HostDied, Ticked
from tests.unit.worker.test_session import GRANT_A, A, Bench, record

CRASH = Interruption(Cause.PROCESS_CRASH, detail="Segfault", ranges=(AtWork(A, Rows(0, 8)),))


@pytest.fixture
def bench() -> Bench:
    return Bench().working(GRANT_A)


def beat(bench: Bench, ms: int = 1_000) -> None:
    bench.at += ms
    bench.tell(Ticked)


def test_it_goes_in_place_of_the_next_sign_of_life(bench: Bench) -> None:
    bench.host(hostlink.Interrupted(CRASH))
    assert not bench.actions
    beat(bench)
    assert bench.request().interruptions == (CRASH,) and not bench.sent(Heartbeat)
    bench.answer(2)
    beat(bench)
    assert bench.sent(Heartbeat) and not bench.sent(Request)


def test_it_goes_with_a_commit_that_comes_before(bench: Bench) -> None:
    bench.host(hostlink.Interrupted(CRASH))
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    assert bench.request().interruptions == (CRASH,) and bench.request().commits


def test_what_comes_while_a_request_is_under_way_goes_with_the_next(bench: Bench) -> None:
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    bench.host(hostlink.Interrupted(CRASH))
    beat(bench)
    assert not bench.sent(Request)
    bench.answer(2, CommitOutcome(record(A, 0, 10).staged, Acceptance.ACCEPTED, Rows(10, 100)))
    beat(bench)
    assert bench.request().interruptions == (CRASH,)


def test_a_request_that_was_never_answered_tells_it_again_in_the_next_session(bench: Bench) -> None:
    bench.host(hostlink.Interrupted(CRASH))
    beat(bench)
    bench.tell(Disconnected)
    bench.tell(Connected)
    assert bench.request().interruptions == (CRASH,), "repeated verbatim"
    bench.master(Answer(2, Verdict.UNKNOWN_SESSION))
    assert bench.sent(Join)
    again = LeaseId(1, 7)
    bench.host(hostlink.Interrupted(CRASH))
    bench.master(Welcome(Verdict.WORK, SessionId("s2"), Epoch(1), 1_000, (Grant(again, GRANT_A.shard, GRANT_A.rows, 2),)))
    bench.host(hostlink.Interrupted(CRASH))
    beat(bench)
    told = bench.request().interruptions
    assert [each.cause for each in told] == [Cause.PROCESS_CRASH] * 3
    assert told[-1].ranges == (AtWork(again, Rows(0, 8)),), "under the name that the master knows"


def test_a_dead_host_is_told_with_the_rows_that_were_first_in_line(bench: Bench) -> None:
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    bench.answer(2, CommitOutcome(record(A, 0, 10).staged, Acceptance.ACCEPTED, Rows(10, 100)))
    bench.tell(HostDied, "Killed: it was killed by SIGKILL", Cause.OUT_OF_MEMORY)
    beat(bench)
    (told,) = bench.request().interruptions
    assert (told.cause, told.ranges) == (Cause.OUT_OF_MEMORY, (AtWork(A, Rows(10, 100)),)) and "SIGKILL" in told.detail


def test_a_death_that_fails_its_lease_is_told_as_that_alone(bench: Bench) -> None:
    for _ in range(2):
        bench.host(hostlink.Ready(0.1, 1))
        bench.tell(HostDied, "killed by SIGSEGV")
    request = bench.request()
    assert [failure.cause for failure in request.failures] == [Cause.HOST_DIED] and len(request.interruptions) == 1


def test_a_worker_says_that_it_is_about_to_leave_with_the_first_rows_that_go_back(bench: Bench) -> None:
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    assert bench.request().cause is Cause.UNKNOWN
    bench.answer(2, CommitOutcome(record(A, 0, 10).staged, Acceptance.ACCEPTED, Rows(10, 100)))
    bench.tell(DrainAsked, "the node goes away", Cause.PREEMPTED)
    bench.host(hostlink.Staged(A, record(A, 10, 20)))
    assert (bench.request().leaving, bench.request().cause) == (False, Cause.PREEMPTED)


def test_more_than_a_request_should_hold_is_counted_and_not_kept() -> None:
    waiting: list[Interruption] = []
    for n in range(1_000):
        interruptions.add(waiting, Interruption(Cause.PROCESS_AGED, detail=f"{n} " + "x" * 1_000))
    interruptions.add(waiting, CRASH)
    assert len(waiting) <= 51 and sum(each.times for each in waiting) == 1_001
    assert waiting[-1] == CRASH and waiting[-2].detail.startswith("999 ") and len(waiting[-2].detail) <= 300


def test_the_link_carries_it_whole() -> None:
    for told in (CRASH, Interruption(Cause.GPU_OOM)):
        assert hostlink.decode(hostlink.encode(hostlink.Interrupted(told))) == hostlink.Interrupted(told)
