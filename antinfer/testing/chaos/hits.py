"""Faults that were done: what they leave as proof, and what must be seen before they count as got over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from antinfer.testing.chaos.happenings import Condition
from antinfer.testing.chaos.points import Proof
from antinfer.testing.chaos.watching import Sample


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that was done."""

    victim: str
    proof: dict[str, Any]
    recovery: list[Condition]


@dataclass(frozen=True, slots=True)
class Armed:
    """A fault that waits at a fault point for the first who comes there."""

    names: tuple[str, ...]
    """Under which proofs speak of it: the first one counts."""
    describe: Callable[[Proof, Sample], Hit]
    """Says what happened, given the proof and the sample before it."""


def commits(name: str, since: Sample) -> Condition:
    """This worker has committed rows since the sample; each reign counts anew."""
    epoch, rows = (since.status.epoch if since.status else 0), since.rows_of(name)
    return lambda sample: sample.rules and sample.rows_of(name) > (rows if sample.status and sample.status.epoch == epoch else 0)


def has_no_leases(name: str) -> Condition:
    """The ranges of this worker are free again."""
    return lambda sample: sample.rules and not sample.leases_of(name)


def publishes(now: Sample) -> list[Condition]:
    """More rows are published than were before."""
    return [lambda sample: sample.rules and sample.published > now.published]
