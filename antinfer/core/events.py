"""What happened: the only inputs of `engine.step`. Each carries its time in milliseconds on the master's monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from antinfer.core.ids import WorkerId
from antinfer.core.messages import Heartbeat, Join, Request
from antinfer.core.records import CommitRecord

StreamId = NewType("StreamId", int)
"""One connection of a worker to this master; the address of what is sent back."""


@dataclass(frozen=True, slots=True)
class Joined:
    at: int
    stream: StreamId
    join: Join


@dataclass(frozen=True, slots=True)
class Requested:
    at: int
    stream: StreamId
    request: Request


@dataclass(frozen=True, slots=True)
class HeartbeatSeen:
    at: int
    stream: StreamId
    heartbeat: Heartbeat


@dataclass(frozen=True, slots=True)
class StreamBroken:
    """The connection is gone; its worker has the grace period to come back before its session ends."""

    at: int
    stream: StreamId


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed; expiries, collections and wake-ups are looked at."""

    at: int


@dataclass(frozen=True, slots=True)
class PlanExtended:
    """More shards are planned, and their description is durable beside the output."""

    at: int
    rows: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class PlanCompleted:
    """No shard will be added to the plan."""

    at: int


@dataclass(frozen=True, slots=True)
class Published:
    """The objects of these records have their final names."""

    at: int
    staged: tuple[str, ...]
    missing: tuple[str, ...] = ()
    """Records whose objects are neither staged nor published. Only a store that is not the last one to have written this output may name
    such records: a later reign with another store has swept them, and done their rows again."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """These records are durable in the manifest."""

    at: int
    staged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StagingListed:
    """These objects lie in staging."""

    at: int
    staged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StagingSwept:
    """No staged object of an earlier epoch is left that could still be published, except those of known records."""

    at: int


@dataclass(frozen=True, slots=True)
class OutputListed:
    """What the output place proves on its own: the records in its manifest, its parts and its record objects."""

    at: int
    records: tuple[CommitRecord, ...]
    """May hold repeats (rule 7). Every one is published."""
    unflushed: tuple[CommitRecord, ...] = ()
    """Those of `records` that the manifest does not hold yet."""


@dataclass(frozen=True, slots=True)
class OutputAudited:
    """The final names were compared with the records; parts that no record names were removed (rule 12)."""

    at: int
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sealed:
    """``_SUCCESS`` and the final manifest are durable."""

    at: int


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """Somebody wants this worker to stop without losing what it has finished."""

    at: int
    worker: WorkerId


@dataclass(frozen=True, slots=True)
class JobFailed:
    """The job cannot go on (planning found bad input, the user cancelled, the output place is gone)."""

    at: int
    reason: str


Event = (
    Joined
    | Requested
    | HeartbeatSeen
    | StreamBroken
    | Ticked
    | PlanExtended
    | PlanCompleted
    | Published
    | Flushed
    | StagingListed
    | StagingSwept
    | OutputListed
    | OutputAudited
    | Sealed
    | DrainRequested
    | JobFailed
)
