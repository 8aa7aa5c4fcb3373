"""Store and output place are slow and out of reach for a while, under a whole job: it waits, and nothing is lost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from antinfer.testing.chaos.cluster import Cluster
from antinfer.testing.chaos.points import PointFolder
from antinfer.testing.chaos.processes import wait_until
from antinfer.testing.chaos.proxy import Proxy
from antinfer.testing.chaos.servers import valkey
from tests.integration.jobs import Scoring

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
SLOW_S = 0.05


@pytest.fixture
def logs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ai-") as logs:
        yield Path(logs)


def test_a_job_waits_for_a_store_that_is_slow_and_an_output_that_is_away(tmp_path: Path, logs: Path) -> None:
    scoring = Scoring(tmp_path, shards=20, shard_rows=100, pause_s=0.001)
    points = PointFolder(logs / "points")
    cluster = Cluster(scoring.make(tuning="off"), scoring.rows, logs, environment=points.environment, grounds=(tmp_path,))
    with valkey(logs / "valkey") as server, Proxy(f"127.0.0.1:{server.port}") as link:
        link.delay(SLOW_S)
        through = ("--store", f"redis://{link.address}/0")
        try:
            master, worker = cluster.master("master", *through), cluster.worker("w1")
            cluster.wait_for_rows(200)
            cluster.fault("kill -9 of the master", master.kill)
            # Both looks before it rules pass; the one that comes with its reign does not, three times.
            began = points.arm("storage.read", "error", errno="ETIMEDOUT", where={"object": "_antinfer/job"}, after=2, times=3)
            master = cluster.master("master", *through)
            cluster.wait_for_rows(500)
            assert len(points.proofs(began)) == 3
            assert "comparing the job with its output failed" in master.log, master.log
            armed = points.arm("storage.stage", "error", errno="ETIMEDOUT", times=0)
            cluster.fault("no part is taken", lambda: wait_until(lambda: most_tries(points, armed) >= 5, "five tries", seconds=30))
            points.disarm(armed)
            cluster.finish(worker, master)
            assert "trying again" in worker.log and "storage trouble" not in worker.log, "a lease was given up for what passes"
            assert link.carried("up") > 0
            scoring.assert_right(tmp_path / "out")
        finally:
            cluster.close()
            print(cluster.logs())


def most_tries(points: PointFolder, armed: str) -> int:
    """Return how often one process has failed there."""
    tried = [proof.pid for proof in points.proofs(armed)]
    return max(map(tried.count, tried), default=0)
