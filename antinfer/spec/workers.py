"""From what a job file says about workers to what `antinfer.core.scaling` is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from antinfer.core.scaling.values import PREEMPTIBLE, PROTECTED, Allowance, Desired, WorkerClass

if TYPE_CHECKING:
    from antinfer.spec.schema import WorkerClassSpec, WorkersSpec


def desired_workers(spec: WorkersSpec, *, prefix: str, most: int, started_at: int) -> Desired:
    """Return what a job wants of its workers.

    Args:
        spec: that part of the job.
        prefix: begins the names of workers; another one in each reign.
        most: most workers where the job does not say.
        started_at: when the job began (ms), on the clock that the controller goes by.
    """
    budget = spec.budget
    return Desired(
        prefix=prefix,
        least=spec.min,
        most=most if spec.max is None else spec.max,
        on_demand=spec.on_demand,
        deadline_at=None if spec.deadline is None else started_at + round(spec.deadline * 1_000),
        started_at=started_at,
        allowance=Allowance() if budget is None else Allowance(budget.gpu_hours, budget.money),
        classes={PROTECTED: _class(spec.classes.protected), PREEMPTIBLE: _class(spec.classes.preemptible)},
        surge=spec.surge,
    )


def _class(spec: WorkerClassSpec) -> WorkerClass:
    return WorkerClass(spec.gpus, spec.price or 0.0, spec.memory or 0, spec.max_memory or 0)
