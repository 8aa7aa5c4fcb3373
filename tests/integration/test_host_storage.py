"""A stage host whose storage is slow, away for a while, full or forbidden: what it waits out, what it gives up, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.core.messages import FailureKind
from antinfer.faultpoints import VARIABLE
from antinfer.testing.chaos.points import PointFolder
from antinfer.worker import hostlink
from tests.integration.hosts import Job, collect

pytestmark = pytest.mark.timeout(120)
ROWS = 3_000
DOUBLE = "def double(batch):\n    return {'y': batch['x'] * 2}\n"


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PointFolder]:
    folder = PointFolder(tmp_path / "points")
    monkeypatch.setenv(VARIABLE, str(folder.path))
    return folder


@pytest.fixture
def job(tmp_path: Path) -> Job:
    folder = tmp_path / "input"
    folder.mkdir()
    for index in range(2):
        table = pa.table({"x": range(index * ROWS, (index + 1) * ROWS)})
        pq.write_table(table, folder / f"{index}.parquet", row_group_size=500)
    return Job(tmp_path, DOUBLE, pipeline=[{"map_batches": "steps:double"}], carryover=["x"], tuning="off")


def assert_whole(job: Job) -> None:
    table = job.table().sort_by("x")
    assert table.column("x").to_pylist() == list(range(2 * ROWS))
    assert table.column("y").to_pylist() == [2 * x for x in range(2 * ROWS)]


def test_trouble_that_passes_is_waited_out_and_nothing_is_computed_again(points: PointFolder, job: Job) -> None:
    armed = [
        points.arm("storage.source", "error", errno="EIO", after=1, times=2),
        points.arm("storage.stage", "error", errno="ESTALE", times=2),
        points.arm("storage.part", "delay", seconds=0.2, times=2),
    ]
    work = [job.work(0), job.work(1)]
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        for item in work:
            host.send(item)
        records = collect(host, work)  # fails the test if a lease is given up
        assert host.stop() == 0
    job.publish(records)
    assert_whole(job)
    assert [len(points.proofs(name)) for name in armed] == [2, 2, 2]
    assert sum(record.rows.size for record in records) == 2 * ROWS


@pytest.mark.parametrize(
    ("point", "errno", "said"), [("storage.part", "ENOSPC", "no space left"), ("storage.stage", "EACCES", "permission denied")]
)
def test_what_does_not_pass_by_itself_is_given_up_at_once_and_leaves_no_part(
    points: PointFolder, job: Job, point: str, errno: str, said: str
) -> None:
    armed = points.arm(point, "error", errno=errno, times=0)
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        host.send(job.work(0))
        failed = next(message for message in host.messages() if isinstance(message, hostlink.Failed))
        assert failed.lease == job.work(0).lease
        assert failed.kind is FailureKind.STORAGE, "nobody's code is at fault, and the host goes on"
        assert said in failed.error
        assert job.place.list_parts() == []
        assert job.place.list_staging() == []
        spool = Path(job.output, "_antinfer", "spool")
        assert [path for path in spool.rglob("*") if path.is_file() and path.suffix != ".lock"] == [], "what cannot be used takes no space"

        points.disarm(armed)
        work = [job.work(0, n=7), job.work(1)]
        for item in work:
            host.send(item)
        records = collect(host, work)
        assert host.stop() == 0
    job.publish(records)
    assert_whole(job)
