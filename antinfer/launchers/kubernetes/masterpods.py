"""What keeps the master of a submitted job from running, in the words of the cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from antinfer.core.scaling import obstacles
from antinfer.core.scaling.facts import EventFacts
from antinfer.core.scaling.values import Obstacle, Severity
from antinfer.launchers.kubernetes.facts import pod_facts

_MAY_PASS: Final = (Severity.WAITING, Severity.UNREACHABLE)
_SKEW_S: Final = 2.0
"""A kubelet that answers ends a pod within its grace period, give or take this."""


def runs(pod: Mapping[str, Any]) -> bool:
    """Tell whether a master runs in its pod, as far as the cluster knows."""
    return _phase(pod) == "Running" and not pod["metadata"].get("deletionTimestamp")


def obstacle(pod: Mapping[str, Any], complaint: EventFacts | None = None) -> Obstacle | None:
    """Return what keeps a pod from starting, by its status and its events; None: nothing does that has been told."""
    return obstacles.of(replace(pod_facts(pod, 0), complaint=complaint))


def is_hopeless(found: Obstacle) -> bool:
    """Tell whether an obstacle does not pass by waiting."""
    return found.severity not in _MAY_PASS


def why_none(pods: Sequence[Mapping[str, Any]], now_s: float, complaint: EventFacts | None = None) -> tuple[str, str]:
    """Say why no master of a job that is under way runs, and what can be done; the latter may be empty.

    Args:
        pods: of its masters, the newest last.
        now_s: time of the cluster, in seconds since 1970.
        complaint: what the events of the newest pod say keeps it from being made.
    """
    if not pods:
        return "it has no pod yet", ""
    pod = pods[-1]
    name, namespace, phase = pod["metadata"]["name"], pod["metadata"]["namespace"], _phase(pod)
    leaves_at = pod["metadata"].get("deletionTimestamp")
    if leaves_at and phase == "Running":
        node = (pod.get("spec") or {}).get("nodeName") or "?"
        if now_s > datetime.fromisoformat(leaves_at).timestamp() + _SKEW_S:
            # The Job makes another once this pod has failed, which nobody but its node would say: deleted by force it would only stay.
            failed = f'kubectl patch pod {name} -n {namespace} --subresource=status -p \'{{"status":{{"phase":"Failed"}}}}\''
            hint = f"`{failed}` lets another take over; what the lost one may still do is refused."
            return f"its pod {name} should have ended, and its node {node} does not answer", hint
        return f"its pod {name} on node {node} is being taken away; another takes over when it has ended", ""
    found = obstacle(pod, complaint)
    if found is not None:
        return f"its pod is {phase}: {found.detail}", f"kubectl describe pod {name} -n {namespace}"
    return f"its pod is {phase}", ""


def _phase(pod: Mapping[str, Any]) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")
