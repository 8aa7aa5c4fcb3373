"""From what Ray says of actors and nodes to the plain values that `antinfer.core.scaling` decides from. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, field
from enum import Enum
from typing import Any, Final

from antinfer.core.scaling.facts import ConditionFacts, ContainerFacts, NodeState, PodFacts
from antinfer.core.values import value

CONTAINER: Final = "worker"
_KILLED: Final = 128 + 9
_EXPECTED: Final = (1, 3, 4)
"""Reasons for which Ray takes a node out of the cluster on purpose (``NodeDeathInfo`` in its protocol): stopped, preempted, idle."""
_ALWAYS: Final = ("CPU", "GPU")
"""Resources by which people know a node."""
_FIRST: Final = (*_ALWAYS, "memory")
_MOST_KINDS: Final = 5
"""Kinds of nodes that are named in one text."""


class Death(Enum):
    """How an actor ended without the worker in it having ended."""

    KILLED = "killed"
    """Its process is gone, and nobody says why."""
    OUT_OF_MEMORY = "out_of_memory"
    """Ray ended it because the node ran out of memory."""
    NOT_STARTED = "not_started"
    """No worker could be started in it."""
    NODE_LOST = "node_lost"
    PREEMPTED = "preempted"
    """Its node was taken away, as had been announced."""


@value
class ActorFacts:
    """One actor that was made for a worker. Times in ms on the clock of its machine, which all processes there share."""

    name: str
    worker_class: str
    created_at: int
    memory_bytes: int = 0
    node: str = ""
    """Empty: it has none yet."""
    node_state: NodeState = NodeState.UNKNOWN
    waits: str = ""
    """Why it has no node; empty: it has one, or it is too early to tell."""
    is_leaving: bool = False
    """It was asked to leave."""
    exit_code: int | None = None
    """Of its worker; a signal as 128 and its number. None: the worker has not ended."""
    death: Death | None = None
    words: str = ""
    """What the worker said last, or what Ray says of the death of the actor."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "node_state": self.node_state.value, "death": None if self.death is None else self.death.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ActorFacts:
        death = data["death"]
        return cls(**{**data, "node_state": NodeState(data["node_state"]), "death": None if death is None else Death(death)})


@value
class NodeFacts:
    """One node of the cluster."""

    name: str
    """For people, and no other node's."""
    is_alive: bool
    is_draining: bool = False
    death_reason: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    """All that it has, taken or not."""


def pod_facts(actor: ActorFacts) -> PodFacts:
    """Return what is known of an actor in the words of pods."""
    phase, reason, message = "Running" if actor.node else "Pending", "", ""
    containers: tuple[ContainerFacts, ...] = ()
    match actor.death:
        case None if actor.exit_code is not None:
            phase = "Failed" if actor.exit_code else "Succeeded"
            containers = (ContainerFacts(CONTAINER, exit_code=actor.exit_code, message=actor.words),)
        case None:
            pass
        case Death.NODE_LOST | Death.PREEMPTED:
            phase, message = "Failed", actor.words
            # Ray says of either that the node has died; only the node itself says that somebody meant it to.
            is_lost = actor.death is Death.NODE_LOST and actor.node_state is not NodeState.DELETED
            reason = "NodeLost" if is_lost else "Preempted"
        case Death.KILLED | Death.OUT_OF_MEMORY | Death.NOT_STARTED:
            phase = "Failed"
            why = {Death.OUT_OF_MEMORY: "OOMKilled", Death.NOT_STARTED: "StartError"}.get(actor.death, "")
            containers = (ContainerFacts(CONTAINER, exit_code=_KILLED, reason=why, message=actor.words),)
    return PodFacts(
        name=actor.name,
        worker_class=actor.worker_class,
        created_at=actor.created_at,
        container=CONTAINER,
        phase=phase,
        reason=reason,
        message=message,
        conditions=(ConditionFacts("PodScheduled", False, message=actor.waits),) if actor.waits else (),
        containers=containers,
        node=actor.node,
        node_state=actor.node_state,
        is_deleting=actor.is_leaving,
        memory_bytes=actor.memory_bytes,
    )


def node_facts(node: Mapping[str, Any], draining: Iterable[str]) -> NodeFacts:
    """Return what `ray.nodes` says of a node; `draining`: ids of the nodes that are to leave."""
    node_id = node["NodeID"]
    return NodeFacts(
        name=f"{node['NodeManagerAddress']}/{node_id[:8]}",
        is_alive=node["Alive"],
        is_draining=node_id in draining,
        death_reason=node.get("DeathReason", 0),
        resources=node["Resources"],
    )


def node_state(node: NodeFacts | None) -> NodeState:
    """Return how a node is; one that was taken out on purpose is deleted, one that fell silent is lost."""
    if node is None:
        return NodeState.UNKNOWN
    if not node.is_alive:
        return NodeState.DELETED if node.death_reason in _EXPECTED else NodeState.LOST
    return NodeState.DOOMED if node.is_draining else NodeState.READY


# -- places -------------------------------------------------------------------------------------------------------------------------
def could_hold(nodes: Iterable[NodeFacts], request: Mapping[str, float]) -> bool:
    """Tell whether some node would have all that is asked for if nobody else were there."""
    return any(
        node.is_alive and not node.is_draining and all(node.resources.get(name, 0.0) >= amount for name, amount in request.items())
        for node in nodes
    )


def why_waiting(nodes: Iterable[NodeFacts], request: Mapping[str, float]) -> str:
    """Say why an actor that asks for `request` finds no place."""
    nodes = list(nodes)
    if could_hold(nodes, request):
        return f"no node has started a worker that asks for {amounts(request)} so far: all are taken, or still prepare for it"
    kinds = Counter(_of_interest(node.resources, request) for node in nodes if node.is_alive and not node.is_draining)
    found = [f"{count} nodes with {what}" if count > 1 else f"one with {what}" for what, count in kinds.most_common(_MOST_KINDS)]
    more = [f"{len(kinds) - len(found)} other kinds"] if len(kinds) > len(found) else []
    return f"no node has {amounts(request)}, which a worker asks for; the cluster has {'; '.join(found + more) or 'no nodes'}"


def amounts(resources: Mapping[str, float]) -> str:
    """Write down amounts of resources, the usual ones first."""
    shown = sorted(resources, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
    return ", ".join(_amount(name, resources[name]) for name in shown) or "nothing"


def _of_interest(resources: Mapping[str, float], request: Mapping[str, float]) -> str:
    return amounts({name: amount for name, amount in resources.items() if name in request or name in _ALWAYS})


def _amount(name: str, amount: float) -> str:
    return f"{amount / 2**30:.3g} GiB of memory" if name == "memory" else f"{amount:g} {name}"
