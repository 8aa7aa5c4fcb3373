"""What is desired of a job's workers, and what is seen of them. Times in ms on one clock that never goes back, rates in rows per ms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from antinfer.core.causes import Cause
from antinfer.core.values import value

PROTECTED: Final = "protected"
"""Class of the workers on nodes that are not preemptible."""
PREEMPTIBLE: Final = "preemptible"
CLASSES: Final = (PROTECTED, PREEMPTIBLE)
MIB: Final = 2**20


# -- desired ------------------------------------------------------------------------------------------------------------------------
@value
class WorkerClass:
    """One of the two kinds of workers."""

    gpus: float = 1.0
    """Of one worker; what GPU-hours are counted by."""
    price: float = 0.0
    """Money for one worker for an hour."""
    memory_bytes: int = 0
    """Limit of one worker; 0: none is set, so none can be raised."""
    max_memory_bytes: int = 0
    """How far it may be raised after the system ran out of memory; at most `memory_bytes`: not at all."""


@value
class Allowance:
    """What a job may use up; None: as much as it likes."""

    gpu_hours: float | None = None
    money: float | None = None


@value
class GiveBack:
    """Somebody wants workers back. The same request may be made again and again: its id says that it is one, and its number may change."""

    id: str
    workers: int
    """By so many the job is to be smaller than it was when the request was first seen."""
    until: int | None = None
    """Until then it stays that much smaller; None: until the request is withdrawn."""
    had: int | None = None
    """Workers that the job had when the request was first seen, by an earlier controller; None: it is new."""


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """Numbers behind the decisions; times in ms."""

    startup_ms: int = 60_000
    """Time from the start of a worker to its first rows, until it was measured."""
    drain_ms: int = 60_000
    """Time that a worker gets to leave after it was asked; then its object is deleted, which sends the signal."""
    early: float = 0.92
    aim: float = 0.95
    late: float = 0.98
    """Parts of the time up to the deadline. Workers are added when the job would end after `late`, given back when it would end before
    `early`, and either way as many as let it end at `aim`: between the two nothing happens, so that no noise makes workers come and go."""
    settle_ms: int = 60_000
    """How long fewer workers must have been enough before any is given back, at most."""
    settle_part: float = 0.2
    """The part of the time left for which they must have been, when that is shorter."""
    probes: float = 0.1
    """Share of the workers, at least one, that may wait for a place when the job takes what it can get: the scheduler, or what adds nodes,
    sees by them that more are wanted."""
    surplus_ms: int = 60_000
    """How long more than these may wait before they are withdrawn."""
    grow_ms: int = 1_000
    """Time between two steps of growth, each four times as large as the one before."""
    starts_per_s: float = 20.0
    starts_at_once: int = 100
    """Workers that are started at once, and then a second."""
    visible_ms: int = 15_000
    """Time in which what was asked of a launcher should be seen; then it is asked again, under the same name."""
    healthy_ms: int = 60_000
    """A worker that was ready for so long had no trouble with its start."""
    first_pause_ms: int = 2_000
    longest_pause_ms: int = 300_000
    """Pauses in a crash loop."""
    tries: int = 6
    """Rounds of a crash loop, without a committed row between, after which the job fails."""
    node_faults: int = 3
    """Faults of a node within `node_memory_ms` after which it is avoided for as long."""
    node_memory_ms: int = 1_800_000
    avoided_share: float = 0.25
    """Share of the nodes that may be avoided at a time: when all are faulty it is not the nodes."""
    image_patience_ms: int = 90_000
    """How long an image may be missing; the kubelet has tried four times by then."""
    unreachable_patience_ms: int = 600_000
    """The same where it says that the registry could not be reached."""
    config_patience_ms: int = 30_000
    """How long a secret, a config map or a volume may be missing: another may be about to make it."""
    invalid_patience_ms: int = 10_000
    """How long what cannot mend by itself may last: the name of an image, a refused right."""
    start_patience_ms: int = 900_000
    """How long a worker that has a node may take to join before it is tried elsewhere."""
    idle_ms: int = 10_000
    """How long a worker may be without rows, when there are none to lease, before it is given back."""
    pending_ms: int = 30_000
    """Waiting for a place is told when it has lasted this long."""
    keep_ended: int = 20
    """Failed workers whose objects are kept, so that their logs can be read."""
    startup_share: float = 0.1
    """Part of what is left of a budget that may go into starting workers."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What is wanted of the workers of a job."""

    prefix: str
    """Begins the names of workers. Another one in each reign, so that no name is ever used twice."""
    least: int = 1
    most: int = 1
    on_demand: float = 0.0
    """Share of workers of class `PROTECTED`."""
    deadline_at: int | None = None
    started_at: int = 0
    """When the job began: deadlines are held within a part of the time from there."""
    allowance: Allowance = field(default_factory=Allowance)
    classes: Mapping[str, WorkerClass] = field(default_factory=dict)
    surge: int | None = None
    """Workers on their way out that do not count against `most`, so that others can start before they have stopped; None: all of them.
    Lost ones never count: nobody knows whether they are there."""
    give_back: tuple[GiveBack, ...] = ()
    policy: ScalingPolicy = field(default_factory=ScalingPolicy)

    def of(self, worker_class: str) -> WorkerClass:
        """Return what is said about a class."""
        return self.classes.get(worker_class, _ANY_CLASS)


