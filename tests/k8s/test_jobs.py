"""Whole jobs on the double, with real workers: what becomes of them when pods and nodes go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from antinfer.core.scaling import exits
from tests.integration.jobs import Scoring, read_report
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.kinds import PODS
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import name_of
from tests.k8s.jobs import ENV, Scene, exit_code, node_of
from tests.k8s.scenes import history

MakeScene = Callable[..., Scene]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster([Node("n1"), Node("n2")], env=ENV) as cluster:
        yield cluster


@pytest.fixture
def scene(cluster: Cluster, tmp_path: Path) -> Iterator[MakeScene]:
    made: list[Scene] = []

    def make(shards: int = 40, pause_s: float = 0.0005, **workers: Any) -> Scene:
        scoring = Scoring(tmp_path, shards=shards, pause_s=pause_s)
        made.append(Scene(cluster, tmp_path, scoring, scoring.make(name="score", workers={"max": 2, **workers})))
        return made[-1]

    yield make
    for each in made:
        each.master.clean_up()


def test_a_whole_job_with_workers_that_are_pods(scene: MakeScene) -> None:
    job = scene(shards=8)
    job.start()
    job.assert_right()
    job.wait_gone()


def test_a_node_dies_under_a_job(cluster: Cluster, scene: MakeScene) -> None:
    job = scene(shards=20, pause_s=0.001)
    job.start()
    job.wait_for_rows(200)
    node = node_of(job.pods()[0])
    lost = {name_of(pod) for pod in job.pods() if node_of(pod) == node}
    cluster.lose_node(node, power=False)
    job.wait(lambda: len([pod for pod in job.pods() if name_of(pod) not in lost and node_of(pod)]) == 2, "workers in place of the lost")
    assert all(node_of(pod) != node for pod in job.pods() if name_of(pod) not in lost)
    job.assert_right()


WRAPPED = {"command": ["sh", "-c", '"$@"; exit $?', "sh", "python", "-m", "antinfer.worker"]}
"""The worker behind a shell, which is the first process then, and keeps SIGTERM to itself."""


@pytest.mark.slow
@pytest.mark.parametrize("container", [{}, WRAPPED], ids=["first process", "behind a shell"])
def test_a_worker_whose_pod_is_deleted_commits_what_it_has_and_is_taken_for_no_failure(
    cluster: Cluster, scene: MakeScene, container: dict[str, Any]
) -> None:
    job = scene(shards=20, pause_s=0.001)
    job.start(template={"spec": {"containers": [{"name": "worker", **container}]}})
    job.wait_for_rows(200)
    going = job.pods()[0]
    gone = name_of(going)
    cluster.registry.delete(PODS, "default", gone)
    codes = {exit_code(each) for each in history(cluster, going["metadata"]["resourceVersion"], gone)}
    assert codes - {None} == {exits.TAKEN_AWAY}
    job.wait(lambda: len(job.pods()) == 2, "another worker")
    job.assert_right()
    causes = read_report(Path(job.spec.sink.path))["causes"]
    assert causes["preempted"] and not causes.keys() & {"worker_lost", "worker_crashed", "left_early"}


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_an_image_that_cannot_be_pulled_fails_the_job_with_the_words_of_the_kubelet(cluster: Cluster, scene: MakeScene) -> None:
    cluster.images.bad["nowhere*"] = "manifest for nowhere:1 not found: manifest unknown"
    job = scene(shards=4)
    job.start(image="nowhere:1")
    job.wait(lambda: "manifest unknown" in job.status().reason, "status to tell", seconds=60)
    assert job.master.wait(150) == 1
    job.master.assert_said("workers cannot start: container worker: .*manifest for nowhere:1 not found: manifest unknown")
    job.wait_gone()
