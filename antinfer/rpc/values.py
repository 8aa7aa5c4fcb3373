"""Values that cross the wire for display and set-up; what decides about rows is in `antinfer.core.messages`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Phase = Literal["planning", "running", "finishing", "done", "failed"]
WorkerState = Literal["working", "waiting", "draining", "lost"]


@dataclass(frozen=True, slots=True)
class JobDocument:
    """What a worker has to run."""

    job: str
    """Job id."""
    document: str
    """The normalised job as JSON, fingerprints included."""
    output: str
    """URI of the output place."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What a worker tells about itself; nothing is decided from it."""

    rows: int = 0
    """Rows computed since the worker started, recomputed ones included."""
    rows_per_second: float = 0.0
    busy: Mapping[str, float] = field(default_factory=dict)
    """Stage name -> share of the last second in which it was at work, 0..1."""
    rss_bytes: int = 0
    """Resident memory of the agent and all its processes."""
    hostname: str = ""
    pid: int = 0
    host_restarts: int = 0


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The master's view of one worker."""

    worker: str
    state: WorkerState
    leases: int
    rows_committed: int
    """By this worker, since the start of this reign."""
    silent_seconds: float
    stats: Stats | None = None
    """None until the worker has told anything."""


@dataclass(frozen=True, slots=True)
class Status:
    """The master's view of its job."""

    job: str
    output: str
    epoch: int
    phase: Phase
    reason: str = ""
    """Why the job failed or what it waits for; empty when all is well."""
    rows_total: int | None = None
    """None while a planned shard is unsized or planning goes on."""
    rows_known: int = 0
    """Rows of all shards whose size is known so far."""
    rows_committed: int = 0
    """Quarantined ones included."""
    rows_quarantined: int = 0
    rows_leased: int = 0
    """Leased and not yet committed, in sized shards."""
    rows_per_second: float = 0.0
    elapsed_seconds: float = 0.0
    """Since the start of this reign."""
    eta_seconds: float | None = None
    shards_planned: int = 0
    plan_complete: bool = False
    files_planned: int = 0
    files_total: int | None = None
    """None while the input is still being listed."""
    workers: tuple[WorkerStatus, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    """Name -> count: `antinfer.core.engine.Engine.counters`."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data, for ``--json``."""
        return asdict(self)
