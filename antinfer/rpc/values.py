"""Values that cross the wire for display and set-up; what decides about rows is in `antinfer.core.messages`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

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


KEPT_DECISIONS: Final = 20
"""Of each stage, the latest."""


@dataclass(frozen=True, slots=True)
class StageStats:
    """What one stage of a worker has done since the worker started, and does now (in the last few seconds)."""

    name: str
    mode: str = "threads"
    """What its copies are: `threads` or `processes`."""
    degree: int = 1
    """How many there are."""
    batch_rows: int = 0
    """Rows of a full batch."""
    rows_in: int = 0
    rows_out: int = 0
    fused_rows: int = 0
    """Of the rows in, those for which a predictor did the work of the hybrid stage before it too."""
    batches: int = 0
    queue_rows: int = 0
    """Rows that wait in front of it now."""
    busy_seconds: float = 0.0
    starved_seconds: float = 0.0
    """Its copies had nothing to do."""
    blocked_seconds: float = 0.0
    """They had, but what follows had no room. All three are summed over the copies."""
    active_seconds: float = 0.0
    """Time in which it got batches done."""
    load_seconds: float = 0.0
    """Longest time that a process took to set the user code up."""
    busy: float = 0.0
    starved: float = 0.0
    blocked: float = 0.0
    """Shares of the time of its copies now, 0..1."""
    rows_per_second: float = 0.0
    """Now."""
    decisions: tuple[str, ...] = ()
    """What was decided about it, the latest, each in one line."""

    def after(self, earlier: StageStats) -> StageStats:
        """Return these figures with those of an earlier process of the same worker added."""
        return replace(
            self,
            load_seconds=max(earlier.load_seconds, self.load_seconds),
            decisions=(*earlier.decisions, *self.decisions)[-KEPT_DECISIONS:],
            **{name: getattr(earlier, name) + getattr(self, name) for name in SUMS},
        )


SUMS: Final = ("rows_in", "rows_out", "fused_rows", "batches", "busy_seconds", "starved_seconds", "blocked_seconds", "active_seconds")
"""Figures of a stage that only grow."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What a worker tells about itself; nothing is decided from it."""

    rows: int = 0
    """Rows computed since the worker started, recomputed ones included."""
    rows_per_second: float = 0.0
    stages: tuple[StageStats, ...] = ()
    """In the order of the pipeline."""
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
class GivenBack:
    """What became of a request to give workers back."""

    most: int | None
    """Workers that the job has at most from now on; None: this master starts none, or has not seen any yet."""
    leaving: tuple[str, ...] = ()
    """Workers that were asked to leave."""


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
