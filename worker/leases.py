"""One lease in a worker: how far it is staged and committed, and what of it the next request should tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from antinfer.core.ids import LeaseId, StagedName
from antinfer.core.messages import Commit, Failure, Grant, Return, Sizing
from antinfer.core.plan import Shard
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord
from antinfer.worker.hostlink import Work

REQUEST_BYTES: Final = 4 << 20
"""Rough size at which a request takes no more commits: after an hour without a master there may be thousands to send."""

_COMMIT_BYTES: Final = 400


@dataclass(slots=True)
class HeldLease:
    """One lease. Rows below `rows.start` are committed, rows below `frontier` staged; the host works on the rest."""

    id: LeaseId
    shard: Shard
    rows: Rows
    """What the master still counts as ours, as far as we know."""
    attempt: int
    quarantine: str
    alone: bool
    staged: list[CommitRecord] = field(default_factory=list)
    """Durable but not known to be committed; in row order, without gaps from `rows.start`."""
    sized: int | None = None
    """Rows of the shard, when the host found out under this lease."""
    is_sizing_told: bool = False
    is_asked_back: bool = False
    """The host was asked to let go of it."""
    is_released: bool = False
    """The host does nothing more for it: what is not staged goes back."""
    failure: Failure | None = None
    """The host cannot do what is not staged."""
    reached: int = 0
    """First row that is not known to be computed."""
    returned_from: int | None = None
    """Rows from here on were let go of, and the master has to be told."""
    host_deaths: int = 0
    """Hosts that died while this lease was the first in line."""

    @classmethod
    def of(cls, grant: Grant, shard: Shard) -> HeldLease:
        return cls(grant.lease, shard, grant.rows, grant.attempt, grant.quarantine, grant.alone)

    @property
    def frontier(self) -> int:
        """First row that is not staged."""
        return self.staged[-1].stop if self.staged else self.rows.start

    @property
    def is_computing(self) -> bool:
        """True while the host has something to do for it."""
        return not self.is_released and self.failure is None and self.frontier < self.rows.stop

    @property
    def is_over(self) -> bool:
        return self.is_empty and (self.sized is None or self.is_sizing_told)

    @property
    def is_empty(self) -> bool:
        """True when there is nothing left to do for it, nor to give back."""
        return self.rows.start >= self.rows.stop and self.returned_from is None

    @property
    def done(self) -> int:
        """First row that is not known to be computed, to be told to the master."""
        return max(self.frontier, min(self.reached, self.rows.stop))

    def keep_to(self, stop: int) -> None:
        """Go on with the rows before `stop` alone, or before what is staged; the others go back."""
        stop = max(stop, self.frontier)
        if stop < self.rows.stop:
            self.rows = Rows(self.rows.start, stop)
            self.returned_from = stop
            # Whatever died of the rows that go back is no proof against those that stay.
            self.host_deaths = 0

    def work(self) -> Work:
        """Return the order to compute what is not staged."""
        return Work(self.id, self.shard, Rows(self.frontier, self.rows.stop), self.attempt, self.quarantine, self.alone)

    def shrink(self, rows: Rows) -> list[CommitRecord]:
        """Keep only what is also in `rows`; return the staged records that cannot be committed any more."""
        start = max(self.rows.start, rows.start)
        self.rows = Rows(start, max(start, min(self.rows.stop, rows.stop)))
        kept: list[CommitRecord] = []
        lost: list[CommitRecord] = []
        for record in self.staged:
            follows = record.start == (kept[-1].stop if kept else start)
            (kept if follows and record.stop <= self.rows.stop else lost).append(record)
        self.staged = kept
        return lost

    def accept(self, staged: StagedName) -> None:
        """Note that the commit of `staged` was accepted; a repeated answer changes nothing."""
        at = next((at for at, record in enumerate(self.staged) if record.staged == staged), None)
        if at is not None:
            self.rows = Rows(self.staged[at].stop, max(self.staged[at].stop, self.rows.stop))
            del self.staged[: at + 1]

    def reject(self, staged: StagedName) -> list[CommitRecord]:
        """Forget the commit of `staged` and all that build on it; return them."""
        at = next((at for at, record in enumerate(self.staged) if record.staged == staged), len(self.staged))
        lost = self.staged[at:]
        del self.staged[at:]
        return lost

    def move_to(self, grant: Grant) -> None:
        """Go on under a new lease for the same rows (rule 18)."""
        self.id = grant.lease
        self.rows = grant.rows
        self.attempt = grant.attempt
        self.quarantine = grant.quarantine
        self.alone = grant.alone
        self.staged = []
        self.is_sizing_told = False
        self.returned_from = None
        if self.failure is not None:
            self.failure = replace(self.failure, lease=grant.lease)


@dataclass(frozen=True, slots=True)
class Report:
    """The part of a request that tells what became of leases."""

    sizings: tuple[Sizing, ...]
    commits: tuple[Commit, ...]
    returns: tuple[Return, ...]
    failures: tuple[Failure, ...]
    is_whole: bool
    """False when commits were left for the next request."""

    def __bool__(self) -> bool:
        return bool(self.sizings or self.commits or self.returns or self.failures)

    @property
    def ended(self) -> set[LeaseId]:
        """Leases that are not held any more once the request is applied."""
        failed = {failure.lease for failure in self.failures if failure.lease is not None}
        return failed | {back.lease for back in self.returns if back.start is None}


def report(leases: Iterable[HeldLease]) -> Report:
    """Gather everything untold about `leases`, commits of one lease in row order, up to `REQUEST_BYTES`."""
    sizings: list[Sizing] = []
    commits: list[Commit] = []
    returns: list[Return] = []
    failures: list[Failure] = []
    room = REQUEST_BYTES
    is_whole = True
    for lease in leases:
        if lease.sized is not None and not lease.is_sizing_told:
            sizings.append(Sizing(lease.id, lease.sized))
        if lease.returned_from is not None:
            returns.append(Return(lease.id, lease.returned_from))
        taken = 0
        for record in lease.staged:
            if room <= 0:
                break
            room -= _COMMIT_BYTES + len(record.accumulators) + sum(len(staged.token) for staged in record.objects)
            commits.append(Commit(lease.id, record))
            taken += 1
        if taken < len(lease.staged):
            is_whole = False
        elif lease.frontier < lease.rows.stop:
            if lease.failure is not None:
                failures.append(lease.failure)
            elif lease.is_released:
                returns.append(Return(lease.id))
    return Report(tuple(sizings), tuple(commits), tuple(returns), tuple(failures), is_whole)