_ANY_CLASS: Final = WorkerClass()


# -- observed -----------------------------------------------------------------------------------------------------------------------
class WorkerState(Enum):
    """Where a worker is in its life, as far as it matters for how many there should be."""

    PENDING = "pending"
    """It has no node yet."""
    STARTING = "starting"
    """It has a node, but has not joined."""
    READY = "ready"
    LEAVING = "leaving"
    """It was told to leave, or will be taken away; it may still work."""
    LOST = "lost"
    """Its node does not answer; it may still work, and may come back."""
    ENDED = "ended"


@value
class Ending:
    """Why a worker ended, or is about to."""

    cause: Cause
    detail: str = ""
    """For people: what the system said."""


class Severity(Enum):
    """How long one has to look at an obstacle before it is believed."""

    WAITING = "waiting"
    """It may pass at any time: no place, a node in trouble."""
    UNREACHABLE = "unreachable"
    """It should pass: a registry that could not be reached."""
    MISSING_IMAGE = "missing_image"
    MISSING_CONFIG = "missing_config"
    INVALID = "invalid"
    """It cannot pass by itself."""


@value
class Obstacle:
    """What keeps a worker from starting."""

    cause: Cause
    severity: Severity
    detail: str
    """The words of the scheduler or the kubelet."""


@value
class WorkerSeen:
    """One worker, as its launcher and the master see it now."""

    name: str
    worker_class: str
    state: WorkerState
    since: int
    """When it got into that state."""
    created_at: int
    ready_at: int | None = None
    """When it joined first; None: not yet."""
    node: str = ""
    uncommitted_rows: int = 0
    """Rows that it holds and has not committed."""
    idle_since: int | None = None
    """Since when it has held none; None: it holds some, or is not ready."""
    memory_bytes: int = 0
    ending: Ending | None = None
    """Set when it has ended, is lost or is being taken away."""
    obstacle: Obstacle | None = None
    was_told: bool = False
    """It has been told to leave, by us or by the system."""
    is_heard: bool = False
    """The master hears it."""

    @property
    def is_placed(self) -> bool:
        """True when it has a place and is to keep it."""
        return self.state is WorkerState.STARTING or self.state is WorkerState.READY


@value
class Measure:
    """What was measured about the workers of a class."""

    rate: float
    """Rows per ms that one worker computes while it works."""
    loss: float = 0.0
    """Share of a worker's time, 0 to 1, that preemption takes: rows computed again, and replacements that start."""
    startup_ms: int | None = None
    """Time from the start of a worker to its first rows; None: none has got there yet."""
    loss_error: float = 0.0
    """Standard error of `loss`: few deaths say little of how many there will be."""


@dataclass(frozen=True, slots=True)
class Observed:
    """All that is seen at one moment."""

    workers: tuple[WorkerSeen, ...] = ()
    remaining_rows: int | None = None
    """Not committed yet; None: not known yet, as long as input is being sized."""
    unleased_rows: int | None = None
    """Of these, those that nobody holds."""
    committed_rows: int = 0
    refused: Mapping[str, Obstacle] = field(default_factory=dict)
    """Workers that could not even be asked for, by name: since the last time, and why."""
    measures: Mapping[str, Measure] = field(default_factory=dict)
    """By class; a class that nothing is known about is left out."""
    is_done: bool = False
    """Every row is committed."""
