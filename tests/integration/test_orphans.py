"""Agents, hosts and predictors killed at random instants leave nobody behind, neither processes of ours nor what user code has started."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.testing.chaos.cluster import Cluster
from antinfer.testing.chaos.processes import Process, every_process, wait_until
from tests.integration.hosts import slabs_of
from tests.integration.jobs import make_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = """
import os, subprocess, time

def start_others():
    # As loaders and servers do that libraries start: one in the group of its parent, one in its own.
    for group in (None, 0):
        subprocess.Popen(["sleep", "1000"], process_group=group)

class Model:
    def __init__(self):
        start_others()
    def __call__(self, batch):
        time.sleep(0.02)
        return {"x": batch["x"]}
"""


class Scene:
    def __init__(self, folder: Path, logs: Path) -> None:
        (folder / "in").mkdir()
        (folder / "steps.py").write_text(STEPS)
        pq.write_table(pa.table({"x": range(200_000)}), folder / "in" / "a.parquet", row_group_size=5_000)
        job = {
            "source": {"type": "parquet", "path": "in"},
            "pipeline": [{"predict": "steps:Model", "batch_size": 10}],
            "sink": {"path": "out"},
            "shard": {"rows": 5_000},
            "commit_interval": 1,
        }
        self.cluster = Cluster(make_spec(job, folder), 200_000, logs)
        self.cluster.master()
        self._workers = 0
        self.worker = self.start_worker()

    def start_worker(self) -> Process:
        self._workers += 1
        return self.cluster.worker(f"w{self._workers}")

    def one(self, words: str) -> int | None:
        return next(iter(self.worker.find(words)), None)

    @property
    def host(self) -> int | None:
        return self.one("antinfer.worker.host")

    @property
    def predictor(self) -> int | None:
        return self.one("antinfer.worker.predictors")

    def strays(self) -> list[str]:
        """Say which processes of the job run, but hang below neither its master nor a worker."""
        living = self.cluster.living()
        ours = {pid for process in self.cluster.processes for pid in process.everything()}
        return [one for one in living if int(one.split()[0]) not in ours]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="ai-") as logs:
        scene = Scene(tmp_path, Path(logs))
        try:
            yield scene
        finally:
            scene.cluster.close()
            print(scene.cluster.logs()[-4000:])


def session_of(pid: int) -> list[int]:
    """Return who is in the session of `pid`."""
    found = []
    for one in every_process():
        try:
            if os.getsid(one) == pid:
                found.append(one)
        except ProcessLookupError:
            continue
    return found


def strike(scene: Scene, victim: str, chance: random.Random) -> None:
    """Kill one process at a random instant of its life, and look who is left."""
    wait_until(lambda: scene.host is not None, "a host")
    if victim == "predictor":
        wait_until(lambda: scene.predictor is not None, "a predictor")
    time.sleep(chance.uniform(0.0, 2.5))
    host, predictor = scene.host, scene.predictor
    before = session_of(host) if host is not None else []
    if victim == "agent":
        scene.worker.kill()
        wait_until(lambda: not any(one in every_process() for one in before), "the whole worker is gone", seconds=20)
        # The master and its store are all that is left.
        wait_until(lambda: len(scene.cluster.living()) <= 2, f"{scene.cluster.living()} are left", seconds=20)
        scene.worker = scene.start_worker()
    elif victim == "host" and host is not None:
        os.kill(host, signal.SIGKILL)
        wait_until(lambda: not any(one in every_process() for one in before), "the whole host is gone", seconds=20)
        assert scene.worker.is_alive
    elif predictor is not None:
        children = [one for one in before if parent_of(one) == predictor]
        os.kill(predictor, signal.SIGKILL)
        wait_until(lambda: not any(one in every_process() for one in (predictor, *children)), "predictor and children are gone", seconds=20)


def parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return None


def run(scene: Scene, chance: random.Random, victims: list[str]) -> None:
    for victim in victims:
        strike(scene, victim, chance)
    # And the work goes on.
    before = scene.cluster.published()
    wait_until(lambda: scene.cluster.published() > before, "more rows")
    host = scene.host
    assert host is not None
    # Two directions, three slots, mapped or on their way, and the boxes: not more for every death.
    assert slabs_of(host) <= 16, slabs_of(host)


def test_nobody_is_left_behind(scene: Scene, seed: int) -> None:
    chance = random.Random(seed)
    run(scene, chance, chance.sample(["agent", "host", "predictor"], 3))
    assert scene.strays() == []


@pytest.mark.soak
def test_nobody_is_ever_left_behind(scene: Scene, seed: int) -> None:
    chance = random.Random(seed)
    run(scene, chance, chance.choices(["agent", "host", "predictor", "predictor"], k=40))
    assert scene.strays() == []
