"""More than one life of a job over one output: what was given up is run again with its trouble mended, what failed is retried."""

from __future__ import annotations

from dataclasses import replace

from antinfer.testing.sim import proof
from antinfer.testing.sim.scenario import ENGINE, Scenario
from antinfer.testing.sim.stage import Stage


def next_life(stage: Stage) -> tuple[Scenario, int] | None:
    """Return what the job is like in its next life, and the retry round that it is about; None when it has had its last."""
    if stage.given_up:
        return (mended(stage.scenario), stage.round) if stage.is_rightly_given_up else None
    if stage.is_sealed and stage.round < stage.scenario.retries and proof.in_quarantine(stage.place):
        return fixed(stage.scenario), stage.round + 1
    return None


def mended(scenario: Scenario) -> Scenario:
    """Return the scenario without anything for which a job is given up: what the user was told of is put right, and more is allowed."""
    patient = replace(
        scenario.engine,
        bad_rows=ENGINE.bad_rows,
        hindrance=replace(scenario.engine.hindrance, patience_ms=1_000_000),
        storage_attempts=1_000,
        worker_failures=1_000,
        starts=replace(scenario.engine.starts, workers=1_000, tries=1_000),
    )
    nothing: frozenset[tuple[int, int]] = frozenset()
    whole: frozenset[int] = frozenset()
    weather = replace(scenario.weather, cancel=0.0, wrong_start=0.0)
    return scenario.but(engine=patient, weather=weather, fatal=nothing, odd=nothing, changing=whole, broken=whole)


def fixed(scenario: Scenario) -> Scenario:
    """Return the scenario with code that fails on every other of the rows that it failed on before."""

    def half(rows: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
        return frozenset(sorted(rows)[1::2])

    return scenario.but(bad=half(scenario.bad), poison=half(scenario.poison), flaky=frozenset())
