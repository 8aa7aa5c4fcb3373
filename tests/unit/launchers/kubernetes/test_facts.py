"""From the JSON of pods and nodes to plain values."""

from __future__ import annotations

from typing import Any

import pytest

from antinfer.core.causes import Cause
from antinfer.core.scaling import endings, obstacles
from antinfer.core.scaling.facts import NodeState
from antinfer.launchers.kubernetes.facts import CLASS_LABEL, node_state, pod_facts, quantity


def pod(worker_class: str = "protected", status: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    containers = [{"name": "helper"}, {"name": "worker", "resources": {"limits": {"memory": "1.5Gi"}}}]
    return {
        "metadata": {"name": "w-1", "labels": {CLASS_LABEL: worker_class}, **metadata},
        "spec": {"containers": containers, "nodeName": "n1"},
        "status": status or {},
    }


def ended(name: str, code: int, reason: str = "Error") -> dict[str, Any]:
    return {"name": name, "state": {"terminated": {"exitCode": code, "reason": reason, "message": "said"}}}


def test_a_pod_is_read_by_names_and_not_by_positions() -> None:
    facts = pod_facts(pod(status={"phase": "Running", "containerStatuses": [ended("helper", 0), ended("worker", 137, "OOMKilled")]}), 5)
    assert (facts.name, facts.worker_class, facts.created_at, facts.node) == ("w-1", "protected", 5, "n1")
    assert facts.memory_bytes == 3 * 2**29
    ending = endings.of(facts)
    assert ending is not None and (ending.cause, ending.detail) == (Cause.OUT_OF_MEMORY, "OOMKilled: said")


def test_what_keeps_a_pod_from_starting_is_read() -> None:
    waiting = {"name": "worker", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
    obstacle = obstacles.of(pod_facts(pod(status={"containerStatuses": [waiting]}), 0))
    assert obstacle is not None and obstacle.detail == "container worker: ErrImagePull: no such image"


def test_a_pod_that_is_being_taken_away_is_told_from_one_that_failed() -> None:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicted"}
    facts = pod_facts(pod(status={"conditions": [condition]}, deletionTimestamp="2026-01-01T00:00:00Z"), 0)
    ending = endings.of(facts)
    assert facts.is_deleting and ending is not None and ending.cause is Cause.PREEMPTED


def test_a_pod_of_no_class_that_we_know_is_preemptible() -> None:
    assert pod_facts(pod("other"), 0).worker_class == "preemptible"


@pytest.mark.parametrize(
    ("ready", "taints", "state"),
    [
        ("True", [], NodeState.READY),
        ("Unknown", [], NodeState.LOST),
        ("False", ["karpenter.sh/disrupted"], NodeState.LOST),
        ("True", ["karpenter.sh/disrupted"], NodeState.DOOMED),
        ("True", ["kubernetes.azure.com/scalesetpriority", "remediator.kubernetes.azure.com/unschedulable"], NodeState.DOOMED),
        ("True", ["kubernetes.azure.com/scalesetpriority", "nvidia.com/gpu"], NodeState.READY),
    ],
)
def test_nodes(ready: str, taints: list[str], state: NodeState) -> None:
    node = {"spec": {"taints": [{"key": key} for key in taints]}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}
    assert node_state(node, 0) is state


@pytest.mark.parametrize(
    "key",
    [
        "ToBeDeletedByClusterAutoscaler",
        "aws-node-termination-handler/scheduled-maintenance",
        "aws-node-termination-handler/spot-itn",
        "cloud.google.com/impending-node-termination",
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "node.cloudprovider.kubernetes.io/shutdown",
        "node.kubernetes.io/out-of-service",
        "remediator.kubernetes.azure.com/unschedulable",
    ],
)
def test_each_taint_that_announces_the_end_of_a_node(key: str) -> None:
    conditions = [{"type": "Ready", "status": "True"}]
    node = {"spec": {"taints": [{"key": "spot"}, {"key": key}]}, "status": {"conditions": conditions}}
    assert node_state(node, 0) is NodeState.DOOMED


@pytest.mark.parametrize(
    ("status", "message", "state"),
    [
        ("True", "Preempt Scheduled: Mon, 19 Sep 2026 18:29:47 GMT", NodeState.DOOMED),
        ("True", "Redeploy Scheduled", NodeState.DOOMED),
        ("True", "Freeze Scheduled", NodeState.READY),
        ("False", "No VM event is scheduled", NodeState.READY),
    ],
    ids=["preempt", "redeploy", "freeze", "none"],
)
def test_maintenance_that_a_node_announces_by_a_condition(status: str, message: str, state: NodeState) -> None:
    maintenance = {"type": "VMEventScheduled", "status": status, "reason": "VMEventScheduled", "message": message}
    node = {"spec": {}, "status": {"conditions": [maintenance, {"type": "Ready", "status": "True"}]}}
    assert node_state(node, 0) is state


@pytest.mark.parametrize(
    ("text", "number"), [("128", 128), ("1k", 1_000), ("2Mi", 2**21), ("0.5Gi", 2**29), ("1.1", 2), ("3T", 3 * 10**12)]
)
def test_quantities(text: str, number: int) -> None:
    assert quantity(text) == number
