"""The master's view of its job, for display."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from antinfer.core.engine import Engine, Phase
from antinfer.core.ids import WorkerId
from antinfer.core.ranges import UNSIZED
from antinfer.core.records import CommitRecord
from antinfer.core.sessions import Session
from antinfer.master.streams import Streams
from antinfer.rpc import values

_WINDOW_MS: Final = 10_000
"""Span over which the present speed is measured."""
_PHASES: Final[dict[Phase, values.Phase]] = {
    Phase.NEW: "planning",
    Phase.SERVING: "running",
    Phase.DONE: "done",
    Phase.FAILED: "failed",
    **dict.fromkeys((Phase.RECOVERING, Phase.SWEEPING, Phase.LISTING), "planning"),
    **dict.fromkeys((Phase.SETTLING, Phase.COLLECTING, Phase.AUDITING, Phase.SEALING), "finishing"),
}


class Figures:
    """What is counted beside the engine during one reign."""

    def __init__(self, started_at: int) -> None:
        self.started_at = started_at
        self.rows_planned = 0
        """Rows of the shards whose size the plan knows."""
        self.unsized = 0
        """Shards whose size the plan does not know."""
        self.files_planned = 0
        self.files_total: int | None = None
        self.rows_by_worker: Counter[str] = Counter()
        self._samples: deque[tuple[int, int]] = deque()

    def planned(self, rows: Iterable[int | None]) -> None:
        for count in rows:
            if count is None:
                self.unsized += 1
            else:
                self.rows_planned += count

    def committed(self, records: Iterable[CommitRecord]) -> None:
        for record in records:
            self.rows_by_worker[record.worker] += record.rows_in

    def sample(self, at: int, rows_done: int) -> None:
        """Note the state of things; to be called every now and then."""
        self._samples.append((at, rows_done))
        while at - self._samples[0][0] > _WINDOW_MS:
            self._samples.popleft()

    @property
    def rows_per_second(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        return (last - first) * 1000 / (last_at - first_at) if last_at > first_at else 0.0


def rows_done(engine: Engine) -> int:
    """Return how many rows of what this reign is about are done: of the job, or of its retry round."""
    progress = engine.progress()
    return progress.rows_done if engine.round is None else progress.rows_retried


def describe(engine: Engine, figures: Figures, streams: Streams, trouble: str = "", *, job: str, output: str, at: int) -> values.Status:
    """Return the status at time `at` (ms); `trouble` is what the master waits for. Costs O(open)."""
    progress = engine.progress()
    sized_open = sum(shard.rows or 0 for shard_id, shard in engine.ledger.open.items() if engine.plan.rows(shard_id) is None)
    done = rows_done(engine)
    total = figures.rows_planned if progress.plan_complete and not figures.unsized else None
    if engine.round is not None:
        total = engine.round.rows
    elif progress.phase is Phase.DONE:
        total = done
    speed = figures.rows_per_second
    leased = {(lease.shard, lease.rows) for lease in engine.ledger.leases.values() if lease.rows.stop < UNSIZED}
    return values.Status(
        job=job,
        output=output,
        epoch=engine.epoch,
        phase=_phase(engine),
        reason=engine.failure or engine.hindrance(at) or trouble,
        rows_total=total,
        rows_known=max(figures.rows_planned + sized_open, done) if engine.round is None else engine.round.rows,
        rows_committed=done,
        rows_quarantined=progress.rows_quarantined,
        rows_leased=sum(rows.size for _, rows in leased),
        rows_per_second=speed,
        elapsed_seconds=(at - figures.started_at) / 1000,
        eta_seconds=(total - done) / speed if total is not None and speed > 0 else None,
        shards_planned=progress.shards_planned,
        plan_complete=progress.plan_complete,
        files_planned=figures.files_planned,
        files_total=figures.files_total,
        workers=tuple(_worker(session, engine, figures, streams, at) for session in engine.sessions),
        counters=engine.counters() | ({"retry_round": engine.round.number} if engine.round is not None else {}),
    )


def _phase(engine: Engine) -> values.Phase:
    if engine.phase is Phase.SERVING and not len(engine.plan) and not engine.plan.complete:
        return "planning"
    return _PHASES[engine.phase]


def _worker(session: Session, engine: Engine, figures: Figures, streams: Streams, at: int) -> values.WorkerStatus:
    state: values.WorkerState = "working" if session.leases else "waiting"
    if session.draining:
        state = "draining"
    if session.stream is None:
        state = "lost"
    silent_ms = max(0, at - (session.deadline - engine.config.ttl_ms))
    return values.WorkerStatus(
        worker=session.worker,
        state=state,
        leases=len(session.leases),
        rows_committed=figures.rows_by_worker[session.worker],
        silent_seconds=silent_ms / 1000,
        stats=streams.stats_of(WorkerId(session.worker)),
    )
