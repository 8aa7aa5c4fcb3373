"""Pytest plugin: the fixture ``antinfer_chaos`` runs a job under a plan of faults, and fails the test unless it comes through whole.

::

    def test_my_job_survives_preemption(antinfer_chaos):
        report = antinfer_chaos("job.yaml", "spot", seconds=20)
        assert report.goodput > 0.5
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from antinfer.testing.chaos import ChaosReport, FaultPlan, Kubernetes

Chaos = Callable[..., "ChaosReport"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("antinfer")
    group.addoption("--antinfer-chaos-seed", type=int, default=0, metavar="N", help="seed of the faults that antinfer_chaos lets strike")


@pytest.fixture
def antinfer_chaos(tmp_path: Path, request: pytest.FixtureRequest) -> Chaos:
    """Return ``chaos(job, plan="spot", seed=None, *, cluster=None, **changes)``: runs, prints what happened, and returns the report of a
    job that came through whole.

    ``cluster`` is an `antinfer.testing.chaos.Kubernetes`; without one the job runs as local processes. ``changes`` are attributes of
    `antinfer.testing.chaos.FaultPlan`, such as ``workers`` and ``seconds``. An `AssertionError` lists what is wrong with the output, or
    says that too few faults met the job.
    """
    default: int = request.config.getoption("--antinfer-chaos-seed")

    def chaos(
        job: Any, plan: FaultPlan | str | Path = "spot", seed: int | None = None, *, cluster: Kubernetes | None = None, **changes: Any
    ) -> ChaosReport:
        # Imported when it is used: a test session that has no such test must not wait for it.
        from antinfer.testing.chaos import FaultPlan, load_plan, run

        faults = replace(plan if isinstance(plan, FaultPlan) else load_plan(plan), **changes)
        chosen = default if seed is None else seed
        print(f"plan {faults.name}, seed {chosen}")  # noqa: T201 - pytest shows it where a test fails
        report = run(job, faults, chosen, cluster=cluster, folder=tmp_path / "chaos", say=print)
        assert report.verdict != "broken", "\n".join(report.problems)
        assert report.verdict == "whole", f"only {len(report.faults)} faults met the job, the plan wants {faults.at_least}"
        return report

    return chaos
