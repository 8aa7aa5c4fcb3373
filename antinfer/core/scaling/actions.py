"""What a controller does with its launcher and its master. Each may be done twice, or not at all: the next plan makes up for it."""

from __future__ import annotations

from enum import Enum

from antinfer.core.causes import Cause
from antinfer.core.values import value


@value
class StartWorkers:
    """Start workers of one class, all at once. One that is there already under such a name is the same one."""

    worker_class: str
    names: tuple[str, ...]
    memory_bytes: int
    """Limit of each; 0: as its template says."""
    avoid: tuple[str, ...] = ()
    """Nodes that they should not be placed on."""


@value
class DrainWorker:
    """Ask a worker to commit what is finished, return the rest and leave."""

    name: str
    cause: Cause
    why: str


@value
class DeleteWorker:
    """Delete the object of a worker: one that has ended, never had a place, or did not leave in time."""

    name: str
    cause: Cause
    why: str


@value
class AvoidNode:
    """A node gets no more workers of this job until the time `until` (ms)."""

    node: str
    until: int
    why: str


@value
class FailJob:
    """Nothing that we start can get the job on; what is committed stays."""

    reason: str
    hint: str


class Topic(Enum):
    """What is told; of each topic the last word counts."""

    DEADLINE = "deadline"
    BUDGET = "budget"
    PENDING = "pending"
    CRASHES = "crashes"
    IMAGE = "image"
    GIVE_BACK = "give_back"
    NODES = "nodes"


@value
class Tell:
    """Tell people something that they may want to act on; an empty text takes it back."""

    topic: Topic
    text: str


Action = StartWorkers | DrainWorker | DeleteWorker | AvoidNode | FailJob | Tell
