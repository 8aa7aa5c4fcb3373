"""Whole jobs whose workers the controller starts and gives back: the real core, sessions and controller, and policies compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from antinfer.core.scaling.values import Allowance, Desired, ScalingPolicy
from antinfer.testing.sim import fleet
from antinfer.testing.sim.fleet import policies
from tests.sim.test_fleet import AUTO

PLAIN = fleet.Conditions(workers=24, shards=400, rows=2_000, setup=5.0, engine=AUTO, commit_every=None, speeds=fleet.Speeds(slow_share=0))
SPOT = PLAIN.but(losses=fleet.Losses(preempted_every=200, master_dies_every=60, parted_every=60, parted_share=0.1))
NEED_S = PLAIN.total_rows / PLAIN.speeds.mean
"""Time that one worker needs for all of it."""


def wants(most: int = 24, **desired: object) -> Desired:
    return Desired("", least=1, most=most, **desired)  # type: ignore[arg-type]


def test_a_job_takes_all_workers_that_there_is_a_place_for_and_ends_whole(seed: int) -> None:
    report = fleet.run(SPOT.but(scaling=fleet.Scaling(wants())), seed)
    assert report.ok, report
    assert report.masters > 1 and report.preempted > 0, f"nothing happened to anybody: {report}"
    assert report.workers_started >= 24, report
    assert report.makespan_s < 2.5 * NEED_S / 24 + 60, report


def test_a_job_of_eight_places_never_has_more_workers(seed: int) -> None:
    job = fleet.Job(SPOT.but(scaling=fleet.Scaling(wants(most=8))), seed)
    report = job.run()
    assert report.ok, report
    assert job.pods.most == 8
    assert report.worker_s < 8 * report.makespan_s
    assert report.worker_s < 1.3 * NEED_S, report


@pytest.mark.parametrize("conditions", [PLAIN, SPOT], ids=["calm", "spot"])
def test_a_deadline_is_met_with_hardly_more_workers_than_that_takes(conditions: fleet.Conditions, seed: int) -> None:
    """Whoever rules: what one master has measured the next one goes on with."""
    deadline_s = 5 * NEED_S / 24
    report = fleet.run(conditions.but(scaling=fleet.Scaling(wants(deadline_at=round(1_000 * deadline_s)))), seed)
    assert report.ok, report
    # Of 500 jobs whose workers and masters are taken away two in a hundred end after their deadline, the last one 7 % late.
    assert 0.5 * deadline_s < report.makespan_s <= 1.1 * deadline_s, report
    assert report.worker_s < 1.4 * NEED_S, report


def test_workers_on_demand_are_not_taken_away(seed: int) -> None:
    spot, half = (fleet.run(SPOT.but(scaling=fleet.Scaling(wants(on_demand=share), protected=12)), seed) for share in (0.0, 1.0))
    assert spot.ok and half.ok, f"{spot}\n\n{half}"
    assert spot.preempted > 0 and half.preempted == 0


def test_a_budget_that_is_used_up_leaves_the_least_that_was_asked_for(seed: int) -> None:
    hours = NEED_S / 3600
    desired = wants(allowance=Allowance(gpu_hours=0.3 * hours))
    report = fleet.run(PLAIN.but(scaling=fleet.Scaling(desired)), seed)
    assert not report.ok and "budget" in report.problems[0], report
    enough = fleet.run(PLAIN.but(scaling=fleet.Scaling(replace(desired, allowance=Allowance(gpu_hours=1.5 * hours)))), seed)
    assert enough.ok and enough.worker_s <= 1.5 * NEED_S, enough


def test_the_band_around_a_deadline_saves_starts() -> None:
    """Without one, preemption makes workers come and go for nothing."""
    job = policies.JOBS["spot"].but(workers=24, shards=400)
    started = {name: sum(fleet.run(policies.POLICIES[name](job), seed).workers_started for seed in range(4)) for name in policies.DEADLINES}
    shipped, without = (started[name] for name in policies.DEADLINES)
    assert shipped < without, started


def test_growth_in_steps_costs_a_job_that_takes_all_there_is_seconds_alone() -> None:
    job = PLAIN.but(scaling=fleet.Scaling(wants()))
    steps = fleet.run(job, 1)
    scaling = replace(job.scaling, desired=wants(policy=ScalingPolicy(grow_ms=1)))  # type: ignore[type-var]
    at_once = fleet.run(job.but(scaling=scaling), 1)
    assert steps.ok and at_once.ok
    assert steps.makespan_s < at_once.makespan_s + 10, f"{steps}\n\n{at_once}"
