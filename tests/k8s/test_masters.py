"""Masters whose nodes go: what is said of them, and who takes over."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from antinfer.launchers.kubernetes import masterpods
from antinfer.spec.schema import JobSpec
from antinfer.storage import layout
from antinfer.testing.chaos.servers import valkey
from tests.integration.jobs import Scoring, assert_proven, command_line
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import is_terminating, name_of
from tests.k8s.jobs import ENV, node_of
from tests.k8s.submitted import crawl, is_complete, mine, pods, submit, wait, write_job
from tests.k8s.talk import PODS, Talk


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster([Node("n1"), Node("n2")], env=ENV) as cluster:
        yield cluster


def start(cluster: Cluster, folder: Path, *more: str) -> tuple[Scoring, JobSpec, str, str]:
    """Return a job that has begun, its spec, and the pod of its master and its node."""
    scoring, spec = write_job(folder)
    crawl(folder, until=folder / "go on")
    overlay = folder / "pods.yaml"
    # What is counted in seconds of real time is the pod's own grace period.
    overlay.write_text("master: {spec: {terminationGracePeriodSeconds: 1}}")
    # Small batches: a worker that is to end waits for the one under way.
    done = submit(cluster, folder, "--pods", str(overlay), "--set", "pipeline.1.batch_size=4", *more)
    assert done.returncode == 0, done.stderr
    wait(cluster, lambda: list(Path(spec.sink.path).glob("part-*")), "a part")
    (master,) = pods(cluster, "master")
    return scoring, spec, name_of(master), node_of(master)


@pytest.mark.slow
def test_a_master_on_a_lost_node_is_told_of_and_the_next_rules_although_it_lives(cluster: Cluster, tmp_path: Path) -> None:
    with valkey(tmp_path / "store") as store:
        scoring, spec, first, node = start(cluster, tmp_path, "--store", store.url)
        job = name_of(mine(cluster)["Job"][0])
        cluster.lose_node(node)  # what runs there goes on
        wait(cluster, lambda: is_terminating(cluster.pod(first) or {"metadata": {}}), "the pod to be given up")
        said = [status(tmp_path, job)]
        while "does not answer" not in said[-1]:
            assert "is being taken away" in said[-1] and len(said) < 20, said
            time.sleep(0.3)
            said.append(status(tmp_path, job))
        assert f"its pod {first} should have ended, and its node {node} does not answer" in said[-1]

        Talk(cluster.url).delete(f"{PODS}/{first}", {"gracePeriodSeconds": 0})
        assert [name_of(pod) for pod in pods(cluster, "master")] == [first], "that does not help: the Job has not counted it"
        advice = re.search(rf"`kubectl patch pod {first} -n default --subresource=status -p '(.*)'` lets another take over", said[-1])
        assert advice is not None, said[-1]
        Talk(cluster.url).patch(f"{PODS}/{first}/status", json.loads(advice[1]))
        wait(cluster, lambda: [each for each in pods(cluster, "master") if masterpods.runs(each)], "another master")
        wait(cluster, lambda: epochs(spec) == [1, 2], "its reign")
        (tmp_path / "go on").touch()
        wait(cluster, lambda: is_complete(cluster), "the end of the job")
    scoring.assert_right(Path(spec.sink.path))
    assert_proven(spec)


@pytest.mark.slow
def test_a_master_whose_node_is_deleted_is_followed_by_another(cluster: Cluster, tmp_path: Path) -> None:
    scoring, spec, first, node = start(cluster, tmp_path)
    cluster.delete_node(node)
    wait(cluster, lambda: [name for pod in pods(cluster, "master") if (name := name_of(pod)) != first], "another master")
    (tmp_path / "go on").touch()
    wait(cluster, lambda: is_complete(cluster), "the end of the job")
    scoring.assert_right(Path(spec.sink.path))
    assert_proven(spec)
    assert epochs(spec) == [1, 2]


def epochs(spec: JobSpec) -> list[int]:
    """The reigns that have begun, as the output tells."""
    return sorted(int(path.name) for path in Path(spec.sink.path, layout.folder(layout.EPOCHS)).iterdir())


def status(folder: Path, job: str) -> str:
    done = command_line("status", job, "--kubeconfig", str(folder / "kubeconfig"))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done
    return done.stderr
