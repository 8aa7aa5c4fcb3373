"""What a run has reached beside what its profile promised. Pure.

Of the run the final report is read: for each stage the rows that went in, how fast while there were any, and the time that its copies were
at work and waited. What an older report lacks is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from antinfer.worker.profiling.model import Forecast, Profile, StageProfile


@dataclass(frozen=True, slots=True)
class StageComparison:
    """One stage. All rates are rows of this stage a second; None is what the profile or the report does not say."""

    name: str
    expected: float | None
    """As part of the pipeline, of one worker."""
    reached: float | None
    copy_expected: float | None
    """Of one copy while it is at work."""
    copy_reached: float | None
    busy_expected: float | None
    """Share of the time in which its copies are at work."""
    busy_reached: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A profile and a run of the same job."""

    job: str
    expected: float
    """Input rows a second of one worker."""
    reached: float | None
    """The same, while the slowest stage had work; None: the report does not say."""
    bottleneck: str
    """As it was expected."""
    stages: tuple[StageComparison, ...]

    @property
    def busiest(self) -> str:
        """The stage whose copies were at work for the largest share of the time; empty when the report does not say."""
        busy = [(each.busy_reached, each.name) for each in self.stages if each.busy_reached is not None]
        return max(busy)[1] if busy else ""

    def headline(self) -> str:
        """Say it in one line."""
        whole = f"{self.job}: expected {self.expected:,.0f} input rows/s a worker"
        if self.reached is not None:
            whole += f", reached {self.reached:,.0f} ({self.reached / self.expected:.0%})"
        return f"{whole}; expected bottleneck {self.bottleneck}" + (f", busiest {self.busiest}" if self.busiest else "")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "busiest": self.busiest}


def compare(profile: Profile, forecast: Forecast, report: Mapping[str, Any]) -> Comparison:
    """Put the final report of a run beside the profile of its job."""
    told = _stages(report)
    loads = {stage.name: stage.load for stage in forecast.stages}
    stages = [_stage(stage, told.get(stage.name, {}), forecast.rate, loads.get(stage.name)) for stage in profile.stages]
    # What one stage has reached, the others behind it were given: the slowest has set the pace of all.
    paces = [
        found.reached / stage.rows_per_input_row
        for stage, found in zip(profile.stages, stages, strict=True)
        if found.reached is not None and stage.rows_per_input_row
    ]
    return Comparison(profile.job, forecast.rate, min(paces, default=None), forecast.bottleneck, tuple(stages))


def _stage(stage: StageProfile, told: Mapping[str, Any], rate: float, load: float | None) -> StageComparison:
    best = stage.best
    rows, busy = _number(told, "rows_in"), _number(told, "busy_seconds")
    waits = [_number(told, key) for key in ("starved_seconds", "blocked_seconds")]
    waited = sum(each for each in waits if each is not None)
    return StageComparison(
        name=stage.name,
        expected=None if best is None else rate * stage.rows_per_input_row,
        reached=_number(told, "rows_per_second"),
        copy_expected=None if best is None else best.rows_per_second / best.degree,
        copy_reached=rows / busy if rows is not None and busy else None,
        busy_expected=load,
        busy_reached=None if busy is None or all(each is None for each in waits) else busy / max(1e-9, busy + waited),
    )


def _stages(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = report.get("stages", {})
    return {each["name"]: each for each in found} if isinstance(found, list) else dict(found)


def _number(told: Mapping[str, Any], key: str) -> float | None:
    value = told.get(key)
    return float(value) if isinstance(value, int | float) else None
