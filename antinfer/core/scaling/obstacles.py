"""What keeps a pod from starting, in the words of the scheduler and the kubelet."""

from __future__ import annotations

import re
from typing import Final

from antinfer.core.causes import Cause
from antinfer.core.scaling.facts import ContainerFacts, PodFacts
from antinfer.core.scaling.values import Obstacle, Severity

_WAITING: Final = {
    "ErrImagePull": (Cause.IMAGE_ERROR, Severity.MISSING_IMAGE),
    "ImagePullBackOff": (Cause.IMAGE_ERROR, Severity.MISSING_IMAGE),
    "ImageInspectError": (Cause.IMAGE_ERROR, Severity.MISSING_IMAGE),
    "RegistryUnavailable": (Cause.IMAGE_ERROR, Severity.UNREACHABLE),
    "SignatureValidationFailed": (Cause.IMAGE_ERROR, Severity.MISSING_IMAGE),
    "InvalidImageName": (Cause.IMAGE_ERROR, Severity.INVALID),
    "ErrImageNeverPull": (Cause.IMAGE_ERROR, Severity.INVALID),
    "CreateContainerConfigError": (Cause.CONFIG_ERROR, Severity.MISSING_CONFIG),
    "CreateContainerError": (Cause.CONFIG_ERROR, Severity.MISSING_CONFIG),
    "RunContainerError": (Cause.CONFIG_ERROR, Severity.MISSING_CONFIG),
    "PreCreateHookError": (Cause.CONFIG_ERROR, Severity.MISSING_CONFIG),
    "PostStartHookError": (Cause.CONFIG_ERROR, Severity.MISSING_CONFIG),
}
"""Why a container waits. What is not here, such as ``ContainerCreating``, is no obstacle by itself."""
_IN_EVENTS: Final = {
    "FailedMount": (Cause.CONFIG_ERROR, Severity.MISSING_CONFIG),
    "FailedAttachVolume": (Cause.CONFIG_ERROR, Severity.MISSING_CONFIG),
    "FailedCreatePodSandBox": (Cause.NODE_REFUSED, Severity.WAITING),
}
"""What events alone say. A sandbox cannot be made where a node's network plugin is in trouble, as that of a new node is for a moment."""
TOLD_IN_EVENTS: Final = frozenset(_IN_EVENTS)
"""Reasons of the events that say what keeps a pod from being made."""
_UNREACHABLE: Final = re.compile(
    r"time-?out|timed out|deadline exceeded|connection (refused|reset)|no such host|server misbehaving|temporary failure|no route to host"
    r"|too ?many ?requests|status (code )?(429|50\d)|50[0234] |unexpected EOF|network is unreachable",
    re.IGNORECASE,
)


def of(pod: PodFacts) -> Obstacle | None:
    """Return what keeps `pod` from starting; None: nothing does that has been told."""
    # The worker's own word first, then that of whatever has to start before it.
    own = pod.worker
    for container in (*(() if own is None else (own,)), *(each for each in pod.containers if each is not own)):
        found = _of_container(container)
        if found is not None:
            return found
    if pod.complaint is not None:
        return Obstacle(*_IN_EVENTS[pod.complaint.reason], pod.complaint.text)
    scheduled = pod.condition("PodScheduled")
    if not pod.node and scheduled is not None and not scheduled.is_true:
        return Obstacle(Cause.NO_CAPACITY, Severity.WAITING, scheduled.message or scheduled.reason or "no node fits")
    return None


def of_refusal(status: int, message: str) -> Obstacle:
    """Return what an API server means that answers the creation of a pod with such a status code."""
    # 403 is both: a quota that is used up may have room again; what a quota wants to be told, and a right that is missing, is for somebody
    # to give.
    if status == 429 or (status == 403 and "exceeded quota" in message):
        return Obstacle(Cause.NO_CAPACITY, Severity.WAITING, message)
    if status in (400, 401, 403, 404, 422):
        return Obstacle(Cause.CONFIG_ERROR, Severity.INVALID, message)
    return Obstacle(Cause.NO_CAPACITY, Severity.WAITING, message)


def _of_container(container: ContainerFacts) -> Obstacle | None:
    known = _WAITING.get(container.waiting)
    if known is None:
        return None
    cause, severity = known
    if cause is Cause.IMAGE_ERROR and severity is Severity.MISSING_IMAGE and _UNREACHABLE.search(container.message):
        severity = Severity.UNREACHABLE
    detail = f"{container.waiting}: {container.message}" if container.message else container.waiting
    return Obstacle(cause, severity, f"container {container.name}: {detail}")
