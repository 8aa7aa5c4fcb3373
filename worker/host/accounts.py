"""What the stages have done so far, for whoever looks on."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from antinfer.rpc.values import KEPT_DECISIONS, StageStats
from antinfer.worker.host.flow import Flow
from antinfer.worker.host.pools import Pools, StagePool
from antinfer.worker.pipeline.statistics import NodeStats

_RECENT_SECONDS: Final = 5.0
"""What counts as now: long enough for batches that take seconds."""


@dataclass(frozen=True, slots=True)
class _Moment:
    at: float
    stats: NodeStats
    executor_seconds: float


class Accounts:
    """Keeps the books of all stages. Not to be used by two threads at once."""

    def __init__(
        self, flow: Flow, pools: Pools, decisions: Mapping[int, Sequence[str]], troubles: Mapping[int, Sequence[str]] | None = None
    ) -> None:
        """`decisions` and `troubles`: node -> what was decided about it, and what happened to its processes."""
        self._flow = flow
        self._pools = pools
        self._decisions = decisions
        self._troubles = {} if troubles is None else troubles
        self._moments: dict[int, deque[_Moment]] = {}
        self._active: dict[int, float] = {}
        self._at: float | None = None

    def tick(self, now: float) -> tuple[StageStats, ...]:
        """Bring the books up to date, and return the page of each stage, in the order of the pipeline."""
        seconds = 0.0 if self._at is None else now - self._at
        self._at = now
        stats = self._flow.statistics()
        return tuple(self._page(pool, _Moment(now, stats[pool.node], 0.0), seconds) for pool in self._pools)

    def _page(self, pool: StagePool, moment: _Moment, seconds: float) -> StageStats:
        moments = self._moments.setdefault(pool.node, deque())
        spent = (moments[-1].executor_seconds if moments else 0.0) + pool.ready * seconds
        moment = replace(moment, executor_seconds=max(spent, moment.stats.busy_seconds))
        if moments and moment.stats.batches > moments[-1].stats.batches:
            self._active[pool.node] = self._active.get(pool.node, 0.0) + seconds
        moments.append(moment)
        while len(moments) > 2 and moments[1].at <= moment.at - _RECENT_SECONDS:
            moments.popleft()
        now, first = moment.stats, moments[0]
        starved, blocked = _idle(now, moment.executor_seconds, None)
        recent = moment.executor_seconds - first.executor_seconds
        starving, blocking = _idle(now, recent, first.stats)
        elapsed = moment.at - first.at
        return StageStats(
            name=pool.call.name,
            mode=pool.mode,
            degree=pool.degree,
            batch_rows=self._flow.batch_rows(pool.node),
            rows_in=now.rows_in,
            rows_out=now.rows_out,
            fused_rows=now.fused_rows,
            batches=now.batches,
            queue_rows=now.queue_rows,
            busy_seconds=now.busy_seconds,
            starved_seconds=starved,
            blocked_seconds=blocked,
            active_seconds=self._active.get(pool.node, 0.0),
            load_seconds=pool.load_seconds,
            busy=_share(now.busy_seconds - first.stats.busy_seconds, recent),
            starved=_share(starving, recent),
            blocked=_share(blocking, recent),
            rows_per_second=(now.rows_done - first.stats.rows_done) / elapsed if elapsed else 0.0,
            decisions=(*self._decisions.get(pool.node, ()), *self._troubles.get(pool.node, ()))[-KEPT_DECISIONS:],
        )


def _idle(now: NodeStats, seconds: float, before: NodeStats | None) -> tuple[float, float]:
    """Return how the time of the executors in which they were not at work divides into starved and blocked.

    Waits are counted when they end, and a predictor waits for its next batch while it computes the last one: only the proportion counts.
    """
    starved = now.starved_seconds - (before.starved_seconds if before else 0.0)
    blocked = now.blocked_seconds - (before.blocked_seconds if before else 0.0)
    idle = max(0.0, seconds - now.busy_seconds + (before.busy_seconds if before else 0.0))
    if not starved + blocked:
        starved, blocked = (0.0, 1.0) if now.queue_rows else (1.0, 0.0)
    return idle * starved / (starved + blocked), idle * blocked / (starved + blocked)


def _share(seconds: float, of: float) -> float:
    return min(1.0, seconds / of) if of > 0 else 0.0
