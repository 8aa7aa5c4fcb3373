"""Pods whose containers do something, and what tests look for in them."""

from __future__ import annotations

import sys
from typing import Any

from tests.k8s.double.cluster import Cluster
from tests.k8s.double.objects import Object, condition_of, dig
from tests.k8s.talk import PODS, Talk

HANDLER = """
import signal, sys, time
def leave(*_):
    print("leaving", flush=True)
    time.sleep({delay})
    sys.exit({code})
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
while True:
    time.sleep(60)
"""


def shell(script: str, name: str = "main", **more: Any) -> dict[str, Any]:
    """A container that runs a shell script."""
    return {"name": name, "image": "image:1", "command": ["sh", "-c", script], **more}


def handler(name: str = "main", *, code: int = 0, delay: float = 0, **more: Any) -> dict[str, Any]:
    """A container that says `ready`, and on SIGTERM `leaving`, before it exits with `code`."""
    command = [sys.executable, "-I", "-S", "-c", HANDLER.format(code=code, delay=delay)]
    return {"name": name, "image": "image:1", "command": command, **more}


def pod_of(*containers: dict[str, Any], name: str = "p", labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod of these containers that is not restarted; `spec` is merged into its spec."""
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": {"restartPolicy": "Never", "containers": list(containers), **spec}}


def state(pod: Object | None, container: str = "main") -> dict[str, Any]:
    """The state of a container, by its name."""
    for each in dig(pod, "status", "containerStatuses", default=[]):
        if each["name"] == container:
            found: dict[str, Any] = each["state"]
            return found
    return {}


def phase(cluster: Cluster, name: str = "p") -> str:
    """A pod's phase, or nothing when it is gone."""
    return str(dig(cluster.pod(name), "status", "phase", default=""))


def reason(pod: Object | None, kind: str = "DisruptionTarget") -> str:
    """The reason of a condition, or nothing."""
    return str(dig(condition_of(pod, kind) if pod else None, "reason", default=""))


def wait_for_phase(cluster: Cluster, wanted: str, name: str = "p") -> Object:
    """Wait until a pod has a phase, and return it."""
    cluster.wait(lambda: phase(cluster, name) == wanted, f"{name} to be {wanted}")
    found = cluster.pod(name)
    assert found is not None
    return found


def log_of(cluster: Cluster, name: str = "p", container: str = "main") -> str:
    """What a container has said so far."""
    try:
        path = cluster.kubelets.run_of("default", name).log(container, 0)
    except KeyError:
        return ""
    return path.read_text() if path.exists() else ""


def wait_for_word(cluster: Cluster, word: str, name: str = "p") -> None:
    """Wait until a container's output contains `word`."""
    cluster.wait(lambda: word in log_of(cluster, name), f"{name} to say {word}")


def history(cluster: Cluster, version: str, name: str = "p") -> list[Object]:
    """All states of a pod from `version` on to its last one, as a watcher is told them. The pod must be gone, or about to go."""
    states = []
    with Talk(cluster.url).watch(PODS, resourceVersion=version, fieldSelector=f"metadata.name={name}") as events:
        for kind, each in events:
            states.append(each)
            if kind == "DELETED":
                return states
    raise AssertionError(f"the watch ended before {name} was deleted")
