"""kill -9 at every named step between a row and its proof: whoever dies where, the output is complete and right."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from antinfer.faultpoints import POINTS
from antinfer.spec.canonical import to_yaml
from antinfer.testing.chaos.cluster import Cluster
from antinfer.testing.chaos.points import PointFolder
from tests.integration.jobs import Scoring

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

QUICK = ("commit.staged", "commit.durable", "publish.object", "seal.report")
"""One on each side of every border that a commit crosses; the others take minutes in all."""
RARE = {"collect.begin", "recover.begin"}
"""A small job that is resumed by its own store does not come there; see `test_chaos` and the simulator."""
STEPS = [
    name
    for name in POINTS
    if name.partition(".")[0] not in ("storage", "worker", "master", "predictor", "user", "round") and name not in RARE
]


@pytest.fixture
def logs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ai-") as logs:
        yield Path(logs)


@pytest.mark.parametrize("point", [pytest.param(name, marks=() if name in QUICK else pytest.mark.soak) for name in STEPS])
def test_killed_at(point: str, tmp_path: Path, logs: Path) -> None:
    scoring = Scoring(tmp_path, shards=8, shard_rows=100, pause_s=0.0)
    spec = scoring.make(tuning="off")
    job_file = tmp_path / "job.yaml"
    job_file.write_text(to_yaml(spec))
    points = PointFolder(logs / "points")
    armed = points.arm(point, "kill")
    cluster = Cluster(spec, scoring.rows, logs, environment=points.environment, grounds=(tmp_path,))
    try:
        cluster.finish(cluster.run(job_file, "--workers", "1"))
        (proof,) = points.proofs(armed)
        print(f"killed {proof.what}")
        scoring.assert_right(tmp_path / "out")
        assert not list((tmp_path / "out" / "_antinfer" / "staging").glob("*")), "staging is collected"
    finally:
        cluster.close()
        print(cluster.logs())
