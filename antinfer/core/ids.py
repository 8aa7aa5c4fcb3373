"""Identities that travel between master, worker, store and output place."""

from __future__ import annotations

from typing import NamedTuple, NewType

ShardId = NewType("ShardId", int)
"""Index of a shard in the plan, from 0, in input order."""

WorkerId = NewType("WorkerId", str)
"""Name of one worker process, stable over its reconnects."""

SessionId = NewType("SessionId", str)
"""One membership of a worker in the job; a worker that was given up gets a new one when it joins again."""

Epoch = NewType("Epoch", int)
"""Number of a master's reign, from 1. Only the highest epoch may write."""

StagedName = NewType("StagedName", str)
"""Attempt-private name of a staged object: ``<lease>.<shard>.<start>-<stop>.<random hex>``."""


class LeaseId(NamedTuple):
    """Fencing token of a lease; ordered, and never reused because the epoch is part of it (rule 13)."""

    epoch: int
    n: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.n}"

    @classmethod
    def parse(cls, text: str) -> LeaseId:
        """Read ``"<epoch>-<n>"``. Raises ValueError on anything else."""
        epoch, n = text.split("-")
        return cls(int(epoch), int(n))


def staged_name(lease: LeaseId, shard: int, start: int, stop: int, nonce: str) -> StagedName:
    """Name the staged object of rows ``[start, stop)`` of `shard`, private to this attempt by `nonce`."""
    return StagedName(f"{lease}.{shard}.{start}-{stop}.{nonce}")


def lease_of(staged: str) -> LeaseId:
    """Return the lease under which `staged` was written. Raises ValueError when the name is not ours."""
    return LeaseId.parse(staged.split(".", 1)[0])
