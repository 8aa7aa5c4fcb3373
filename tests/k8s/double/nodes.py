"""Nodes as objects, and the taints and tolerations between them and pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.k8s.double.kinds import VERSION
from tests.k8s.double.objects import Object, condition_of, dig, stamp

UNREACHABLE: Final = "node.kubernetes.io/unreachable"
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
HOSTNAME: Final = "kubernetes.io/hostname"


@dataclass(frozen=True)
class Node:
    """What a test orders: a machine with capacity, labels and taints."""

    name: str
    cpu: str = "8"
    memory: str = "32Gi"
    gpus: int = 0
    pods: int = 110
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    pretend: bool = False
    """Containers are no processes: they run until a test says how they end, or they are told to terminate."""

    def to_object(self) -> Object:
        """The node object that this machine's kubelet registers."""
        capacity = {"cpu": self.cpu, "memory": self.memory, "pods": str(self.pods), "ephemeral-storage": "100Gi"}
        if self.gpus:
            capacity["nvidia.com/gpu"] = str(self.gpus)
        labels = {HOSTNAME: self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", **self.labels}
        spec: Object = {"taints": [_taint(**each) for each in self.taints]} if self.taints else {}
        return {"metadata": {"name": self.name, "labels": labels}, "spec": spec, "status": {"capacity": capacity}}

    def first_status(self) -> Object:
        """The status that the kubelet reports when it has started."""
        obj = self.to_object()
        capacity = obj["status"]["capacity"]
        return {
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [{"type": "Hostname", "address": self.name}, {"type": "InternalIP", "address": "127.0.0.1"}],
            "nodeInfo": {
                "kubeletVersion": VERSION["gitVersion"],
                "operatingSystem": "linux",
                "architecture": "amd64",
                "machineID": self.name,
                "systemUUID": self.name,
                "bootID": self.name,
                "kernelVersion": "",
                "osImage": "double",
                "containerRuntimeVersion": "double://1",
                "kubeProxyVersion": "",
            },
            "conditions": [ready_condition()],
        }


def ready_condition() -> Object:
    told = {"reason": "KubeletReady", "message": "kubelet is posting ready status"}
    return {"type": "Ready", "status": "True", **told, "lastHeartbeatTime": stamp(), "lastTransitionTime": stamp()}


def _taint(key: str, effect: str, value: str = "") -> Object:
    return {"key": key, "effect": effect, **({"value": value} if value else {})}


def is_ready(node: Object) -> bool:
    return bool(dig(condition_of(node, "Ready"), "status") == "True")


def taints_of(node: Object) -> list[Object]:
    """A node's taints; one that is cordoned has one more."""
    taints = list(dig(node, "spec", "taints", default=[]))
    if dig(node, "spec", "unschedulable") and not any(each["key"] == UNSCHEDULABLE for each in taints):
        taints.append({"key": UNSCHEDULABLE, "effect": "NoSchedule"})
    return taints


def add_taint(node: Object, key: str, effect: str, value: str = "") -> None:
    """Write a taint into a node, with its time."""
    taints = [each for each in dig(node, "spec", "taints", default=[]) if (each["key"], each["effect"]) != (key, effect)]
    added = _taint(key, effect, value)
    if effect == "NoExecute":
        added["timeAdded"] = stamp()
    node.setdefault("spec", {})["taints"] = [*taints, added]


def remove_taints(node: Object, *keys: str, effect: str | None = None) -> None:
    """Take taints off a node."""

    def goes(taint: Object) -> bool:
        return taint["key"] in keys and effect in (None, taint["effect"])

    kept = [each for each in dig(node, "spec", "taints", default=[]) if not goes(each)]
    if kept:
        node["spec"]["taints"] = kept
    else:
        node.get("spec", {}).pop("taints", None)


def tolerates(toleration: Object, taint: Object) -> bool:
    """Whether one toleration covers one taint."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def seconds_tolerated(pod: Object, taints: list[Object]) -> float | None:
    """For how long a pod may stay under these NoExecute taints: None for ever, 0 not at all."""
    shortest: float | None = None
    tolerations: list[Any] = dig(pod, "spec", "tolerations", default=[])
    for taint in taints:
        covering = [each for each in tolerations if tolerates(each, taint)]
        if not covering:
            return 0.0
        for each in covering:
            seconds = each.get("tolerationSeconds")
            if seconds is not None:
                shortest = max(0.0, float(seconds)) if shortest is None else min(shortest, max(0.0, float(seconds)))
    return shortest
