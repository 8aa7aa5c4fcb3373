"""Jobs that were submitted to the double, whose master is a pod as well."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from antinfer.spec.canonical import to_yaml
from antinfer.spec.schema import JobSpec
from tests.integration.jobs import Scoring, command_line
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.kinds import PODS
from tests.k8s.double.objects import Object, condition_of, dig, name_of
from tests.k8s.scenes import log_of
from tests.k8s.talk import JOBS, Talk

COLLECTIONS = {
    "Job": JOBS,
    "ServiceAccount": "/api/v1/namespaces/default/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
    "ConfigMap": "/api/v1/namespaces/default/configmaps",
    "Secret": "/api/v1/namespaces/default/secrets",
    "Service": "/api/v1/namespaces/default/services",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
}


def write_job(folder: Path, *, shards: int = 8, pause_s: float = 0.001, **changes: Any) -> tuple[Scoring, JobSpec]:
    scoring = Scoring(folder, shards=shards, pause_s=pause_s)
    spec = scoring.make(name="score", **{"workers": {"max": 2}, **changes})
    (folder / "job.yaml").write_text(to_yaml(spec))
    return scoring, spec


def crawl(folder: Path, *, until: Path) -> None:
    """Let the job take minutes for all but its first two shards, until a file is there."""
    pause = 'time.sleep(self.pause_s * len(batch["key"]))'
    slow = f'len(batch["key"]) * (200 if batch["key"].max() >= 400 and not os.path.exists({str(until)!r}) else 1)'
    steps = folder / "steps.py"
    text = steps.read_text()
    assert pause in text
    steps.write_text("import os\n" + text.replace(pause, f"time.sleep(self.pause_s * {slow})"))


def submit(cluster: Cluster, folder: Path, *arguments: str, wait: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {"KUBECONFIG": str(cluster.kubeconfig(folder / "kubeconfig"))}
    flags = () if wait else ("--no-wait",)
    return command_line("submit", str(folder / "job.yaml"), "--image", "antinfer:1", *flags, *arguments, environment=environment)


def mine(cluster: Cluster) -> dict[str, list[Object]]:
    """Everything that belongs to a job, by kind."""
    talk = Talk(cluster.url)
    found = {kind: talk.get(path, labelSelector="antinfer.io/job")["items"] for kind, path in COLLECTIONS.items()}
    return {kind: items for kind, items in found.items() if items}


def pods(cluster: Cluster, component: str) -> list[Object]:
    return [pod for pod in cluster.store.each(PODS) if pod["metadata"]["labels"].get("app.kubernetes.io/component") == component]


def alive(cluster: Cluster) -> list[Object]:
    """The pods of workers that run and have not been told to go."""
    return [pod for pod in pods(cluster, "worker") if not pod["metadata"].get("deletionTimestamp") and pod["status"]["phase"] == "Running"]


def wait(cluster: Cluster, condition: Callable[[], object], why: str) -> None:
    """Wait, and say what the master said when it is in vain."""
    until = time.monotonic() + 40
    while not condition():
        said = [log_of(cluster, name_of(pod), "master") for pod in pods(cluster, "master")]
        assert time.monotonic() < until, f"not in time: {why}\n{said}"
        time.sleep(0.05)


def is_complete(cluster: Cluster) -> bool:
    (job,) = Talk(cluster.url).get(JOBS)["items"]
    failed = condition_of(job, "Failed")
    assert failed is None, (failed, [log_of(cluster, name_of(pod), "master") for pod in pods(cluster, "master")])
    return dig(condition_of(job, "Complete"), "status") == "True"
