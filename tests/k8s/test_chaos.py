"""``antinfer chaos --launcher kubernetes``: whole jobs on the double whose pods are deleted under them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antinfer.core.scaling import exits
from tests.integration.jobs import Scoring, command_line
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.jobs import ENV
from tests.k8s.submitted import mine, pods, write_job

PLAN = """
workers: 2
seconds: 10s
at_least: 4
faults:
  - {kill: worker, at: 15%}
  - {term: worker, grace: 4s, at: 30%}
  - {kill: master, at: 45%}
  - {term: master, grace: 2s, at: 65%}
  - {kill: store, at: 70%, launcher: local}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    # A mounted folder is another path in each pod of the double, and a dead master's is gone: workers have the code in their image.
    env = {**ENV, "PYTHONPATH": f"{ENV['PYTHONPATH']}{os.pathsep}{tmp_path}"}
    with Cluster([Node("n1"), Node("n2")], env=env) as cluster:
        yield cluster


def chaos(cluster: Cluster, folder: Path, plan: str, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    (folder / "plan.yaml").write_text(plan)
    kubeconfig = cluster.kubeconfig(folder / "kubeconfig", token=token)
    given = ["--plan", str(folder / "plan.yaml"), "--output", str(folder / "report"), "--kubeconfig", str(kubeconfig), *words]
    return command_line("chaos", str(folder / "job.yaml"), "--launcher", "kubernetes", "--image", "antinfer:1", *given)


def assert_nothing_left(cluster: Cluster, folder: Path) -> None:
    assert not mine(cluster) and not pods(cluster, "master") and not pods(cluster, "worker")
    assert not list(folder.glob("out*")), "the job's own output was touched, or another one left"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_job_comes_through_whole_when_its_pods_are_deleted(cluster: Cluster, tmp_path: Path, seed: int) -> None:
    scoring, _ = write_job(tmp_path, pause_s=0.0)
    done = chaos(cluster, tmp_path, PLAN, "--seed", str(seed), "--json", "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    print(done.stderr, json.dumps(report, indent=1))
    assert (report["verdict"], report["rows"], report["rows_lost"], report["rows_doubled"]) == ("whole", scoring.rows, 0, 0)
    faults = {f"{fault['kind']} {fault['target']}": fault for fault in report["faults"]}
    assert list(faults) == ["kill worker", "term worker", "kill master", "term master"]
    for fault in faults.values():
        assert fault["proof"]["uid"] and fault["proof"]["gone_s"] >= 0 and fault["recovered_s"] is not None
    assert faults["term worker"]["proof"]["exit_code"] == exits.TAKEN_AWAY
    assert report["rows_recomputed"] > 0
    assert not mine(cluster) and not pods(cluster, "worker")
    assert not (tmp_path / "out").exists(), "the job's own output was touched"
    (disturbed,) = tmp_path.glob("out-chaos-*-disturbed")
    Scoring.assert_right(scoring, disturbed)
