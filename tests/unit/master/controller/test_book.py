"""What is kept of each worker between two looks."""

from __future__ import annotations

import pytest

from antinfer.core.causes import Cause
from antinfer.core.scaling.facts import ConditionFacts, ContainerFacts, PodFacts
from antinfer.core.scaling.values import Measure, Observed, WorkerSeen, WorkerState
from antinfer.launchers.port import Sight
from antinfer.master.controller.book import Book
from antinfer.master.controller.sight import JobSight, WorkerSight


class Bench:
    """A book that is shown one worker, on virtual time."""

    def __init__(self, name: str = "job-1-1") -> None:
        self.book = Book()
        self.name = name
        self.pod = PodFacts(name, "preemptible", created_at=1_000, node="n1", phase="Running")

    def look(self, now: int, *pods: PodFacts, known: WorkerSight | None = None) -> Observed:
        job = JobSight(workers={} if known is None else {self.name: known})
        return self.book.observe(Sight(pods or (self.pod,)), job, "job-1", now)

    def worker(self, now: int, known: WorkerSight | None = None) -> WorkerSeen:
        (seen,) = self.look(now, known=known).workers
        return seen


def test_a_worker_is_as_it_is_since_it_came_to_be_so() -> None:
    bench = Bench()
    assert (bench.worker(2_000).state, bench.worker(3_000).since) == (WorkerState.STARTING, 2_000)
    seen = bench.worker(4_000, WorkerSight(leases=1, uncommitted_rows=7))
    assert (seen.state, seen.since, seen.ready_at, seen.uncommitted_rows, seen.idle_since) == (WorkerState.READY, 4_000, 4_000, 7, None)
    assert bench.worker(5_000, WorkerSight()).idle_since == 5_000
    assert bench.worker(6_000, WorkerSight()).idle_since == 5_000
    assert bench.worker(7_000, WorkerSight(leases=1)).idle_since is None


def test_a_worker_that_sets_its_pipeline_up_is_not_idle() -> None:
    assert Bench().worker(2_000, WorkerSight(is_ready=False)).idle_since is None


def test_who_was_drained_stays_so_when_its_session_has_gone() -> None:
    bench = Bench()
    bench.worker(2_000, WorkerSight(is_draining=True))
    bench.pod = PodFacts(bench.name, "preemptible", 1_000, phase="Succeeded", containers=(ContainerFacts("worker", exit_code=0),))
    seen = bench.worker(3_000)
    assert (seen.state, seen.ending and seen.ending.cause) == (WorkerState.ENDED, Cause.DRAINED)


def test_speed_is_rows_by_the_time_of_workers_that_hold_some() -> None:
    bench = Bench()
    for second in range(11):
        observed = bench.look(second * 1_000, known=WorkerSight(leases=1, computed_rows=second * 50))
    measure = observed.measures["preemptible"]
    assert abs(measure.rate - 0.05) < 1e-9
    assert measure.startup_ms == 0, "its first rows came at the moment of its creation"


def test_what_a_worker_had_done_before_we_came_counts_for_nothing() -> None:
    bench = Bench("job-0-1")
    for second in range(11):
        observed = bench.look(second * 1_000, known=WorkerSight(leases=1, computed_rows=1_000_000 + second * 50))
    assert abs(observed.measures["preemptible"].rate - 0.05) < 1e-9


def test_rows_that_were_computed_before_the_first_look_are_in_no_rate() -> None:
    """The master heard of a worker before its pod was to be seen; when it began to compute is known nearly as well then."""
    bench = Bench()
    for second in range(2, 13):
        observed = bench.look(second * 1_000, known=WorkerSight(leases=1, computed_rows=400 + second * 50))
    measure = observed.measures["preemptible"]
    assert abs(measure.rate - 0.05) < 1e-9
    assert measure.startup_ms == 1_000


def test_a_master_that_has_heard_nothing_yet_measures_nothing() -> None:
    """Workers find it one after the other, and tell of all that they have ever computed."""
    bench = Bench("job-0-1")
    for second in range(4):
        assert bench.look(second * 1_000, known=WorkerSight(leases=1)).measures == {}
    for second in range(4, 15):
        observed = bench.look(second * 1_000, known=WorkerSight(leases=1, computed_rows=1_000_000 + second * 50))
    assert abs(observed.measures["preemptible"].rate - 0.05) < 1e-9


