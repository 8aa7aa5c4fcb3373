"""Why a pod ended: one cause for each end, from what the API server says of it.

Preemption is told from failure by what the cluster says (its condition, its node, its deletion), and only then by the exit code: a worker
that was taken away may end with any. Running out of memory comes before all of it, because it comes again.
"""

from __future__ import annotations

import re
from typing import Final

from antinfer.core.causes import Cause
from antinfer.core.scaling import exits
from antinfer.core.scaling.facts import ContainerFacts, NodeState, PodFacts
from antinfer.core.scaling.values import Ending

_TAKEN_AWAY: Final = frozenset(("Preempted", "Preempting", "Shutdown", "NodeShutdown", "Terminated"))
"""Reasons of pods that somebody more important, or the end of their node, has ended."""
_REFUSED: Final = re.compile(r"OutOf\w|UnexpectedAdmissionError|Topology|NodeAffinity|PodOS|AppArmor|Sysctl|AdmissionError")
"""Reasons of pods that the kubelet would not run although they had been placed on its node."""
_OWN_LIMIT: Final = re.compile(r"exceed(s|ed) (the total limit of containers|its local ephemeral storage limit|the limit)", re.IGNORECASE)
"""An eviction that comes again wherever the pod runs."""
_SIGNALS: Final = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
_NEVER_RAN: Final = (exits.NOT_RUN, 127)
_LONGEST: Final = 2_000
"""Characters of a message that are kept: thousands of workers may fail at once."""


def of(pod: PodFacts) -> Ending | None:
    """Return why `pod` has ended, is lost, or is being taken away; None: it lives."""
    own = pod.worker
    has_ended = _has_ended(pod, own)
    if has_ended and own is not None and own.reason == "OOMKilled":
        return _ending(Cause.OUT_OF_MEMORY, "OOMKilled", own.message or pod.message)
    taken = _of_taking(pod)
    if taken is not None:
        return taken
    return _of_exit(pod, own) if has_ended else None


def of_exit(code: int, *, was_ready: bool, message: str = "") -> Ending:
    """Return why a process ended by itself with exit status `code` (a signal as 128 and its number).

    Args:
        code: Its exit status.
        was_ready: It had joined its master.
        message: What it said last.
    """
    if code == exits.INTERRUPTED:
        return _ending(Cause.DRAINED, f"exit code {code}", message)
    if code in (exits.TAKEN_AWAY, 128 + 15):
        # A signal to leave without a word to the API server: the node goes down, and we are told first.
        return _ending(Cause.PREEMPTED, f"exit code {code}", message)
    if code == exits.DONE:
        return _ending(Cause.LEFT_EARLY, "exit code 0", message)
    if code == 128 + 9:
        return _ending(Cause.WORKER_KILLED, "killed by SIGKILL", message)
    if code > 128:
        return _ending(Cause.WORKER_CRASHED, f"killed by {_SIGNALS.get(code - 128, f'signal {code - 128}')}", message)
    cause = Cause.START_ERROR if not was_ready or code in (exits.USAGE, *_NEVER_RAN) else Cause.WORKER_CRASHED
    return _ending(cause, f"exit code {code}", message)


def _has_ended(pod: PodFacts, own: ContainerFacts | None) -> bool:
    # A side-car may outlive the worker, so the phase alone does not tell.
    return pod.phase in ("Failed", "Succeeded") or (own is not None and own.exit_code is not None)


def _of_taking(pod: PodFacts) -> Ending | None:
    """Return who took the pod away, or is about to; None: nobody."""
    if pod.phase == "Failed" and pod.reason == "Evicted" and _OWN_LIMIT.search(pod.message):
        return _ending(Cause.SCRATCH_FULL, "Evicted", pod.message)
    if pod.was_asked:
        return Ending(Cause.DRAINED, "asked to leave")
    is_lost = pod.is_out_of_reach and not pod.has_session
    disruption = pod.disruption
    if disruption is not None:
        # Taints take pods off nodes that are to go, and off nodes that do not answer any more.
        cause = Cause.NODE_LOST if is_lost and disruption.reason == "DeletionByTaintManager" else Cause.PREEMPTED
        return _ending(cause, disruption.reason, disruption.message or pod.message)
    if pod.reason == "Evicted" or pod.reason in _TAKEN_AWAY:
        return _ending(Cause.PREEMPTED, pod.reason, pod.message)
    if pod.reason == "NodeLost":
        return _ending(Cause.NODE_LOST, pod.reason, pod.message)
    if pod.node_state is NodeState.DELETED:
        return Ending(Cause.PREEMPTED, f"node {pod.node} was deleted")
    if is_lost:
        return Ending(Cause.NODE_LOST, f"node {pod.node} does not answer")
    if pod.reason == "DeadlineExceeded":
        return _ending(Cause.TIME_LIMIT, pod.reason, pod.message)
    if pod.reason and _REFUSED.search(pod.reason):
        return _ending(Cause.NODE_REFUSED, pod.reason, pod.message)
    if pod.node_state is NodeState.DOOMED:
        return Ending(Cause.PREEMPTED, f"node {pod.node} is about to be taken away")
    if pod.is_deleting:
        return Ending(Cause.DRAINED, "its pod was deleted")
    return None


def _of_exit(pod: PodFacts, own: ContainerFacts | None) -> Ending:
    """Return why a pod ended that nobody took away."""
    if own is not None and own.exit_code is not None:
        if own.reason == "ContainerStatusUnknown":
            return _ending(Cause.NODE_LOST, own.reason, own.message)
        if own.reason in ("StartError", "ContainerCannotRun"):
            return _ending(Cause.START_ERROR, own.reason, own.message)
        return of_exit(own.exit_code, was_ready=pod.was_ready, message=own.message)
    broken = next((each for each in pod.containers if each.is_init and each.exit_code), None)
    if broken is not None:
        return _ending(Cause.START_ERROR, f"init container {broken.name} ended with exit code {broken.exit_code}", broken.message)
    return _ending(Cause.UNKNOWN, pod.reason or f"phase {pod.phase}", pod.message)


def _ending(cause: Cause, what: str, message: str) -> Ending:
    return Ending(cause, f"{what}: {message[:_LONGEST]}" if message else what)
