"""How fast workers of each class are, how long they take to start, and how much of their time is lost when they are taken away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from antinfer.core.scaling.values import Measure

_MEMORY_MS = 600_000
"""Time of one worker after which what was measured before counts half."""
_LEAST_MS = 5_000
"""Time of work from which a rate is told: batches come in bursts."""
_LEAST_LOST_OF_MS = 600_000
"""Time of work of which a loss is taken to be a share at least: who is taken away in the first minute shows little of the next hour."""


@dataclass(slots=True)
class _ClassMeter:
    work_ms: float = 0.0
    rows: float = 0.0
    lost_ms: float = 0.0
    lost_squares: float = 0.0
    """Sum of the squares of what was lost each time, in ms**2: the variance of `lost_ms`, as deaths come independently of each other."""
    startup_ms: float | None = None

    @classmethod
    def of(cls, measure: Measure) -> _ClassMeter:
        whole_ms = _LEAST_LOST_OF_MS / (1 - measure.loss)
        lost_ms, error_ms = whole_ms * measure.loss, whole_ms * measure.loss_error / (1 - measure.loss)
        return cls(_LEAST_MS, measure.rate * _LEAST_MS, lost_ms, error_ms**2, measure.startup_ms)

    def measure(self) -> Measure:
        whole_ms = max(self.work_ms, _LEAST_LOST_OF_MS) + self.lost_ms
        loss = self.lost_ms / whole_ms
        return Measure(
            rate=self.rows / self.work_ms,
            loss=loss,
            startup_ms=None if self.startup_ms is None else round(self.startup_ms),
            # What is lost makes the whole longer, too.
            loss_error=sqrt(self.lost_squares) / whole_ms * (1 - loss),
        )


class Meter:
    """Told what workers do, says what to reckon with."""

    def __init__(self, known: Mapping[str, Measure] | None = None) -> None:
        """`known`: what an earlier one said, by class; it counts as little as a measure may, and soon gives way to what is seen now."""
        self._classes = {name: _ClassMeter.of(measure) for name, measure in (known or {}).items()}

    def note_work(self, worker_class: str, *, worker_ms: int, rows: int, ms: int) -> None:
        """Workers that held rows have computed so many of them in so much time of one worker; `ms` have passed since the last word."""
        meter = self._of(worker_class)
        # By the time that passes, so that a thousand workers do not forget within a second what a minute has shown.
        fading = 0.5 ** (ms / _MEMORY_MS)
        meter.work_ms = meter.work_ms * fading + worker_ms
        meter.rows = meter.rows * fading + rows
        meter.lost_ms *= fading
        meter.lost_squares *= fading**2

    def note_start(self, worker_class: str, ms: int) -> None:
        """A worker took so long from its start to its first rows."""
        meter = self._of(worker_class)
        meter.startup_ms = float(ms) if meter.startup_ms is None else (meter.startup_ms * 3 + ms) / 4

    def note_taken(self, worker_class: str, wasted_rows: int) -> None:
        """A worker was taken away with rows computed that nobody has committed; another has to start in its place."""
        meter = self._of(worker_class)
        rate = meter.rows / meter.work_ms if meter.work_ms else 0.0
        lost_ms = (meter.startup_ms or 0.0) + (min(wasted_rows / rate, meter.work_ms) if rate else 0.0)
        meter.lost_ms += lost_ms
        meter.lost_squares += lost_ms**2

    def measures(self) -> dict[str, Measure]:
        """Return what is known, by class."""
        return {name: meter.measure() for name, meter in self._classes.items() if meter.rows and meter.work_ms >= _LEAST_MS}

    def _of(self, worker_class: str) -> _ClassMeter:
        return self._classes.setdefault(worker_class, _ClassMeter())
