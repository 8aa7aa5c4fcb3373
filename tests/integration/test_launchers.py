"""The three launchers by one measure: whoever drives the port need not know which of them it has."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from antinfer.core.causes import Cause
from antinfer.core.scaling import endings
from antinfer.core.scaling.facts import PodFacts
from antinfer.core.scaling.values import PREEMPTIBLE
from antinfer.launchers.kubernetes.api import Api
from antinfer.launchers.kubernetes.launcher import KubernetesLauncher
from antinfer.launchers.kubernetes.settings import KubernetesSettings
from antinfer.launchers.local.launcher import LocalLauncher
from antinfer.launchers.port import Launcher, WorkerOrder
from tests.integration.commands import descendants, wait_until
from tests.integration.ray_cluster import ENVIRONMENT, RayCluster
from tests.integration.ray_driver import driving
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

GRACE_S = 5.0


@dataclass
class Bench:
    """A launcher whose workers find no master, and what it sees."""

    launcher: Launcher
    root: int
    """Process that all workers descend from."""

    def start(self, *names: str) -> None:
        self.launcher.start([WorkerOrder(name, PREEMPTIBLE) for name in names])

    def pod(self, name: str) -> PodFacts | None:
        sight = self.launcher.observe()
        return None if sight is None else next((pod for pod in sight.pods if pod.name == name), None)

    def wait(self, name: str, condition: Callable[[PodFacts], object]) -> PodFacts:
        """Wait until a worker is seen, and is as `condition` says."""
        until = time.monotonic() + 30
        while (pod := self.pod(name)) is None or not condition(pod):
            assert time.monotonic() < until, pod
            time.sleep(0.02)
        return pod

    def wait_working(self, name: str) -> int:
        """Wait until a worker runs and listens to signals; return its process id."""
        self.wait(name, lambda pod: pod.phase == "Running" and pod.node)
        wait_until(lambda: len(self.processes(name)) == 1 and listens(self.processes(name)[0]), timeout=30)
        return self.processes(name)[0]

    def processes(self, name: str) -> list[int]:
        """Return the processes of the worker `name`."""
        return [
            pid
            for pid in descendants(self.root)
            if f"--name\0{name}\0" in text(pid, "cmdline") and "antinfer.worker" in text(pid, "cmdline")
        ]


def text(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def listens(pid: int) -> bool:
    """Tell whether a process has a handler of its own for SIGTERM."""
    caught = next((line.split()[1] for line in text(pid, "status").splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@contextmanager
def local(folder: Path) -> Iterator[Bench]:
    launcher = LocalLauncher(f"unix://{folder}/none", lambda name, line: None, grace_s=GRACE_S)
    launcher.open(lambda: None)
    yield Bench(launcher, os.getpid())
    sight = launcher.observe()
    assert sight is not None
    for pod in sight.pods:
        launcher.stop(pod.name, drain=False)
    launcher.close()


@contextmanager
def kubernetes(folder: Path) -> Iterator[Bench]:
    with Cluster([Node("n", cpu="8")]) as cluster:
        settings = KubernetesSettings(image="antinfer:1", grace_s=int(GRACE_S))
        launcher = KubernetesLauncher(Api.connect(str(cluster.kubeconfig(folder / "kubeconfig"))), settings, job="j1", master="127.0.0.1:1")
        launcher.open(lambda: None)
        yield Bench(launcher, os.getpid())
        launcher.close()


@contextmanager
def ray(folder: Path) -> Iterator[Bench]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'antinfer[ray]'")
    with RayCluster() as cluster:
        cluster.add(num_cpus=8)
        with driving(cluster, folder, grace_s=GRACE_S) as bench:
            yield Bench(bench.launcher, cluster.pid)


@pytest.fixture(scope="module", params=[local, kubernetes, ray], ids=lambda make: make.__name__)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with request.param(tmp_path_factory.mktemp("launcher")) as bench:
            yield bench


def test_a_name_that_is_there_is_not_started_again(bench: Bench) -> None:
    bench.start("twice")
    first = bench.wait_working("twice")
    bench.start("twice", "other")
    bench.wait_working("other")
    assert bench.processes("twice") == [first]


def test_a_worker_that_drains_leaves_by_itself_and_is_forgotten_when_told_so(bench: Bench) -> None:
    bench.start("drained")
    bench.wait_working("drained")
    bench.launcher.stop("drained", drain=True)
    wait_until(lambda: not bench.processes("drained"), timeout=GRACE_S)
    # Pods go by themselves; others stay until they are forgotten.
    wait_until(lambda: (pod := bench.pod("drained")) is None or (pod.is_deleting and pod.worker is not None), timeout=30)
    if (pod := bench.pod("drained")) is not None:
        ending = endings.of(pod)
        assert ending is not None and ending.cause.is_blameless, ending
        bench.launcher.stop("drained", drain=True)
    wait_until(lambda: bench.pod("drained") is None, timeout=30)


def test_one_that_does_not_listen_is_ended_all_the_same(bench: Bench) -> None:
    bench.start("deaf")
    os.kill(bench.wait_working("deaf"), signal.SIGSTOP)
    bench.launcher.stop("deaf", drain=False)
    wait_until(lambda: not bench.processes("deaf"), timeout=GRACE_S + 20)
    assert bench.processes("deaf") == []


def test_a_kill_is_seen_as_one_and_the_name_is_free_once_it_is_forgotten(bench: Bench) -> None:
    bench.start("killed")
    first = bench.wait_working("killed")
    os.kill(first, signal.SIGKILL)
    pod = bench.wait("killed", lambda pod: pod.phase == "Failed")
    ending = endings.of(pod)
    assert ending is not None and ending.cause is Cause.WORKER_KILLED, ending
    bench.start("killed")
    time.sleep(0.2)
    assert bench.processes("killed") == [], "it has ended, and is there until it is forgotten"
    bench.launcher.stop("killed", drain=False)
    wait_until(lambda: bench.pod("killed") is None, timeout=30)
    bench.start("killed")
    assert bench.wait_working("killed") != first


def test_nobody_else_is_touched(bench: Bench) -> None:
    bench.launcher.stop("never was", drain=True)
    bench.start("bystander")
    bench.wait_working("bystander")
    bench.launcher.stop("never was", drain=False)
    sight = bench.launcher.observe()
    assert sight is not None and not sight.refused and "bystander" in {pod.name for pod in sight.pods}
