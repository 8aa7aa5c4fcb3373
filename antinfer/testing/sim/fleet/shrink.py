"""Makes a job that goes wrong small: fewer shards and workers, fewer kinds of trouble, as long as the same kind of thing goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from antinfer.testing.sim.fleet.conditions import Conditions
from antinfer.testing.sim.fleet.job import Report, run

_TROUBLES: Final = ("preempted_every", "frozen_every", "parted_every", "master_dies_every")


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
    for name in _TROUBLES:
        if getattr(job.losses, name):
            yield job.but(losses=replace(job.losses, **{name: 0.0}))
    for name, nothing in (("poison", 0), ("bad_every", 0), ("heavy_share", 0.0), ("fan_out", 1)):
        if getattr(job, name) != nothing:
            yield job.but(**{name: nothing})
    for name in ("shards", "workers"):
        if (value := getattr(job, name)) > 1:
            yield job.but(**{name: value - 1})
