"""When a stage host takes user code for hopeless: only while the job has no results."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.worker import hostlink
from tests.integration.hosts import Job, collect

pytestmark = pytest.mark.timeout(120)
ROWS = 60
CODE = """
class Raises:
    def __call__(self, batch):
        raise ValueError("corrupt image")
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
