"""A driver of a Ray cluster by itself, with the test as its master."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from antinfer.core.scaling.facts import PodFacts
from antinfer.launchers.certificates import make_certificates
from antinfer.launchers.ray.launcher import RayLauncher
from antinfer.launchers.ray.settings import SERVER_NAME, RaySettings
from tests.integration.commands import environment
from tests.integration.ray_cluster import RayCluster

MODULE = "antinfer.launchers.ray.driver"


class Bench:
    """A launcher, and what it sees."""

    def __init__(self, launcher: RayLauncher) -> None:
        self.launcher = launcher

    def pod(self, name: str) -> PodFacts | None:
        sight = self.launcher.observe()
        return None if sight is None else next((pod for pod in sight.pods if pod.name == name), None)

    def wait(self, name: str, condition: Callable[[PodFacts], object], seconds: float = 30) -> PodFacts:
        """Wait until the worker `name` is seen, and is as `condition` says."""
        until = time.monotonic() + seconds
        while (pod := self.pod(name)) is None or not condition(pod):
            assert time.monotonic() < until, pod
            time.sleep(0.02)
        return pod

    def wait_gone(self, name: str, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while self.pod(name) is not None:
            assert time.monotonic() < until
            time.sleep(0.02)


@contextmanager
def driving(cluster: RayCluster, folder: Path, **settings: Any) -> Iterator[Bench]:
    """Run a driver in `folder` for workers who will find no master."""
    (folder / "out" / "_antinfer").mkdir(parents=True, exist_ok=True)
    (folder / "out" / "_antinfer" / "job").touch()
    certificates = make_certificates([SERVER_NAME])
    worker = certificates.identities["worker"]
    usual = {
        "master": "127.0.0.1:1",
        "token": "t",
        "ca": certificates.ca.decode(),
        "cert": worker.cert.decode(),
        "key": worker.key.decode(),
        "output": str(folder / "out"),
        "base_dir": "",
        "code": {},
        "antinfer": version("antinfer"),
    }
    document = RaySettings(**{**usual, "options": {"preemptible": {"num_cpus": 1}}, "grace_s": 5.0, **settings}).to_json()
    command = [sys.executable, "-m", MODULE, "--address", cluster.address, "--parent", str(os.getpid())]
    command += [word for name in ("socket", "ready", "outcome") for word in (f"--{name}", str(folder / name))]
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        with process.stdin as stdin:
            stdin.write(document)
        launcher = RayLauncher(str(folder / "socket"))
        launcher.open(lambda: None)
        try:
            until = time.monotonic() + 30
            while launcher.observe() is None:
                assert process.poll() is None and time.monotonic() < until, process.returncode
                time.sleep(0.02)
            yield Bench(launcher)
        finally:
            launcher.close()
            process.terminate()
