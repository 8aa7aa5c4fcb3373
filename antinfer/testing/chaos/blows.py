"""What all faults of local processes have in common once they strike: whom they pick, and when a master counts as being back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from antinfer.testing.chaos.crew import Crew, Member
from antinfer.testing.chaos.happenings import Condition
from antinfer.testing.chaos.hits import Armed, Hit, publishes
from antinfer.testing.chaos.schedule import Strike
from antinfer.testing.chaos.watching import Sample

PROGRAMS: Final = {"host": "antinfer.worker.host", "predictor": "antinfer.worker.predictors"}
"""What the command line of a worker's process holds."""

Blow = Callable[[Crew, Strike, Sample], Hit | Armed | None]


def pick_worker(crew: Crew, what: Strike, now: Sample) -> Member | None:
    """One that holds leases: a fault that meets nobody at work shows nothing."""
    busy = [member for member in crew.workers if member.is_whole and now.leases_of(member.name)]
    return busy[what.pick(len(busy))] if busy else None


def rules_again(crew: Crew, now: Sample) -> list[Condition]:
    """A master grants work, and results of it are published."""
    return [lambda sample: crew.master_listens and sample.rules, *publishes(now)]
