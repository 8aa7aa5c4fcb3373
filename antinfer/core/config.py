"""Policy of one job, as the engine needs it."""

from __future__ import annotations

from dataclasses import dataclass, field

from antinfer.core.budgets import BadRowBudget, RangeBudget, StorageBudget


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Policy of one job; times in milliseconds."""

    job: str = ""
    """Job id; a worker that names another is turned away."""
    ttl_ms: int = 10_000
    """Silence after which a session ends."""
    grace_ms: int = 1_000
    """Time a worker has to come back after its stream broke."""
    heartbeat_ms: int = 1_000
    """Heart-beat interval with few workers; it grows with their number so that the master hears at most about 2,000 a second."""
    wait_ms: int = 500
    """How long a worker that got nothing waits before it asks again unasked."""
    collect_ms: int = 30_000
    """How often staging is looked through for garbage."""
    flush_records: int = 1_000
    """Records that make a chunk of the manifest."""
    flush_ms: int = 5_000
    """Longest time a published record waits for its chunk."""
    task_rows: int | None = None
    """Most rows of one task; None: a whole shard."""
    max_grants: int = 64
    """Most leases granted to one request."""
    copy_after_ms: int | None = 30_000
    """Age at which a lease may get a second copy once nothing else is left to lease; None: never."""
    storage_attempts: int = 20
    """Leases of one range that may fail on storage before the job is given up."""
    worker_failures: int = 5
    """Workers that may give up one after the other, with no commit between, before the job is given up: it cannot work anywhere."""
    bad_rows: BadRowBudget = field(default_factory=BadRowBudget)
    ranges: RangeBudget = field(default_factory=RangeBudget)
    storage: StorageBudget = field(default_factory=StorageBudget)

    def heartbeat_interval_ms(self, sessions: int) -> int:
        """Return the heart-beat interval for this many workers: at most about 2,000 a second in all, at least three in a time to live."""
        return max(1, min(max(self.heartbeat_ms, sessions // 2), self.ttl_ms // 3))
