"""What the master knows of its job and its workers, as far as it matters for how many there should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from antinfer.core.engine import Engine, Phase
from antinfer.core.sessions import Session
from antinfer.master.status import rows_done

_OVER: Final = (Phase.SETTLING, Phase.COLLECTING, Phase.AUDITING, Phase.SEALING, Phase.DONE)


@dataclass(frozen=True, slots=True)
class WorkerSight:
    """A worker that is a member of the job."""

    is_ready: bool = True
    """Its pipeline is set up."""
    is_draining: bool = False
    uncommitted_rows: int = 0
    leases: int = 0
    computed_rows: int | None = None
    """Since it started, as it said last; None: it has not said anything in this reign."""
    committed_rows: int = 0
    """Since the reign began."""


@dataclass(frozen=True, slots=True)
class JobSight:
    """The job at one moment."""

    remaining_rows: int | None = None
    """None: not known yet."""
    unleased_rows: int | None = None
    committed_rows: int = 0
    is_done: bool = False
    """Every row is committed."""
    workers: Mapping[str, WorkerSight] = field(default_factory=dict)


def look(engine: Engine, committed: Mapping[str, int], computed: Callable[[str], int | None]) -> JobSight:
    """Return what is known now. Costs O(open).

    Args:
        engine: of the reign.
        committed: rows that workers have committed since it began, by name.
        computed: name -> rows that a worker has computed since it started, as it said last; None: it has not.
    """
    ledger = engine.ledger
    is_done = engine.phase in _OVER
    leased = {(lease.shard, lease.rows) for lease in ledger.leases.values()}
    waiting = ledger.waiting_rows() if engine.phase is Phase.SERVING and engine.plan.complete else None
    if any(lease.is_unsized for lease in ledger.leases.values()):
        waiting = None
    return JobSight(
        remaining_rows=0 if is_done else None if waiting is None else waiting + sum(rows.size for _, rows in leased),
        unleased_rows=0 if is_done else waiting,
        committed_rows=rows_done(engine),
        is_done=is_done,
        workers={str(session.worker): _worker(session, engine, committed, computed) for session in engine.sessions},
    )


def least_work(job: JobSight, count: int) -> list[str]:
    """Return up to `count` workers that can be asked to leave, those with the least uncommitted work first."""
    staying = sorted((worker.uncommitted_rows, name) for name, worker in job.workers.items() if not worker.is_draining)
    return [name for _, name in staying[:count]]


def _worker(session: Session, engine: Engine, committed: Mapping[str, int], computed: Callable[[str], int | None]) -> WorkerSight:
    held = [lease for each in session.leases if (lease := engine.ledger.leases.get(each)) is not None]
    return WorkerSight(
        is_ready=session.is_ready,
        is_draining=session.draining,
        uncommitted_rows=sum(lease.rows.size for lease in held if not lease.is_unsized),
        leases=len(held),
        computed_rows=computed(session.worker),
        committed_rows=committed.get(session.worker, 0),
    )
