"""What happened: the only inputs of `engine.step`. Each carries its time in milliseconds on the master's monotonic clock."""

from __future__ import annotations

from typing import NewType

from antinfer.core.causes import Cause
from antinfer.core.ids import WorkerId
from antinfer.core.messages import Heartbeat, Join, Request
from antinfer.core.records import CommitRecord
from antinfer.core.values import value

StreamId = NewType("StreamId", int)
"""One connection of a worker to this master; the address of what is sent back."""


@value
class Joined:
    at: int
    stream: StreamId
    join: Join


@value
class Requested:
    at: int
    stream: StreamId
    request: Request


@value
class HeartbeatSeen:
    at: int
    stream: StreamId
    heartbeat: Heartbeat


@value
class StreamBroken:
    """The connection is gone; its worker has the grace period to come back before its session ends."""

    at: int
    stream: StreamId


@value
class Ticked:
    """Time passed; expiries, collections and wake-ups are looked at."""

    at: int


@value
class PlanExtended:
    """More shards are planned, and their description is durable beside the output."""

    at: int
    rows: tuple[int | None, ...]


@value
class PlanCompleted:
    """No shard will be added to the plan."""

    at: int


@value
class Published:
    """The objects of these records have their final names."""

    at: int
    staged: tuple[str, ...]
    missing: tuple[str, ...] = ()
    """Records whose objects are neither staged nor published. Only a store that is not the last one to have written this output may name
    such records: a later reign with another store has swept them, and done their rows again."""


@value
class Flushed:
    """These records are durable in the manifest."""

    at: int
    staged: tuple[str, ...]


@value
class StagingListed:
    """These objects lie in staging."""

    at: int
    staged: tuple[str, ...]


@value
class StagingSwept:
    """No staged object of an earlier epoch is left that could still be published, except those of known records."""

    at: int


@value
class OutputListed:
    """What the output place proves on its own: the records in its manifest, its parts and its record objects."""

    at: int
    records: tuple[CommitRecord, ...]
    """May hold repeats (rule 7). Every one is published."""
    unflushed: tuple[CommitRecord, ...] = ()
    """Those of `records` that the manifest does not hold yet."""


@value
class OutputAudited:
    """The final names were compared with the records; parts that no record names were removed (rule 12)."""

    at: int
    removed: tuple[str, ...]


@value
class Sealed:
    """``_SUCCESS`` and the final manifest are durable."""

    at: int


@value
class DrainRequested:
    """Somebody wants this worker to stop without losing what it has finished."""

    at: int
    worker: WorkerId
    cause: Cause = Cause.DRAINED


@value
class InterruptionSeen:
    """Something interrupted the job of which no worker can tell: the store was away, or how a worker has ended. It is counted."""

    at: int
    cause: Cause
    detail: str = ""
    """For people."""
    times: int = 1


@value
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
    | InterruptionSeen
    | JobFailed
)
