"""From a pod to a worker: which state it is in, why it ends, what keeps it from starting."""

from __future__ import annotations

from antinfer.core.scaling import endings, obstacles
from antinfer.core.scaling.facts import NodeState, PodFacts
from antinfer.core.scaling.values import Ending, WorkerSeen, WorkerState


def worker_seen(
    pod: PodFacts, *, since: int, ready_at: int | None = None, uncommitted_rows: int = 0, idle_since: int | None = None
) -> WorkerSeen:
    """Return the worker that `pod` is.

    Args:
        pod: What is known of it.
        since: When it got into its present state.
        ready_at: When its worker joined first.
        uncommitted_rows: What its worker holds and has not committed.
        idle_since: Since when its worker has held nothing.
    """
    ending = endings.of(pod)
    state = state_of(pod, ending)
    return WorkerSeen(
        name=pod.name,
        worker_class=pod.worker_class,
        state=state,
        since=since,
        created_at=pod.created_at,
        ready_at=ready_at,
        node=pod.node,
        uncommitted_rows=uncommitted_rows,
        idle_since=idle_since,
        memory_bytes=pod.memory_bytes,
        ending=ending,
        obstacle=obstacles.of(pod) if state in (WorkerState.PENDING, WorkerState.STARTING) else None,
        was_told=pod.is_deleting or pod.was_asked,
        is_heard=pod.has_session,
    )


def state_of(pod: PodFacts, ending: Ending | None) -> WorkerState:
    """Return where a pod is in its life, given why it ends.

    A pod on a node that does not answer may stay as it is for ever, deletion time or not: it is lost, and nobody waits for it.
    """
    own = pod.worker
    if pod.phase in ("Failed", "Succeeded") or (own is not None and own.exit_code is not None):
        return WorkerState.ENDED
    if not pod.has_session and (pod.is_out_of_reach or pod.node_state is NodeState.DELETED):
        return WorkerState.LOST
    if ending is not None:
        return WorkerState.LEAVING
    if pod.has_session:
        return WorkerState.READY
    return WorkerState.STARTING if pod.node else WorkerState.PENDING
