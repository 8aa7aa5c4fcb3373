"""Whole jobs on the double: a master beside it, and workers that are its pods."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from antinfer.launchers.kubernetes.facts import CONTAINER
from antinfer.launchers.kubernetes.settings import KubernetesSettings
from antinfer.rpc.client import AdminClient
from antinfer.rpc.values import Status
from antinfer.spec.schema import JobSpec
from tests.integration.jobs import ROOT, Scoring, assert_proven
from tests.integration.masters import MasterProcess
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.kinds import PODS
from tests.k8s.double.objects import Object, dig

ENV = {"PYTHONPATH": str(ROOT), "HOME": os.environ.get("HOME", "/tmp")}
"""What containers get, as there are no images with our code in them."""


class Scene:
    """One job on one cluster."""

    def __init__(self, cluster: Cluster, folder: Path, scoring: Scoring, spec: JobSpec) -> None:
        self.cluster = cluster
        self.scoring = scoring
        self.spec = spec
        self._folder = folder
        self.master: MasterProcess
        self._address = ""

    def start(self, *, kubeconfig: Path | None = None, **settings: Any) -> None:
        """Start a master that makes its workers here."""
        path = kubeconfig or self.cluster.kubeconfig(self._folder / "kubeconfig")
        file = self._folder / "kubernetes.json"
        chosen = {"image": "antinfer:1", "kubeconfig": str(path), "grace_s": 10, **settings}
        file.write_text(KubernetesSettings(**chosen).to_json())
        self.master = MasterProcess(self.spec, self._folder, "--kubernetes", str(file))
        self._address = self.master.start()

    def pods(self) -> list[Object]:
        """All pods of workers, the oldest first."""
        with self.cluster.store.lock:
            found = list(self.cluster.store.each(PODS))
        return sorted(found, key=lambda pod: int(pod["metadata"]["name"].rpartition("-")[2]))

    def status(self) -> Status:
        with AdminClient(self._address) as admin:
            return admin.status()

    def wait(self, condition: Callable[[], object], what: str, *, seconds: float = 30) -> None:
        """Wait until `condition` holds. Raises AssertionError with the master's log when it does not, or when the master has ended."""
        until = time.monotonic() + seconds
        while not condition():
            process = self.master.process
            assert process is not None
            assert process.poll() is None, f"the master has ended before: {what}\n{self.master.log}"
            assert time.monotonic() < until, f"not in {seconds} s: {what}\n{self.master.log}"
            time.sleep(0.02)

    def wait_for_rows(self, rows: int) -> None:
        self.wait(lambda: self.status().rows_committed >= rows, f"{rows} rows to be committed")

    def wait_gone(self) -> None:
        """Of a job that is over no worker is left."""
        self.cluster.wait(lambda: not self.pods(), "the workers to be gone")

    def assert_right(self) -> None:
        """The master ends well, and the output holds each row once."""
        assert self.master.wait() == 0, self.master.log
        self.scoring.assert_right(Path(self.spec.sink.path))
        assert_proven(self.spec)


def node_of(pod: Object) -> str:
    return str(dig(pod, "spec", "nodeName", default=""))


def exit_code(pod: Object | None) -> int | None:
    for each in dig(pod, "status", "containerStatuses", default=[]):
        if each["name"] == CONTAINER:
            code = dig(each, "state", "terminated", "exitCode")
            return None if code is None else int(code)
    return None
