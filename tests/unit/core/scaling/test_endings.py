"""Every way in which a pod ends, or does not start, gets its one cause."""

from __future__ import annotations

from dataclasses import replace

import pytest

from antinfer.core.causes import Budget, Cause
from antinfer.core.scaling import endings, exits, obstacles, remedies
from antinfer.core.scaling.facts import ConditionFacts, ContainerFacts, NodeState, PodFacts
from antinfer.core.scaling.pods import worker_seen
from antinfer.core.scaling.values import Severity, WorkerState

RUNNING = PodFacts("w-1", "preemptible", 0, phase="Running", node="n1", node_state=NodeState.READY, has_session=True, was_ready=True)


def exited(code: int, reason: str = "Error", **changes: object) -> PodFacts:
    own = ContainerFacts("worker", exit_code=code, reason=reason)
    return replace(RUNNING, containers=(ContainerFacts("log-shipper"), own), has_session=False, **changes)


def disrupted(reason: str, **changes: object) -> PodFacts:
    return replace(RUNNING, conditions=(ConditionFacts("DisruptionTarget", True, reason, f"{reason} happened"),), **changes)


def failed(reason: str, message: str = "", **changes: object) -> PodFacts:
    return replace(RUNNING, phase="Failed", reason=reason, message=message, has_session=False, **changes)


def unseen(*, ready: bool, inside: bool, **changes: object) -> PodFacts:
    """A pod whose node we may not look at, which nobody hears."""
    conditions = (ConditionFacts("Ready", ready), ConditionFacts("ContainersReady", inside))
    return replace(replace(RUNNING, node_state=NodeState.UNKNOWN, has_session=False, conditions=conditions), **changes)


TAKEN = (ConditionFacts("DisruptionTarget", True, "PreemptionByScheduler"),)


@pytest.mark.parametrize(
    ("pod", "cause"),
    [
        # Taken away, whatever the exit code.
        (disrupted("PreemptionByScheduler"), Cause.PREEMPTED),
        (disrupted("EvictionByEvictionAPI", is_deleting=True), Cause.PREEMPTED),
        (disrupted("DeletionByTaintManager"), Cause.PREEMPTED),
        (disrupted("DeletionByPodGC", phase="Failed", has_session=False), Cause.PREEMPTED),
        (disrupted("TerminationByKubelet"), Cause.PREEMPTED),
        (exited(137, conditions=TAKEN), Cause.PREEMPTED),
        (exited(1, conditions=TAKEN), Cause.PREEMPTED),
        (exited(0, conditions=TAKEN, is_deleting=True), Cause.PREEMPTED),
        (failed("Evicted", "The node was low on resource: memory."), Cause.PREEMPTED),
        (failed("Preempting"), Cause.PREEMPTED),
        (failed("NodeShutdown"), Cause.PREEMPTED),
        (failed("Terminated", "Pod was terminated in response to imminent node shutdown."), Cause.PREEMPTED),
        (replace(RUNNING, node_state=NodeState.DELETED, has_session=False), Cause.PREEMPTED),
        (replace(RUNNING, node_state=NodeState.DOOMED), Cause.PREEMPTED),
        (exited(143), Cause.PREEMPTED),
        (exited(exits.TAKEN_AWAY), Cause.PREEMPTED),
        # Asked to leave.
        (exited(137, was_asked=True), Cause.DRAINED),
        (exited(0, was_asked=True), Cause.DRAINED),
        (exited(137, is_deleting=True), Cause.DRAINED),
        (exited(exits.INTERRUPTED), Cause.DRAINED),
        (replace(RUNNING, is_deleting=True), Cause.DRAINED),
        # Nodes.
        (replace(RUNNING, node_state=NodeState.LOST, has_session=False), Cause.NODE_LOST),
        (disrupted("DeletionByTaintManager", node_state=NodeState.LOST, is_deleting=True, has_session=False), Cause.NODE_LOST),
        (unseen(ready=False, inside=True), Cause.NODE_LOST),
        (unseen(ready=False, inside=True, was_ready=False), Cause.NODE_LOST),
        (failed("NodeLost"), Cause.NODE_LOST),
        (exited(137, "ContainerStatusUnknown"), Cause.NODE_LOST),
        (failed("OutOfcpu"), Cause.NODE_REFUSED),
        (failed("OutOfnvidia.com/gpu"), Cause.NODE_REFUSED),
        (failed("UnexpectedAdmissionError"), Cause.NODE_REFUSED),
        (failed("NodeAffinity"), Cause.NODE_REFUSED),
        # Its own fault.
        (exited(137, "OOMKilled"), Cause.OUT_OF_MEMORY),
        (exited(137, "OOMKilled", was_asked=True), Cause.OUT_OF_MEMORY),
        (exited(137, "OOMKilled", conditions=TAKEN), Cause.OUT_OF_MEMORY),
        (failed("Evicted", "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."), Cause.SCRATCH_FULL),
        (failed("Evicted", "Container worker exceeded its local ephemeral storage limit \"1Gi\"."), Cause.SCRATCH_FULL),
        (failed("Evicted", "Usage of EmptyDir volume \"tmp\" exceeds the limit \"1Gi\"."), Cause.SCRATCH_FULL),
        (failed("DeadlineExceeded"), Cause.TIME_LIMIT),
        (exited(137), Cause.WORKER_KILLED),
        (exited(139), Cause.WORKER_CRASHED),
        (exited(134), Cause.WORKER_CRASHED),
        (exited(1), Cause.WORKER_CRASHED),
        (exited(1, was_ready=False), Cause.START_ERROR),
        (exited(exits.USAGE), Cause.START_ERROR),
        (exited(127), Cause.START_ERROR),
        (exited(128, "StartError"), Cause.START_ERROR),
        (exited(0), Cause.LEFT_EARLY),
        (replace(RUNNING, phase="Failed", containers=(ContainerFacts("fetch", is_init=True, exit_code=3),)), Cause.START_ERROR),
        (failed(""), Cause.UNKNOWN),
    ],
)  # fmt: skip
def test_each_end_has_its_cause(pod: PodFacts, cause: Cause) -> None:
    ending = endings.of(pod)
    assert ending is not None and ending.cause is cause, ending
    assert ending.detail


