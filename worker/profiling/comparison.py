"""What a run has reached beside what its profile promised. Pure.

Of the run the final report is read: its rows, its seconds, and for each stage the rows that went in and the time that its copies were at
work and waited. What an older report lacks is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from antinfer.worker.profiling.model import Forecast, Profile, StageProfile


@dataclass(frozen=True, slots=True)
class StageComparison:
    """One stage: rows a second of one copy while it is at work, and the share of the time in which it is."""

    name: str
    expected: float | None
    """None: it was not measured."""
    reached: float | None
    """None: the report does not say."""
    expected_busy: float | None
    reached_busy: float | None

    @property
    def share(self) -> float | None:
        return self.reached / self.expected if self.reached is not None and self.expected else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A profile and a run of the same job."""

    job: str
    expected: float
    """Input rows a second."""
    reached: float | None
    """None: the report does not say how long the run took."""
    bottleneck: str
    """As it was expected."""
    stages: tuple[StageComparison, ...]

    @property
    def busiest(self) -> str:
        """The stage whose copies were at work for the largest share of the time; empty when the report does not say."""
        busy = [(each.reached_busy, each.name) for each in self.stages if each.reached_busy is not None]
        return max(busy)[1] if busy else ""

    def headline(self) -> str:
        """Say it in one line."""
        whole = f"{self.job}: expected {self.expected:,.0f} input rows/s"
        if self.reached is not None:
            whole += f", reached {self.reached:,.0f} ({self.reached / self.expected:.0%}, start and end included)"
        return f"{whole}; expected bottleneck {self.bottleneck}" + (f", busiest {self.busiest}" if self.busiest else "")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "busiest": self.busiest}


def compare(profile: Profile, forecast: Forecast, report: Mapping[str, Any]) -> Comparison:
    """Put the final report of a run beside the profile of its job."""
    told = _stages(report)
    loads = {stage.name: stage.load for stage in forecast.stages}
    seconds, rows = _number(report, "seconds"), _number(report, "rows_in")
    return Comparison(
        job=profile.job,
        expected=forecast.rate,
        reached=rows / seconds if rows is not None and seconds else None,
        bottleneck=forecast.bottleneck,
        stages=tuple(_stage(stage, told.get(stage.name, {}), loads.get(stage.name)) for stage in profile.stages),
    )


def _stage(stage: StageProfile, told: Mapping[str, Any], load: float | None) -> StageComparison:
    best = stage.best
    rows, busy = _number(told, "rows_in"), _number(told, "busy_seconds")
    waits = [_number(told, key) for key in ("starved_seconds", "blocked_seconds")]
    waited = sum(each for each in waits if each is not None)
    return StageComparison(
        name=stage.name,
        expected=None if best is None else best.rows_per_second / best.degree,
        reached=rows / busy if rows is not None and busy else None,
        expected_busy=load,
        reached_busy=None if busy is None or all(each is None for each in waits) else busy / max(1e-9, busy + waited),
    )


def _stages(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = report.get("stages", {})
    return {each["name"]: each for each in found} if isinstance(found, list) else dict(found)


def _number(told: Mapping[str, Any], key: str) -> float | None:
    value = told.get(key)
    return float(value) if isinstance(value, int | float) else None
