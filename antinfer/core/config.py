"""Policy of one job, as the engine needs it."""

from __future__ import annotations

from dataclasses import dataclass, field

from antinfer.core.budgets import BadRowBudget, RangeBudget, StartBudget, StorageBudget, WorkerBudget
from antinfer.core.hindrance import HindrancePolicy
from antinfer.core.interval import IntervalPolicy


@dataclass(frozen=True, slots=True)
class DeadlinePolicy:
    """When a range on a worker that lives counts as stuck: not a row was computed for far longer than all the rest of it should take."""

    factor: float = 4.0
    """Times the time that the rest should take at the measured rate."""
    shortest_ms: int = 60_000
    """Never sooner than this: a batch may be large, an upload slow."""
    first_ms: int = 600_000
    """The same for a worker that has not computed a row yet: models are compiled at the first batch."""
    answer_ms: int = 10_000
    """Time to give a stuck range back; then it is taken away."""
    looks_ms: int = 1_000
    """How often ranges are looked at."""


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
    """How long a worker that got nothing waits before it asks again unasked; longer where there are thousands of them."""
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
    tail_ms: int | None = 1_000
    """Once little is left to lease tasks are cut smaller, down to what takes this long, and workers that will be busy for twice as long
    share the rest of their ranges with idle ones; None: neither."""
    copy_after_ms: int | None = 10_000
    """Time without a computed row after which a lease gets a second copy once there is nothing else for an idle worker; None: never."""
    elsewhere_ms: int = 10_000
    """How long a range that failed waits for another worker before the same one may have it again."""
    storage_attempts: int = 20
    """Leases of one range that may fail on storage, with nothing of it committed between, before the job is given up."""
    worker_failures: int = 5
    """Workers that may give up one after the other, with no commit between, before the job is given up: it cannot work anywhere."""
    bad_rows: BadRowBudget = field(default_factory=BadRowBudget)
    ranges: RangeBudget = field(default_factory=RangeBudget)
    storage: StorageBudget = field(default_factory=StorageBudget)
    workers: WorkerBudget = field(default_factory=WorkerBudget)
    starts: StartBudget = field(default_factory=StartBudget)
    hindrance: HindrancePolicy = field(default_factory=HindrancePolicy)
    deadlines: DeadlinePolicy = field(default_factory=DeadlinePolicy)
    interval: IntervalPolicy | None = None
    """How often workers are told to commit; None: the job file says it."""

    def heartbeat_interval_ms(self, sessions: int) -> int:
        """Return the heart-beat interval for this many workers: at most about 2,000 a second in all, at least three in a time to live."""
        return max(1, min(max(self.heartbeat_ms, sessions // 2), self.ttl_ms // 3))

    def wait_interval_ms(self, sessions: int) -> int:
        """Return how long a worker that got nothing waits before it asks again: of any number at most about 2,000 ask in a second.

        Whoever can be fed is told so at once; asking again is for those who did not hear it.
        """
        return max(self.wait_ms, sessions // 2)