def test_time_between_two_reports_counts_with_the_second_but_not_for_ever() -> None:
    bench = Bench()
    for second in range(19):
        observed = bench.look(second * 1_000, known=WorkerSight(leases=1, computed_rows=second // 6 * 300))
    assert abs(observed.measures["preemptible"].rate - 0.05) < 1e-9
    for second in range(19, 55):
        observed = bench.look(second * 1_000, known=WorkerSight(leases=1, computed_rows=900))
    assert observed.measures["preemptible"].rate < 0.02, "one that hangs makes its class no faster"


@pytest.mark.parametrize("every", [1, 5, 9])
def test_what_was_measured_long_ago_counts_less_however_rarely_workers_report(every: int) -> None:
    """One that has slowed down from 100 to 10 rows a second ten minutes ago; half of what is known is from before."""
    bench, rows = Bench(), 0.0
    for second in range(1_201):
        rows += 0.1 * 1_000 if second <= 600 else 0.01 * 1_000
        if second % every == 0:
            told = int(rows)
        observed = bench.look(second * 1_000, known=WorkerSight(leases=1, computed_rows=told))
    assert 0.03 < observed.measures["preemptible"].rate < 0.06


def test_what_an_earlier_reign_measured_is_known_until_more_is() -> None:
    bench = Bench()
    bench.book = Book({"preemptible": Measure(0.02, 0.1, 9_000)})
    measure = bench.look(0, known=WorkerSight(leases=1, computed_rows=0)).measures["preemptible"]
    assert (round(measure.rate, 9), round(measure.loss, 9), measure.startup_ms) == (0.02, 0.1, 9_000)
    for second in range(1, 61):
        observed = bench.look(second * 1_000, known=WorkerSight(leases=1, computed_rows=second * 50))
    assert abs(observed.measures["preemptible"].rate - 0.05) < 0.004


def test_a_worker_that_is_taken_away_costs_once_what_it_had_not_committed() -> None:
    bench = Bench()
    for second in range(11):
        bench.look(second * 1_000, known=WorkerSight(leases=1, computed_rows=second * 100, committed_rows=second * 50))
    disruption = ConditionFacts("DisruptionTarget", True, "PreemptionByScheduler")
    bench.pod = PodFacts(
        bench.name, "preemptible", 1_000, phase="Failed", conditions=(disruption,), containers=(ContainerFacts("worker", exit_code=75),)
    )
    first = bench.look(11_000).measures["preemptible"].loss
    assert 4_500 < first * 600_000 < 8_000, "five seconds' work and its start, of the ten minutes that a loss is reckoned by at least"
    assert bench.look(12_000).measures["preemptible"].loss == first


def test_a_member_whose_pod_has_gone_was_taken_away() -> None:
    bench, other = Bench(), PodFacts("job-1-2", "preemptible", 1_000, phase="Running")
    bench.look(2_000, bench.pod, other, known=WorkerSight(leases=1))
    assert bench.book.taken == ()
    bench.look(3_000, other, known=WorkerSight(leases=1))
    assert bench.book.taken == (bench.name,)
    bench.look(4_000, other, known=WorkerSight(leases=1))
    assert bench.book.taken == (), "it is said once"


def test_whoever_was_asked_to_leave_or_has_left_was_not_taken_away() -> None:
    other = PodFacts("job-1-2", "preemptible", 1_000, phase="Running")
    for last in (WorkerSight(is_draining=True), None):
        bench = Bench()
        bench.look(2_000, bench.pod, other, known=WorkerSight(leases=1))
        bench.look(3_000, other, known=last)
        assert bench.book.taken == ()


def test_a_member_whose_pod_was_evicted_was_taken_away_and_one_that_crashed_was_not() -> None:
    for end, taken in (
        ({"reason": "Preempting", "conditions": (ConditionFacts("DisruptionTarget", True, "PreemptionByScheduler"),)}, True),
        ({"containers": (ContainerFacts("worker", exit_code=139),)}, False),
    ):
        bench = Bench()
        bench.look(2_000, known=WorkerSight(leases=1))
        bench.pod = PodFacts(bench.name, "preemptible", 1_000, phase="Failed", **end)  # type: ignore[arg-type]
        bench.look(3_000, known=WorkerSight(leases=1))
        assert bench.book.taken == ((bench.name,) if taken else ())
