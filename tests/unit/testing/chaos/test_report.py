"""Verdict, figures and picture of a run under faults, from what was seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from antinfer.errors import InfraError
from antinfer.rpc.values import Status, WorkerStatus
from antinfer.testing.chaos.comparison import Comparison
from antinfer.testing.chaos.conductor import Run
from antinfer.testing.chaos.happenings import Chronicle, Fault, Recovery
from antinfer.testing.chaos.hits import commits
from antinfer.testing.chaos.plan import FaultPlan
from antinfer.testing.chaos.report import ChaosReport
from antinfer.testing.chaos.timeline import picture
from antinfer.testing.chaos.watching import Sample


def fault(at_s: float = 1.0, recovered_s: float | None = 0.5, target: str = "worker") -> Fault:
    return Fault("kill", target, "worker-1", at_s, 0.2, "1 s", {"status": -9}, 0.0, recovered_s)


def a_run(seconds: float, *faults: Fault, **changes: Any) -> Run:
    samples = [Sample(100 + at, int(100 * at / seconds), None) for at in range(int(seconds) + 1)]
    chronicle = Chronicle(list(faults), spans=[("master", -1.0, seconds), ("worker-1", -0.5, 1.0), ("worker-2", 1.0, seconds)])
    return replace(Run(100.0, seconds, 100, samples, chronicle, None, [], []), **changes)


def a_report(**changes: Any) -> ChaosReport:
    report = ChaosReport(
        job="job",
        plan=FaultPlan("mine", at_least=1),
        seed=3,
        input_rows=100,
        undisturbed=a_run(8.0),
        disturbed=a_run(10.0, fault(), fault(4.0, 1.5), fault(6.0, None, "master")),
        comparison=Comparison(rows=100),
        input_faults=(),
        audit_faults=(),
        accumulators="same",
        rows_computed=125,
        folder=Path("somewhere"),
    )
    return replace(report, **changes)


def test_what_it_cost() -> None:
    report = a_report()
    assert report.verdict == "whole"
    assert report.goodput == pytest.approx(0.8)
    assert (report.rows_recomputed, report.wasted) == (25, 0.2)
    killed = report.recoveries()["kill worker"]
    assert (killed.faults, killed.recovered, killed.median_s, killed.longest_s) == (2, 2, 1.0, 1.5)
    assert report.recoveries()["kill master"].median_s is None
    assert json.loads(json.dumps(report.to_json()))["faults_fired"] == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"comparison": Comparison(rows=100, lost=1)},
        {"comparison": Comparison(rows=100, doubled=1)},
        {"comparison": Comparison(rows=100, differing=1, beyond=1)},
        {"comparison": Comparison(rows=100, differing=1), "plan": FaultPlan("mine", values="exact")},
        {"accumulators": "different"},
        {"accumulators": "close", "plan": FaultPlan("mine", accumulators="exact")},
        {"audit_faults": ("audit: row_hash",)},
        {"input_faults": ("the input has 101 rows",)},
        {"disturbed": a_run(10.0, fault(), left_behind=["123 python"])},
        {"disturbed": a_run(10.0, fault(), bugs=["InvariantViolation"])},
        {"disturbed": a_run(10.0, fault(), failure=InfraError("gone"))},
        {"disturbed": a_run(10.0, fault(), chronicle=Chronicle([fault()], surprises=["a worker died by itself"]))},
    ],
)
def test_whatever_is_wrong_breaks_it(changes: dict[str, Any]) -> None:
    report = a_report(**changes)
    assert report.problems
    assert report.verdict == "broken"


def test_close_values_are_whole_unless_the_plan_is_strict() -> None:
    assert a_report(comparison=Comparison(rows=100, differing=7), accumulators="close").verdict == "whole"
    off = FaultPlan("mine", values="off", accumulators="off")
    assert a_report(comparison=Comparison(rows=100, differing=7, beyond=7), accumulators="different", plan=off).verdict == "whole"


def test_accumulators_over_other_rows_differ_rightly() -> None:
    assert a_report(comparison=Comparison(rows=100, given_up=1), accumulators="different").verdict == "whole"


def test_rows_that_nobody_could_count_are_unknown() -> None:
    report = a_report(rows_computed=None)
    assert (report.verdict, report.rows_recomputed, report.wasted) == ("whole", None, None)
    assert report.to_json()["rows_recomputed"] is None
    assert "an unknown share of the work" in picture(report)


def test_too_few_faults_prove_nothing() -> None:
    assert a_report(plan=FaultPlan("mine", at_least=4)).verdict == "unproven"


def test_a_fault_is_got_over_when_all_was_seen_in_order_and_afterwards() -> None:
    def phase(wanted: str) -> Any:
        return lambda sample: sample.status is not None and sample.status.phase == wanted

    def sample(at: float, phase: Any) -> Sample:
        return Sample(at, 0, Status("job", "out", 1, phase))

    hit = fault(recovered_s=None)
    recovery = Recovery(hit, 10.0, [phase("planning"), phase("running")])
    assert not recovery.look(sample(9.0, "planning"))
    assert not recovery.look(sample(11.0, "running"))
    assert not recovery.look(sample(11.5, "planning"))
    assert recovery.look(sample(12.5, "running"))
    assert hit.recovered_s == 2.5


def test_the_picture_shows_every_fault_and_every_life() -> None:
    report = a_report()
    drawn = ElementTree.fromstring(picture(report))
    titles = [each.text or "" for each in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert sum("kill worker (worker-1)" in title for title in titles) == 2
    assert sum("kill master" in title for title in titles) == 1
    assert {"worker-1: 0.0 s to 1.0 s", "worker-2: 1.0 s to 10.0 s"} <= set(titles)
    assert {"undisturbed", "under faults"} <= set(titles)


def test_commits_of_a_worker_are_counted_anew_in_each_reign() -> None:
    def sample(epoch: int, rows: int) -> Sample:
        return Sample(0.0, 0, Status("job", "out", epoch, "running", workers=(WorkerStatus("w", "working", 1, rows, 0.0),)))

    has_committed = commits("w", sample(1, 500))
    assert [has_committed(sample(1, rows)) for rows in (400, 500, 501)] == [False, False, True]
    assert [has_committed(sample(2, rows)) for rows in (0, 1)] == [False, True]


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        ({"pids": [7], "status": -9, "left": []}, "pid 7, killed by SIGKILL"),
        ({"pids": [7], "signal": "SIGTERM", "status": 75}, "pid 7, exit status 75"),
        ({"pids": [1, 2, 3, 4, 5], "stopped": 5}, "pid 1, 2, 3 and 2 more, 5 stopped"),
        ({"pids": [7], "state": "Z"}, "pid 7, gone"),
        ({"point": "commit.staged", "action": "kill", "pids": [7], "file": "1.part", "bytes_lost": 4096}, "4,096 bytes lost of 1.part"),
        ({"connections": 2, "bytes_before": 1000}, "2 connections, 1,000 bytes before"),
        ({"pod": "w-1", "uid": "ab", "grace_s": 0, "gone_s": 1.25, "exit_code": 137}, "pod w-1, uid ab, gone after 1.2 s, exit code 137"),
    ],
)
def test_every_proof_can_be_said(proof: dict[str, Any], said: str) -> None:
    assert said in replace(fault(), proof=proof).evidence()
