"""Whole jobs on the double, with real workers: what becomes of them when pods and nodes go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.jobs import Scoring
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.jobs import ENV, Scene

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
    job = scene()
    job.start()
    job.assert_right()
    job.wait_gone()
