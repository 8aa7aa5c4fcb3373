"""Policies compared: the same jobs, the same seeds, the same troubles, and one thing about the policy changed each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any, Final

from antinfer.core.interval import IntervalPolicy
from antinfer.core.scaling.values import Desired, ScalingPolicy
from antinfer.testing.sim.fleet.conditions import Conditions, Losses, Scaling, Speeds
from antinfer.testing.sim.fleet.job import Report, run

_NEVER_MS: Final = 1_000_000_000


def _engine(conditions: Conditions, **changes: Any) -> Conditions:
    return conditions.but(engine=replace(conditions.engine, **changes))


def _commits(every: float | None) -> Callable[[Conditions], Conditions]:
    policy = IntervalPolicy() if every is None else None
    return lambda conditions: _engine(conditions, interval=policy).but(commit_every=every)


_SLACK: Final = 6.0
"""Times the ideal time, and the time that workers take to start, that a deadline leaves."""


def _scaled(*, deadline: bool = False, on_demand: float = 0.0, **policy: Any) -> Callable[[Conditions], Conditions]:
    def scaled(conditions: Conditions) -> Conditions:
        ideal_s = conditions.total_rows / (conditions.workers * conditions.speeds.mean)
        at = round(1_000 * (_SLACK * ideal_s + conditions.setup)) if deadline else None
        wanted = Desired("", least=1, most=conditions.workers, deadline_at=at, on_demand=on_demand, policy=ScalingPolicy(**policy))
        return _commits(None)(conditions).but(scaling=Scaling(wanted, protected=round(on_demand * conditions.workers)))

    return scaled


def _never_stuck(conditions: Conditions) -> Conditions:
    return _engine(conditions, deadlines=replace(conditions.engine.deadlines, shortest_ms=_NEVER_MS, first_ms=_NEVER_MS))


DEADLINES: Final = ("deadline", "deadline without a band")

POLICIES: Final[dict[str, Callable[[Conditions], Conditions]]] = {
    "as shipped": _commits(None),
    "no shrinking, no yield": lambda conditions: _engine(_commits(None)(conditions), tail_ms=None),
    "no second copies": lambda conditions: _engine(_commits(None)(conditions), copy_after_ms=None),
    "no deadlines": lambda conditions: _never_stuck(_commits(None)(conditions)),
    "none of the three": lambda conditions: _never_stuck(_engine(_commits(None)(conditions), tail_ms=None, copy_after_ms=None)),
    "one lease ahead": lambda conditions: _commits(None)(conditions).but(slots=1),
    "eight leases ahead": lambda conditions: _commits(None)(conditions).but(slots=8),
    "tasks of 200 rows": lambda conditions: _engine(_commits(None)(conditions), task_rows=200),
    "commit each 5 s": _commits(5.0),
    "commit each 60 s": _commits(60.0),
    "commit at the end": _commits(0.0),
    "all there are": _scaled(),
    "half on demand": _scaled(on_demand=0.5),
    DEADLINES[0]: _scaled(deadline=True),
    DEADLINES[1]: _scaled(deadline=True, early=0.95, aim=0.95, late=0.95, settle_ms=0),
}
"""By name: what makes of a job the same job under this policy."""

_PLAIN: Final = Conditions(workers=64, shards=1_200, rows=4_000)
_SPOT: Final = Losses(preempted_every=300, notice_share=0.5)
JOBS: Final[dict[str, Conditions]] = {
    "calm": _PLAIN,
    "slow workers": _PLAIN.but(speeds=Speeds(slow_share=0.1, slow_factor=10)),
    "heavy shards": _PLAIN.but(heavy_share=0.01, heavy_factor=20),
    "spot": _PLAIN.but(losses=_SPOT),
    "frozen hosts": _PLAIN.but(losses=Losses(frozen_every=1_500, frozen_for=600)),
    "everything": _PLAIN.but(
        speeds=Speeds(slow_share=0.05),
        heavy_share=0.01,
        bad_every=10_000,
        poison=2,
        losses=replace(_SPOT, frozen_every=3_000, parted_every=120, master_dies_every=120),
    ),
}
"""By name: the jobs on which policies are compared."""


@dataclass(frozen=True, slots=True)
class Line:
    """One policy on one job, over several seeds."""

    job: str
    policy: str
    makespan: float
    """Mean over the seeds, in multiples of the ideal time."""
    worst: float
    wasted: float
    """Mean share of the rows that were computed in vain."""
    commits: float
    started: float
    """Mean number of workers that were started."""
    paid: float
    """Mean of the time that workers were there, in multiples of what they ideally need."""
    problems: tuple[str, ...]

    @classmethod
    def of(cls, job: str, policy: str, workers: int, reports: Sequence[Report]) -> Line:
        took = [report.makespan_s / report.ideal_s for report in reports]
        return cls(
            job,
            policy,
            mean(took),
            max(took),
            mean(report.wasted for report in reports),
            mean(report.commits for report in reports),
            mean(report.workers_started for report in reports),
            mean(report.worker_s / (workers * report.ideal_s) for report in reports),
            tuple(f"seed {report.seed}: {problem}" for report in reports for problem in report.problems),
        )

    def __str__(self) -> str:
        state = "" if not self.problems else f"  {len(self.problems)} VIOLATIONS: {self.problems[0]}"
        took = f"{self.makespan:9.2f} {self.worst:9.2f} {self.wasted:9.2%} {self.commits:9,.0f}"
        return f"{self.job:14} {self.policy:24} {took} {self.started:9,.0f} {self.paid:9.2f}{state}"


HEADER: Final = f"{'job':14} {'policy':24} {'makespan':>9} {'worst':>9} {'wasted':>9} {'commits':>9} {'started':>9} {'paid':>9}"


def compare(
    jobs: Iterable[str], policies: Iterable[str], seeds: Sequence[int], on_line: Callable[[Line], None] = lambda line: None
) -> list[Line]:
    """Run every job under every policy with every seed.

    Args:
        jobs: names in `JOBS`.
        policies: names in `POLICIES`.
        seeds: each decides everything that chance decides, for all policies alike.
        on_line: called with each line as soon as it is there.
    """
    lines = []
    chosen = list(policies)
    for job in jobs:
        for policy in chosen:
            conditions = POLICIES[policy](JOBS[job])
            line = Line.of(job, policy, conditions.workers, [run(conditions, seed) for seed in seeds])
            on_line(line)
            lines.append(line)
    return lines
