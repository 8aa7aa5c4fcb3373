"""Whole jobs: the real core and the real sessions with many workers, everything that can happen to them, and the policies compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from antinfer.core import guards
from antinfer.core.interval import IntervalPolicy
from antinfer.core.ranges import RowSet
from antinfer.testing.sim import fleet
from antinfer.testing.sim.__main__ import main
from antinfer.testing.sim.fleet import policies
from antinfer.testing.sim.fleet.books import Coverage
from antinfer.testing.sim.fleet.command import trouble
from antinfer.testing.sim.fleet.shrink import shrink

SMALL = fleet.Conditions(workers=40, shards=300, rows=500, setup=2.0)
AUTO = replace(SMALL.engine, interval=IntervalPolicy())
ROUGH = SMALL.but(
    heavy_share=0.01,
    bad_every=997,
    poison=2,
    fan_out=3,
    commit_every=None,
    engine=AUTO,
    speeds=fleet.Speeds(rows_per_s=100, slow_share=0.05),
    losses=fleet.Losses(
        preempted_every=60, frozen_every=300, frozen_for=100, parted_every=30, parted_share=0.1, parted_for=25, master_dies_every=25
    ),
)


def test_a_job_ends_whole_whatever_happens_to_its_workers(seed: int) -> None:
    report = fleet.run(ROUGH, seed)
    assert report.ok, report
    guilty = -(-ROUGH.total_rows // 997) + ROUGH.poison
    assert guilty - ROUGH.poison <= report.rows_quarantined <= guilty, report
    assert min(report.preempted, report.parted, report.masters - 1) > 0, f"nothing happened to anybody: {report}"
    assert report.counters["rows_out"] == 3 * (ROUGH.total_rows - report.rows_quarantined)


@pytest.mark.slow
def test_hundreds_of_workers_and_thousands_of_shards(seed: int) -> None:
    report = fleet.run(trouble(300, 6_000, 1_000), seed)
    assert report.ok, report
    assert report.preempted > 30 and report.masters > 1, f"little happened to anybody: {report}"


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_ten_thousand_workers_and_a_million_shards(seed: int) -> None:
    report = fleet.run(trouble(10_000, 1_000_000, 1_000), seed)
    print(report)
    assert report.ok and report.cpu_s < 1_800, report
    assert report.preempted > 1_000 and report.masters > 1, f"little happened to anybody: {report}"


def test_thirty_workers_taken_at_once_lose_no_shard(seed: int) -> None:
    """Of forty, and again when all are back; the master dies in between, and some of them vanish without breaking their connections."""
    losses = fleet.Losses(swept_at=(10.0, 25.0), silent_share=0.3, replaced_after=5.0, master_dies_every=15)
    report = fleet.run(SMALL.but(speeds=fleet.Speeds(rows_per_s=100), losses=losses), seed)
    assert report.ok, report
    assert report.preempted == 60, f"not all were taken: {report}"
    assert report.rows_quarantined == 0, report


def test_a_calm_job_computes_every_row_once_and_about_as_fast_as_can_be(seed: int) -> None:
    report = fleet.run(SMALL.but(shards=1_500, speeds=fleet.Speeds(slow_share=0.0)), seed)
    assert report.ok, report
    assert report.wasted < 0.01, report
    assert report.makespan_s < 1.25 * report.ideal_s + SMALL.setup + 3, report


def test_a_job_is_decided_by_its_seed_alone() -> None:
    job = ROUGH.but(shards=60)
    first, second, other = (fleet.run(job, number).to_json() for number in (5, 5, 6))
    for report in (first, second, other):
        del report["cpu_s"], report["peak_mib"]
    assert first == second
    assert first != other


def test_a_row_that_is_given_to_two_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "rows_freed", lambda rows, others: [rows])
    losses = fleet.Losses(frozen_every=20, frozen_for=60, preempted_every=40, notice_share=0)
    engine = replace(AUTO, copy_after_ms=2_000, tail_ms=None)
    job = SMALL.but(shards=60, losses=losses, engine=engine, commit_every=0.0, speeds=fleet.Speeds(rows_per_s=100))
    problems = [problem for number in range(3) for problem in fleet.run(job, number).problems]
    assert any(problem.startswith("partition") for problem in problems), problems


def test_a_staged_object_that_is_thrown_away_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "may_collect", lambda staged, standing, kept, closed_below: True)
    report = fleet.run(SMALL.but(engine=replace(AUTO, collect_ms=200)), 1)
    assert any("neither staged nor published" in problem for problem in report.problems), report


def test_a_job_that_goes_wrong_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "may_collect", lambda staged, standing, kept, closed_below: True)
    job = SMALL.but(shards=120, engine=replace(AUTO, collect_ms=200), bad_every=997, losses=fleet.Losses(preempted_every=60))
    failed = fleet.run(job, 1)
    assert not failed.ok
    small, again = shrink(job, 1, failed)
    assert not again.ok and again.problems == fleet.run(small, 1).problems
    assert small.shards * small.workers < job.shards * job.workers / 20 and not small.losses.preempted_every, small
    monkeypatch.undo()
    assert fleet.run(small, 1).ok
    with pytest.raises(ValueError, match="nothing goes wrong"):
        shrink(small, 1, fleet.run(small, 1))


def test_coverage_finds_the_row_that_comes_twice() -> None:
    coverage = Coverage(2, 10)
    coverage.add(0, 0, 10)
    coverage.add(1, 4, 7)
    with pytest.raises(ValueError, match="shard 0 is whole"):
        coverage.add(0, 3, 4)
    with pytest.raises(ValueError, match=r"shard 1: \[6, 8\) overlaps"):
        coverage.add(1, 6, 8)
    assert coverage.missing() == [1]
    coverage.add(1, 0, 4)
    coverage.add(1, 7, 10)
    assert coverage.missing() == []
    assert RowSet([(0, 10)]).gaps(0, 10) == []


def test_the_tail_is_worth_what_it_costs() -> None:
    """A few heavy shards: sharing their rest must shorten the job, and more than it wastes."""
    job = policies.JOBS["heavy shards"].but(workers=16, shards=80, setup=0.5, heavy_share=0.03)
    shipped, without = (fleet.run(policies.POLICIES[name](job), 7) for name in ("as shipped", "none of the three"))
    assert shipped.ok and without.ok
    assert shipped.makespan_s < 0.8 * without.makespan_s, f"{shipped}\n\n{without}"


def test_the_commands_print_what_they_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", "--workers", "20", "--shards", "100", "--rows", "200", "--seed", "1"]) == 0
    assert "no violation" in capsys.readouterr().out
    assert main(["--seeds", "3"]) == 0
    assert "3 seeds, 0 violations" in capsys.readouterr().out
