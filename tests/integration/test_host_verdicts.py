"""Whom a stage host blames: user code for what is hopeless, while the job has no results, and nobody's code for storage that is away."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.core.causes import Cause
from antinfer.core.messages import FailureKind
from antinfer.worker import hostlink
from tests.integration.hosts import Job, collect

pytestmark = pytest.mark.timeout(120)
ROWS = 60
CODE = """
from antinfer import InfraError

class Raises:
    def __call__(self, batch):
        raise ValueError("corrupt image")

class Fetches:
    def setup(self):
        raise InfraError("cannot read s3://models/m.pt: timed out", hint="Try again.")
    def __call__(self, batch):
        return batch
"""


@pytest.mark.parametrize("kind", ["map_batches", "predict"])
def test_a_host_that_meets_bad_rows_first_quarantines_them_when_the_job_has_results(tmp_path: Path, kind: str) -> None:
    (tmp_path / "input").mkdir()
    pq.write_table(pa.table({"x": range(ROWS)}), tmp_path / "input" / "0.parquet")
    job = Job(tmp_path, CODE, pipeline=[{kind: "steps:Raises"}], carryover=["x"], quarantine={"max_fraction": 0.5}, tuning="off")
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        host.send(hostlink.HasResults())
        host.send(work := job.work(0))
        records = collect(host, [work])
        assert host.stop() == 0
    assert sum(record.rows_quarantined for record in records) == ROWS


@pytest.mark.parametrize("kind", ["map_batches", "predict"])
def test_storage_that_user_code_cannot_reach_is_no_fault_of_the_code(tmp_path: Path, kind: str) -> None:
    (tmp_path / "input").mkdir()
    pq.write_table(pa.table({"x": range(ROWS)}), tmp_path / "input" / "0.parquet")
    failed = Job(tmp_path, CODE, pipeline=[{kind: "steps:Fetches"}], tuning="off").fails()
    assert (failed.lease, failed.kind, failed.cause) == (None, FailureKind.STORAGE, Cause.STORAGE), "another try may do"
    assert "steps:Fetches): setup(): cannot read s3://models/m.pt: timed out" in failed.error and "Try again." in failed.error