def test_a_pod_that_works_has_not_ended() -> None:
    assert endings.of(RUNNING) is None
    assert endings.of(replace(RUNNING, node_state=NodeState.LOST)) is None, "the master still hears it"
    assert endings.of(unseen(ready=False, inside=True, has_session=True)) is None, "the master still hears it"
    assert endings.of(unseen(ready=True, inside=True)) is None, "cut off from its master alone"
    assert endings.of(unseen(ready=False, inside=False)) is None, "a container beside it has ended, which its kubelet says"
    assert endings.of(unseen(ready=False, inside=True, node_state=NodeState.READY)) is None, "its node has answered again"
    assert endings.of(unseen(ready=False, inside=True, phase="Pending")) is None


def test_only_the_container_of_that_name_counts() -> None:
    """The first status may be a side-car's: its end is not the worker's, its OOM neither."""
    sidecar = ContainerFacts("log-shipper", exit_code=137, reason="OOMKilled")
    assert endings.of(replace(RUNNING, containers=(sidecar, ContainerFacts("worker")))) is None
    both = replace(RUNNING, containers=(sidecar, ContainerFacts("worker", exit_code=139)), has_session=False)
    assert endings.of(both) == endings.Ending(Cause.WORKER_CRASHED, "killed by SIGSEGV")
    renamed = replace(both, container="main")
    assert endings.of(renamed) is None


