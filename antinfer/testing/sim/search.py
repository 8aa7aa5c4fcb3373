"""The random search: one drawn scenario a seed, and every seed that fails is shrunk to something that can be read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Final

from antinfer.testing.sim.recipes import Recipe
from antinfer.testing.sim.runner import Outcome, run
from antinfer.testing.sim.shrink import describe, shrink
from antinfer.testing.sim.swarm import draw

_CHUNK: Final = 50


@dataclass(frozen=True, slots=True)
class Finding:
    """A seed that failed."""

    seed: int
    problems: tuple[str, ...]
    recipe: Recipe
    """The smallest run that was found to fail like it."""

    def __str__(self) -> str:
        lines = [f"seed {self.seed} fails", *(f"  {problem}" for problem in self.problems)]
        lines += [f"shrunk to {len(self.recipe.faults)} faults in {self.recipe.scenario.rows} rows:", describe(self.recipe.faults)]
        lines += [self.recipe.to_text(), f"whole:  python -m antinfer.testing.sim --seed {self.seed}"]
        return "\n".join(lines)


@dataclass(slots=True)
class Tally:
    """What a search has seen."""

    seeds: int = 0
    events: int = 0
    virtual_ms: int = 0
    busy_s: float = 0.0
    """Processor time."""
    faults: Counter[str] = field(default_factory=Counter)
    """How many of each kind struck."""
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.seeds += other.seeds
        self.events += other.events
        self.virtual_ms += other.virtual_ms
        self.busy_s += other.busy_s
        self.faults += other.faults
        self.findings += other.findings

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {what}" for what, count in self.faults.most_common())
        speed = f"{self.events:,} events, {self.virtual_ms / 3_600_000:.1f} virtual hours in {self.busy_s:.1f} s"
        return f"{self.seeds:,} seeds, {len(self.findings)} violations; {speed}\n{sum(self.faults.values()):,} faults: {faults}"


def play(seed: int) -> Outcome:
    """Play the scenario of this seed."""
    return run(draw(seed), seed)


def look(seeds: Iterable[int]) -> Tally:
    """Play these seeds one after the other, and shrink what fails."""
    tally, began = Tally(), time.process_time()
    for seed in seeds:
        outcome = play(seed)
        tally.seeds += 1
        tally.events += outcome.events
        tally.virtual_ms += outcome.took_ms
        tally.faults.update(fault.what for fault in outcome.faults)
        if not outcome.ok:
            problems = tuple(f"{problem.kind}: {problem.text}" for problem in outcome.problems)
            tally.findings.append(Finding(seed, problems, shrink(Recipe.of(draw(seed), outcome))))
    tally.busy_s = time.process_time() - began
    return tally


def search(first: int, seeds: int, *, jobs: int = 1, on_chunk: Callable[[Tally], None] = lambda tally: None) -> Tally:
    """Play `seeds` seeds from `first` on.

    Args:
        first: the first seed.
        seeds: how many.
        jobs: processes to share them out to.
        on_chunk: called now and then with what has been seen since the last call.

    Returns:
        What was seen in all.
    """
    total = Tally()
    chunks = [range(at, min(at + _CHUNK, first + seeds)) for at in range(first, first + seeds, _CHUNK)]
    for tally in _looks(chunks, jobs):
        total.add(tally)
        on_chunk(tally)
    return total


def _looks(chunks: Sequence[range], jobs: int) -> Iterator[Tally]:
    if jobs == 1:
        yield from map(look, chunks)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(look, chunks)
