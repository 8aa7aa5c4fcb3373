"""Makes a job that goes wrong small: fewer shards and workers, fewer kinds of trouble, as long as the same kind of thing goes wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from antinfer.testing.sim.fleet.conditions import Conditions
from antinfer.testing.sim.fleet.job import Report, run

_TROUBLES: Final[Mapping[str, Any]] = {
    "preempted_every": 0.0,
    "swept_at": (),
    "frozen_every": 0.0,
    "parted_every": 0.0,
    "master_dies_every": 0.0,
}
"""What happens to workers, and how it is when it does not."""


def shrink(conditions: Conditions, seed: int, failed: Report, *, runs: int = 60) -> tuple[Conditions, Report]:
    """Return the smallest job that was found to go wrong under this seed as `failed` has, and what became of it.

    Raises:
        ValueError: Nothing went wrong.
    """
    wanted = _kinds(failed)
    if not wanted:
        raise ValueError("nothing goes wrong in this job")
    found = conditions, failed
    while runs > 0:
        for smaller in _smaller(found[0]):
            runs -= 1
            report = run(smaller, seed)
            if _kinds(report) & wanted:
                found = smaller, report
                break
            if runs <= 0:
                return found
        else:
            return found
    return found


def _kinds(report: Report) -> set[str]:
    return {problem.partition(":")[0] for problem in report.problems}


def _smaller(job: Conditions) -> Iterator[Conditions]:
    """What costs most to look at comes first."""
    for name in ("shards", "workers"):
        if (value := getattr(job, name)) > 1:
            yield job.but(**{name: value // 2})
    for name, nothing in _TROUBLES.items():
        if getattr(job.losses, name):
            yield job.but(losses=replace(job.losses, **{name: nothing}))
    for name, nothing in (("poison", 0), ("bad_every", 0), ("heavy_share", 0.0), ("fan_out", 1)):
        if getattr(job, name) != nothing:
            yield job.but(**{name: nothing})
    for name in ("shards", "workers"):
        if (value := getattr(job, name)) > 1:
            yield job.but(**{name: value - 1})