@pytest.mark.parametrize(
    ("pod", "state"),
    [
        (PodFacts("w", "protected", 0), WorkerState.PENDING),
        (PodFacts("w", "protected", 0, node="n"), WorkerState.STARTING),
        (RUNNING, WorkerState.READY),
        (disrupted("PreemptionByScheduler"), WorkerState.LEAVING),
        (replace(RUNNING, is_deleting=True), WorkerState.LEAVING),
        (replace(RUNNING, is_deleting=True, node_state=NodeState.LOST, has_session=False), WorkerState.LOST),
        (replace(RUNNING, node_state=NodeState.LOST), WorkerState.READY),
        (unseen(ready=False, inside=True), WorkerState.LOST),
        (unseen(ready=False, inside=True, is_deleting=True), WorkerState.LOST),
        (unseen(ready=False, inside=False), WorkerState.STARTING),
        (replace(RUNNING, node_state=NodeState.DELETED, has_session=False), WorkerState.LOST),
        (exited(0), WorkerState.ENDED),
        (failed("Evicted"), WorkerState.ENDED),
    ],
)
def test_the_state_of_a_pod(pod: PodFacts, state: WorkerState) -> None:
    assert worker_seen(pod, since=0).state is state


@pytest.mark.parametrize(
    ("waiting", "message", "cause", "severity"),
    [
        ("ImagePullBackOff", "manifest unknown", Cause.IMAGE_ERROR, Severity.MISSING_IMAGE),
        ("ErrImagePull", "dial tcp: i/o timeout", Cause.IMAGE_ERROR, Severity.UNREACHABLE),
        ("ErrImagePull", "toomanyrequests: You have reached your pull rate limit", Cause.IMAGE_ERROR, Severity.UNREACHABLE),
        ("InvalidImageName", "couldn't parse image name", Cause.IMAGE_ERROR, Severity.INVALID),
        ("CreateContainerConfigError", 'secret "token" not found', Cause.CONFIG_ERROR, Severity.MISSING_CONFIG),
    ],
)
def test_obstacles_carry_the_words_of_the_kubelet(waiting: str, message: str, cause: Cause, severity: Severity) -> None:
    stuck = (ContainerFacts("sidecar"), ContainerFacts("worker", waiting=waiting, message=message))
    pod = PodFacts("w", "protected", 0, node="n", containers=stuck)
    found = obstacles.of(pod)
    assert found is not None and (found.cause, found.severity) == (cause, severity)
    assert message in found.detail
    assert worker_seen(pod, since=0).obstacle == found


def test_an_unschedulable_pod_carries_the_words_of_the_scheduler() -> None:
    pod = PodFacts("w", "protected", 0, conditions=(ConditionFacts("PodScheduled", False, "Unschedulable", "0/3 nodes are available"),))
    found = obstacles.of(pod)
    assert found is not None and found.cause is Cause.NO_CAPACITY and found.detail == "0/3 nodes are available"
    starting = ContainerFacts("worker", waiting="ContainerCreating")
    assert obstacles.of(replace(pod, node="n", conditions=(), containers=(starting,))) is None


@pytest.mark.parametrize(
    ("status", "message", "cause"),
    [
        (403, 'pods "w" is forbidden: exceeded quota: gpus', Cause.NO_CAPACITY),
        (403, 'pods "w" is forbidden: failed quota: compute: must specify limits.cpu for: worker', Cause.CONFIG_ERROR),
        (403, 'pods is forbidden: User "x" cannot create resource "pods"', Cause.CONFIG_ERROR),
        (422, "Pod is invalid: spec.containers[0].image: Required value", Cause.CONFIG_ERROR),
        (429, "too many requests", Cause.NO_CAPACITY),
        (503, "etcd is away", Cause.NO_CAPACITY),
    ],
)
def test_refusals_of_the_api_server(status: int, message: str, cause: Cause) -> None:
    assert obstacles.of_refusal(status, message).cause is cause


@pytest.mark.parametrize("cause", Cause)
def test_what_nobody_pays_for_is_never_paused(cause: Cause) -> None:
    """And all else is, but what only blames a node: nothing may crash in a loop without a pause."""
    remedy = remedies.of(cause)
    if cause in (Cause.PREEMPTED, Cause.DRAINED):
        assert remedy == remedies.Remedy()
    assert not (cause.budget is Budget.NONE and cause is not Cause.UNKNOWN and remedy.pauses)
    assert remedy.pauses or remedy.blames_node or cause.is_blameless
