"""What a whole job is made of: its rows, its workers, what happens to them, and the policy under test. Times in seconds unless named."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from antinfer.core.budgets import BadRowBudget
from antinfer.core.config import EngineConfig
from antinfer.core.scaling.values import Desired
from antinfer.worker.policy import SessionPolicy

ENGINE: Final = EngineConfig(job="fleet", bad_rows=BadRowBudget(max_fraction=1.0))
"""The defaults of a job, but that any number of rows may be bad."""
SESSION: Final = SessionPolicy()


@dataclass(frozen=True, slots=True)
class Speeds:
    """How fast workers are: most near `rows_per_s`, some much slower."""

    rows_per_s: float = 500.0
    spread: float = 0.3
    """Speeds are even between 1 - spread and 1 + spread times `rows_per_s`."""
    slow_share: float = 0.02
    """Share of workers that are slow for as long as they live."""
    slow_factor: float = 8.0
    """How much slower."""

    @property
    def mean(self) -> float:
        """Rows a second that a worker may be expected to make."""
        return self.rows_per_s * (1 - self.slow_share + self.slow_share / self.slow_factor)


@dataclass(frozen=True, slots=True)
class Losses:
    """What happens to workers; 0 as a mean time between: never."""

    preempted_every: float = 0.0
    """Mean time until the node of one worker is taken away."""
    notice_share: float = 0.5
    """Share of those that are told before."""
    notice: float = 30.0
    silent_share: float = 0.1
    """Share of nodes without notice that vanish without breaking their connections."""
    swept_at: tuple[float, ...] = ()
    """Times at which many nodes are taken away in the same moment, without notice."""
    swept: int = 30
    """How many, if there are as many."""
    replaced_after: float = 20.0
    """Time until another worker starts in the place of one that is gone."""
    frozen_every: float = 0.0
    """Mean time until a worker's host stops computing although all else of it lives."""
    frozen_for: float = 120.0
    parted_every: float = 0.0
    """Time between partitions of the network, give or take half."""
    parted_share: float = 0.02
    """Of the workers, cut off from the master by each of them."""
    parted_for: float = 15.0
    master_dies_every: float = 0.0
    """Give or take half."""
    master_back_after: float = 3.0


@dataclass(frozen=True, slots=True)
class Scaling:
    """Workers that the controller of the master starts and gives back, in place of one in every slot from the beginning to the end."""

    desired: Desired
    """What is wanted of them; each reign has a prefix of its own."""
    protected: int = 0
    """Slots on nodes that nobody takes away; those of the other class are."""
    made_after: float = 15.0
    """Time from an order that finds a place to a running process: image, node, volumes."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """One whole job, but for its seed."""

    workers: int = 100
    """As many as there are slots."""
    shards: int = 2_000
    rows: int = 1_000
    """Of each shard."""
    batch: int = 32
    """Rows are computed in batches: what is not a whole one is lost with its process."""
    slots: int = 2
    """Leases that keep one worker busy."""
    setup: float = 10.0
    """Time until a new stage host is ready."""
    heavy_share: float = 0.0
    """Share of shards whose rows take longer."""
    heavy_factor: float = 20.0
    bad_every: int = 0
    """Every so many rows one is bad; 0: none."""
    poison: int = 0
    """Rows that kill whatever process computes them."""
    fan_out: int = 1
    """Results of each good row."""
    speeds: Speeds = field(default_factory=Speeds)
    losses: Losses = field(default_factory=Losses)
    scaling: Scaling | None = None
    commit_every: float | None = 60.0
    """Longest time until a worker commits what it has finished of a task; 0: at the end of the task only; None: as the master says."""
    turn_ms: int = 10
    """Time between two batches of a busy master."""
    engine: EngineConfig = ENGINE
    session: SessionPolicy = SESSION
    patience: float = 100.0
    """The job counts as stuck when it takes so many times the ideal time, and an hour."""

    def but(self, **changes: Any) -> Conditions:
        """Return the same with some fields replaced."""
        return replace(self, **changes)

    @property
    def total_rows(self) -> int:
        return self.shards * self.rows
