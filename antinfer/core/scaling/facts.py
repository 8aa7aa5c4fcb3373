"""A pod in plain values: what the API server says of it and of its node, and what the master knows of its worker.

The words are those of Kubernetes, but nothing here speaks to it. Other launchers fill in what they know.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from antinfer.core.values import value

_BEING_MADE: Final = ("ContainerCreating", "PodInitializing")


class NodeState(Enum):
    """The node that a pod was placed on."""

    UNKNOWN = "unknown"
    """Not placed yet, or we may not look at nodes."""
    READY = "ready"
    DOOMED = "doomed"
    """It will be taken away soon: a spot notice, a taint that evicts."""
    LOST = "lost"
    """Its condition Ready is False or Unknown: it is gone, frozen or cut off. What runs on it may still run."""
    DELETED = "deleted"
    """There is no such node any more."""


@value
class ContainerFacts:
    """The status of one container. Which one it is, its name says: their order means nothing."""

    name: str
    is_init: bool = False
    waiting: str = ""
    """Why it waits, such as ``ImagePullBackOff``; empty: it does not."""
    exit_code: int | None = None
    """None: it has not ended."""
    reason: str = ""
    """Why it ended, such as ``OOMKilled``."""
    message: str = ""
    """The kubelet's words about either."""


@value
class ConditionFacts:
    """A condition of a pod."""

    type: str
    is_true: bool
    reason: str = ""
    message: str = ""


@value
class EventFacts:
    """An event about a pod."""

    reason: str
    """Such as ``FailedMount``."""
    message: str = ""
    """The kubelet's words."""

    @property
    def text(self) -> str:
        """Reason and message, as people read them."""
        return f"{self.reason}: {self.message}"


@value
class PodFacts:
    """One pod that was started as a worker. Times in ms."""

    name: str
    worker_class: str
    created_at: int
    uid: str = ""
    container: str = "worker"
    """Name of the container that is the worker."""
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    conditions: tuple[ConditionFacts, ...] = ()
    containers: tuple[ContainerFacts, ...] = ()
    node: str = ""
    node_state: NodeState = NodeState.UNKNOWN
    is_deleting: bool = False
    """It has a deletion time; its object may stay for ever."""
    memory_bytes: int = 0
    """Limit of the worker's container; 0: none."""
    complaint: EventFacts | None = None
    """What keeps its containers from being made, where its status does not say it: missing volumes, no network."""
    was_asked: bool = False
    """We asked the worker to leave: scale-in, an operator's drain."""
    has_session: bool = False
    """The master hears its worker."""
    was_ready: bool = False
    """The master has heard its worker at some time."""

    def condition(self, type_: str) -> ConditionFacts | None:
        """Return the condition of that type, if there is one."""
        return next((condition for condition in self.conditions if condition.type == type_), None)

    @property
    def is_being_made(self) -> bool:
        """Its node prepares its volumes and images, and its status does not say what of it."""
        own = self.worker
        is_silent = own is None or (own.exit_code is None and own.waiting in ("", *_BEING_MADE))
        return self.phase == "Pending" and bool(self.node) and not self.is_deleting and is_silent

    @property
    def is_out_of_reach(self) -> bool:
        """Its node does not answer.

        The node says so. Where we may not look at nodes the pod does: its kubelet, which calls all containers ready, was overruled by who
        has not heard from that kubelet.
        """
        if self.node_state is not NodeState.UNKNOWN:
            return self.node_state is NodeState.LOST
        ready, inside = self.condition("Ready"), self.condition("ContainersReady")
        is_overruled = ready is not None and not ready.is_true and inside is not None and inside.is_true
        return self.phase == "Running" and is_overruled

    @property
    def disruption(self) -> ConditionFacts | None:
        """The condition that says that the cluster takes the pod away; None: it does not."""
        condition = self.condition("DisruptionTarget")
        return condition if condition is not None and condition.is_true else None

    @property
    def worker(self) -> ContainerFacts | None:
        """The status of the worker's container; None: there is none yet, or none any more."""
        return next((each for each in self.containers if each.name == self.container and not each.is_init), None)
