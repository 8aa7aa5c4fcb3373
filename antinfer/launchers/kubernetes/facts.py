"""From the JSON of pods and nodes to the plain values that `antinfer.core.scaling` decides from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from antinfer.core.scaling.facts import ConditionFacts, ContainerFacts, NodeState, PodFacts
from antinfer.core.scaling.values import CLASSES, PREEMPTIBLE

CLASS_LABEL: Final = "antinfer.io/worker-class"
GIVE_BACK: Final = "antinfer.io/give-back"
"""Annotation of the object that owns a job: how many workers are wanted back, as long as it is there."""
CONTAINER: Final = "worker"
"""Name of the container that is the worker."""
_DOOM: Final = frozenset(
    (
        "ToBeDeletedByClusterAutoscaler",
        "aws-node-termination-handler/spot-itn",
        "aws-node-termination-handler/scheduled-maintenance",
        "cloud.google.com/impending-node-termination",
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "node.cloudprovider.kubernetes.io/shutdown",
        "node.kubernetes.io/out-of-service",
        "remediator.kubernetes.azure.com/unschedulable",
    )
)
"""Keys of taints by which clouds and autoscalers say that a node is about to go."""
_MAINTENANCE: Final = "VMEventScheduled"
"""Condition of a node by which AKS says that its machine is about to be preempted, redeployed, restarted, ended or frozen."""
_HARMLESS: Final = "freeze"
"""In the words of that condition: the machine stands still for some seconds, and goes on."""
_UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def pod_facts(pod: Mapping[str, Any], created_at: int) -> PodFacts:
    """Return what the API server says of a pod. `created_at`: in ms."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    worker_class = (metadata.get("labels") or {}).get(CLASS_LABEL, "")
    return PodFacts(
        name=metadata["name"],
        worker_class=worker_class if worker_class in CLASSES else PREEMPTIBLE,
        created_at=created_at,
        uid=metadata.get("uid") or "",
        container=CONTAINER,
        phase=status.get("phase") or "Pending",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        conditions=tuple(
            ConditionFacts(each["type"], each["status"] == "True", each.get("reason") or "", each.get("message") or "")
            for each in status.get("conditions") or ()
        ),
        containers=tuple(_containers(status)),
        node=spec.get("nodeName") or "",
        is_deleting=bool(metadata.get("deletionTimestamp")),
        memory_bytes=_memory(spec),
    )


def node_state(node: Mapping[str, Any], created_at: int) -> NodeState:
    """Return how a node is. `created_at` says nothing about it."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = next((each for each in conditions if each["type"] == "Ready"), None)
    if ready is not None and ready["status"] != "True":
        return NodeState.LOST
    taints = (node.get("spec") or {}).get("taints") or ()
    is_doomed = any(taint["key"] in _DOOM for taint in taints) or any(_announces_an_end(each) for each in conditions)
    return NodeState.DOOMED if is_doomed else NodeState.READY


def given_back(job: Mapping[str, Any], created_at: int) -> int:
    """Return how many workers the object of the job says are wanted back; 0 as well where it says nothing that can be understood."""
    text = str((job["metadata"].get("annotations") or {}).get(GIVE_BACK, ""))
    return int(text) if text.isdecimal() else 0


def quantity(text: str) -> int:
    """Return an amount such as ``512Mi`` as a number, rounded up."""
    number = text.rstrip("kKMGTi")
    return int((Decimal(number) * _UNITS[text[len(number) :]]).to_integral_value(rounding="ROUND_CEILING"))


def _announces_an_end(condition: Mapping[str, Any]) -> bool:
    told = f"{condition.get('reason') or ''} {condition.get('message') or ''}".lower()
    return condition["type"] == _MAINTENANCE and condition["status"] == "True" and _HARMLESS not in told


def _containers(status: Mapping[str, Any]) -> Iterator[ContainerFacts]:
    for key, is_init in (("initContainerStatuses", True), ("containerStatuses", False)):
        for each in status.get(key) or ():
            state = each.get("state") or {}
            waiting, ended = state.get("waiting") or {}, state.get("terminated")
            yield ContainerFacts(
                name=each["name"],
                is_init=is_init,
                waiting=waiting.get("reason") or "",
                exit_code=None if ended is None else ended["exitCode"],
                reason=(ended or {}).get("reason") or "",
                message=(waiting if ended is None else ended).get("message") or "",
            )


def _memory(spec: Mapping[str, Any]) -> int:
    worker = next((each for each in spec["containers"] if each["name"] == CONTAINER), None)
    limit = (((worker or {}).get("resources") or {}).get("limits") or {}).get("memory")
    return 0 if limit is None else quantity(str(limit))
