"""A job as it is run under test."""

from __future__ import annotations

from pathlib import Path

import pytest

from antinfer.testing.chaos.plan import FaultPlan
from antinfer.testing.chaos.preparing import prepare
from tests.integration.masters import make_job


@pytest.mark.parametrize(("rows_per_second", "size"), [(1_000.0, 250), (100_000.0, 4_096), (0.0, 4_096)])
def test_batches_fill_in_a_fraction_of_a_task_however_slow_the_job_is_made(tmp_path: Path, rows_per_second: float, size: int) -> None:
    job = make_job(tmp_path, pipeline=[{"predict": "steps:Same", "batch_size": 4_096}])
    paced = prepare(job, FaultPlan("none"), str(tmp_path / "other"), str(tmp_path / "counts"), rows_per_second=rows_per_second)
    assert [stage.batch_size for stage in paced.pipeline][1:] == [size]
    assert paced.task.rows == ("auto" if not rows_per_second else rows_per_second / 2)


def test_a_bucket_keeps_its_options_and_a_cluster_has_as_many_workers_as_the_plan(tmp_path: Path) -> None:
    storage = {"region": "here"}
    job = make_job(tmp_path, sink={"path": "s3://bucket/out", "options": {"storage": storage}}, workers={"max": 9, "surge": 1})
    there = prepare(job, FaultPlan("none"), "s3://bucket/other", "", rows_per_second=0.0, workers=3)
    assert (there.sink.path, there.sink.options["storage"]) == ("s3://bucket/other", storage)
    assert (there.workers.min, there.workers.max, there.workers.surge) == (3, 3, 1)
    here = prepare(job, FaultPlan("none"), str(tmp_path / "other"), "", rows_per_second=0.0)
    assert "storage" not in here.sink.options and here.workers == job.workers
