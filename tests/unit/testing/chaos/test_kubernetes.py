"""Faults on a cluster: what of a plan is possible, what is a surprise, and what can be counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from antinfer.errors import UsageError
from antinfer.launchers.kubernetes.facts import pod_facts
from antinfer.launchers.kubernetes.packing import SubmitOptions
from antinfer.testing.chaos import FaultPlan, Kubernetes, Rule, load_plan
from antinfer.testing.chaos.kubernetes.pods import Pod
from antinfer.testing.chaos.kubernetes.possible import check_plan
from antinfer.testing.chaos.kubernetes.venue import KubernetesVenue
from antinfer.testing.chaos.pacing import Pace
from tests.integration.masters import make_job


def rules(plan: FaultPlan) -> list[str]:
    return [str(rule) for rule in plan.rules]


@pytest.mark.parametrize("name", ["spot", "rolling"])
def test_ready_made_plans_are_possible(name: str) -> None:
    check_plan(load_plan(name).under("kubernetes"))


def test_a_rule_may_be_for_one_launcher_alone() -> None:
    rolling = load_plan("rolling")
    assert rules(rolling.under("local")) == ["term worker", "term master", "kill store"]
    assert rules(rolling.under("kubernetes")) == ["term worker", "term master"]


def test_what_is_impossible_is_named_once() -> None:
    plan = FaultPlan("mine", (Rule("kill", "store"), Rule("kill", "worker"), Rule("stop", "master"), Rule("kill", "store")))
    with pytest.raises(UsageError, match="plan mine cannot be played on Kubernetes: kill store, stop master: needs hands"):
        check_plan(plan)
    with pytest.raises(UsageError, match="store: server"):
        check_plan(FaultPlan("mine", (Rule("kill", "worker"),), store="server"))


def pod(phase: str = "Running", *, code: int | None = None, deleted: bool = False, condition: str = "", **changes: Any) -> Pod:
    state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
    obj = {
        "metadata": {"name": "score-1-1", **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {})},
        "spec": {"containers": [{"name": "worker"}]},
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": "helper", "state": {"running": {}}}, {"name": "worker", "state": state}],
            "conditions": [{"type": condition, "status": "True"}] if condition else [],
        },
    }
    return Pod("u", "worker", pod_facts(obj, 0), 0.0, **changes)


def test_a_pod_that_fails_is_a_surprise_unless_somebody_took_it_away() -> None:
    assert pod("Failed", code=137).fell_by_itself
    assert not pod("Succeeded", code=0).fell_by_itself
    assert not pod("Failed", code=137, deleted=True).fell_by_itself
    assert not pod("Failed", code=137, condition="DisruptionTarget").fell_by_itself
    assert not pod("Failed", code=137, doomed=True).fell_by_itself


def test_a_fault_meets_pods_that_nobody_has_told_to_go() -> None:
    assert pod().is_whole
    assert not any(each.is_whole for each in (pod("Pending"), pod(deleted=True), pod(doomed=True), pod(ended_at=1.0)))
    assert (pod().exit_code, pod("Failed", code=75).exit_code) == (None, 75)


@pytest.fixture
def venue(tmp_path: Path) -> KubernetesVenue:
    job = make_job(tmp_path, sink={"path": str(tmp_path / "out")})
    return KubernetesVenue(job, tmp_path, Kubernetes(SubmitOptions("image")), print)


def count(venue: KubernetesVenue, run: str, rows: int) -> None:
    """Run so many rows through the first step of the job, as one process of it would."""
    import pyarrow as pa

    step = venue.prepare(run, FaultPlan("none", workers=1), 0.0).pipeline[0]
    Pace(**step.args)(pa.record_batch({"a": range(rows)}))


def test_rows_are_counted_where_the_folder_shows_all_of_them(venue: KubernetesVenue) -> None:
    count(venue, "undisturbed", 10)
    count(venue, "disturbed", 12)
    assert (venue.rows_computed("undisturbed", 10), venue.rows_computed("disturbed", 10)) == (10, 12)


def test_a_folder_that_showed_too_few_rows_once_is_not_believed(venue: KubernetesVenue) -> None:
    count(venue, "undisturbed", 9)
    count(venue, "disturbed", 12)
    assert (venue.rows_computed("undisturbed", 10), venue.rows_computed("disturbed", 10)) == (None, None)


def test_outputs_of_two_sessions_are_never_the_same(venue: KubernetesVenue, tmp_path: Path) -> None:
    first = venue.prepare("disturbed", FaultPlan("none"), 0.0).sink.path
    other = KubernetesVenue(make_job(tmp_path, sink={"path": str(tmp_path / "out")}), tmp_path, Kubernetes(SubmitOptions("image")), print)
    second = other.prepare("disturbed", FaultPlan("none"), 0.0).sink.path
    assert first != second
    assert {Path(each).name[:10] for each in (first, second)} == {"out-chaos-"}
    venue.remove_outputs()
    assert [path.name for path in tmp_path.glob("out-chaos-*")] == [f"{Path(second).name}.counts"]
