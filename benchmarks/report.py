"""Results: a number with its target, the verdict on it, and the table and JSON made of all."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

Verdict = Literal["met", "missed", "-"]
_HEADINGS: Final = ("benchmark", "what", "value", "target", "verdict")


@dataclass(frozen=True, slots=True)
class Result:
    """One number; the median of its samples."""

    benchmark: str
    """Name on the command line of the benchmark that measured it."""
    what: str
    samples: tuple[float, ...]
    """One per repetition, in the order measured."""
    unit: str
    """``x`` for a ratio."""
    target: float | None = None
    """None: recorded for what it tells, without a promise."""
    at_least: bool = True
    """The target is a lower bound; otherwise an upper one."""
    details: dict[str, Any] = field(default_factory=dict)
    """Whatever explains the number: sizes, parts of it, raw times (JSON data)."""

    @property
    def value(self) -> float:
        return statistics.median(self.samples)

    @property
    def verdict(self) -> Verdict:
        if self.target is None:
            return "-"
        return "met" if (self.value >= self.target if self.at_least else self.value <= self.target) else "missed"

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "samples": list(self.samples),
            "target": self.target,
            "bound": "at least" if self.at_least else "at most",
            "verdict": self.verdict,
            "details": self.details,
        }


def table(results: Sequence[Result]) -> str:
    """Lay the results out for a terminal."""
    rows = [_HEADINGS, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def write(path: Path, machine: dict[str, Any], results: Sequence[Result], *, quick: bool) -> None:
    """Write what was measured, and on what, as one JSON document."""
    document = {"quick": quick, "machine": machine, "results": [result.to_json() for result in results]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _row(result: Result) -> tuple[str, str, str, str, str]:
    target = "" if result.target is None else f"{'>=' if result.at_least else '<='} {_number(result.target)}"
    return result.benchmark, result.what, f"{_number(result.value)} {result.unit}", target, result.verdict


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
