"""The session machine: how a worker leaves."""

from __future__ import annotations

import pytest

from antinfer.core.causes import Cause
from antinfer.core.messages import Acceptance, Answer, CommitOutcome, Push, Request, Return, Verdict
from antinfer.core.ranges import Rows
from antinfer.core.scaling import exits
from antinfer.worker import hostlink
from antinfer.worker.signals import Disconnected, DrainAsked, Exit, StopHost, Ticked
from tests.unit.worker.test_session import GRANT_A, A, Bench, record


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_drain_commits_what_is_finished_returns_the_rest_and_leaves(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.tell(DrainAsked, "drained after SIGTERM")
    assert bench.told() == [hostlink.YieldRest(A)]
    bench.host(hostlink.Staged(A, record(A, 0, 10)))
    assert not bench.request().leaving
    bench.host(hostlink.Released(A))
    bench.answer(2, CommitOutcome(record(A, 0, 10).staged, Acceptance.ACCEPTED, Rows(10, 100)))
    request = bench.request()
    assert (request.returns, request.leaving, request.want) == ((Return(A),), True, 0)
    bench.answer(3, verdict=Verdict.DRAIN)
    assert bench.actions == [StopHost(), Exit(0, "drained after SIGTERM")]


def test_a_worker_that_is_taken_away_says_so_by_its_exit_code(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.tell(DrainAsked, "drained after SIGTERM", Cause.PREEMPTED)
    bench.host(hostlink.Released(A))
    bench.answer(2, verdict=Verdict.DRAIN)
    assert bench.done(Exit) == [Exit(exits.TAKEN_AWAY, "drained after SIGTERM")]


def test_a_signal_changes_nothing_for_a_worker_that_leaves_already(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.tell(DrainAsked, "asked to")
    bench.tell(DrainAsked, "drained after SIGTERM", Cause.PREEMPTED)
    bench.host(hostlink.Released(A))
    bench.answer(2, verdict=Verdict.DRAIN)
    assert bench.done(Exit) == [Exit(0, "asked to")]


def test_drain_does_not_wait_for_a_stuck_host_for_ever(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.tell(DrainAsked, "drained")
    while bench.session.wake_at is not None and not bench.sent(Request):
        bench.at = bench.session.wake_at
        bench.tell(Ticked)
    assert bench.at == 18_750
    assert bench.request().leaving and bench.request().returns == (Return(A),)


def test_drain_without_a_master_ends_at_the_deadline(bench: Bench) -> None:
    bench.working(GRANT_A)
    bench.host(hostlink.Staged(A, record(A, 0, 100)))
    bench.tell(Disconnected)
    bench.tell(DrainAsked, "drained")
    assert bench.done(Exit) == []
    bench.at = bench.session.wake_at or 0
    bench.tell(Ticked)
    assert (bench.at, [end.code for end in bench.done(Exit)]) == (25_000, [0])


def test_drain_before_joining_ends_at_once(bench: Bench) -> None:
    bench.tell(DrainAsked, "drained")
    assert bench.actions == [StopHost(), Exit(0, "drained")]


@pytest.mark.parametrize(
    ("verdict", "code"), [(Verdict.DONE, 0), (Verdict.FAILED, 1), (Verdict.UNKNOWN_JOB, 1)], ids=lambda value: str(value)
)
def test_final_verdicts_end_the_worker(bench: Bench, verdict: Verdict, code: int) -> None:
    bench.working(GRANT_A)
    bench.master(Push(verdict=verdict, reason="why"))
    assert bench.actions == [StopHost(), Exit(code, "why")]
    assert bench.tell(Ticked) == [] and bench.session.wake_at is None


def test_grants_to_a_draining_worker_go_straight_back(bench: Bench) -> None:
    bench.joined(slots=1)
    bench.tell(DrainAsked, "drained")
    bench.master(Answer(1, Verdict.WORK, grants=(GRANT_A,)))
    assert bench.request().returns == (Return(A),) and bench.told() == []
