"""A picture of a run under faults: what was published when, who lived how long, what struck whom, and how long it took to get over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from antinfer.testing.chaos.conductor import Run
from antinfer.testing.chaos.happenings import Fault
from antinfer.testing.chaos.report import ChaosReport

_WIDTH: Final = 1200
_LEFT: Final = 110
_RIGHT: Final = 30
_TOP: Final = 56
_CURVE: Final = 240
_LANE: Final = 14
_GAP: Final = 34
_COLOURS: Final = {
    "worker": "#c0392b",
    "agent": "#d35400",
    "host": "#8e44ad",
    "predictor": "#2980b9",
    "master": "#16a085",
    "store": "#7f6000",
}
_OTHER: Final = "#444444"
_MOST_POINTS: Final = 600


def picture(report: ChaosReport) -> str:
    """Return the timeline as an SVG document."""
    return _Drawing(report).text()


class _Drawing:
    def __init__(self, report: ChaosReport) -> None:
        self._report = report
        self._seconds = max(report.disturbed.seconds, report.undisturbed.seconds, 0.001)
        self._spans = sorted((name, max(0.0, start), end) for name, start, end in report.disturbed.chronicle.spans)
        self._lanes = {name: number for number, name in enumerate(_by_number({name for name, _, _ in self._spans}))}
        self._marks: list[str] = []

    def text(self) -> str:
        self._draw_title()
        self._draw_axes()
        self._draw_curve(self._report.undisturbed, "#999999", "undisturbed", dashed=True)
        self._draw_curve(self._report.disturbed, "#1f6f3a", "under faults", dashed=False)
        self._draw_lives()
        for fault in self._report.faults:
            self._draw_fault(fault)
        self._draw_legend()
        height = self._lanes_top + len(self._lanes) * _LANE + 60
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
            'font-family="sans-serif" font-size="11">'
        )
        return "\n".join([head, f'<rect width="{_WIDTH}" height="{height}" fill="white"/>', *self._marks, "</svg>", ""])

    # -- places --------------------------------------------------------------------------------------------------------------------------
    def _x(self, seconds: float) -> float:
        inner = _WIDTH - _LEFT - _RIGHT
        return _LEFT + inner * min(max(seconds, 0.0), self._seconds) / self._seconds

    def _y(self, share: float) -> float:
        return _TOP + _CURVE * (1 - min(max(share, 0.0), 1.0))

    @property
    def _lanes_top(self) -> float:
        return _TOP + _CURVE + _GAP

    def _lane(self, name: str) -> float:
        return self._lanes_top + _LANE * self._lanes[name]

    # -- parts ---------------------------------------------------------------------------------------------------------------------------
    def _draw_title(self) -> None:
        report = self._report
        title = (
            f"{report.job} under plan {report.plan.name}, seed {report.seed}: {report.verdict}, {report.rows_lost:,} rows lost, "
            f"{report.rows_doubled:,} doubled of {report.input_rows:,}; {len(report.faults)} faults"
        )
        wasted = "an unknown share" if report.wasted is None else f"{report.wasted:.1%}"
        cost = f"goodput {report.goodput:.2f} of undisturbed, {wasted} of the work done in vain"
        self._write(_LEFT, 20, title, size=14)
        self._write(_LEFT, 38, cost)

    def _draw_axes(self) -> None:
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            y = self._y(share)
            self._line(_LEFT, y, _WIDTH - _RIGHT, y, "#e4e4e4")
            self._write(_LEFT - 8, y + 4, f"{share:.0%}", anchor="end")
        for second in _ticks(self._seconds):
            self._line(self._x(second), _TOP, self._x(second), self._lanes_top + len(self._lanes) * _LANE, "#f0f0f0")
            self._write(self._x(second), _TOP + _CURVE + 16, f"{second:g} s", anchor="middle")

    def _draw_curve(self, run: Run, colour: str, name: str, *, dashed: bool) -> None:
        points = [(sample.at - run.began, sample.published / max(1, run.rows)) for sample in run.samples if sample.at >= run.began]
        shown = [*points[:: max(1, len(points) // _MOST_POINTS)], *points[-1:]]
        path = " ".join(f"{self._x(seconds):.1f},{self._y(share):.1f}" for seconds, share in shown)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._marks.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}><title>{name}</title></polyline>'
        )

    def _draw_lives(self) -> None:
        for name in self._lanes:
            self._write(_LEFT - 8, self._lane(name) + 10, name, anchor="end", size=9)
        for name, start, end in self._spans:
            width = max(1.0, self._x(end) - self._x(start))
            colour = "#a9d5c9" if "master" in name else "#bcd0ea"
            self._marks.append(
                f'<rect x="{self._x(start):.1f}" y="{self._lane(name) + 2:.1f}" width="{width:.1f}" height="{_LANE - 4}" fill="{colour}">'
                f"<title>{escape(name)}: {start:.1f} s to {end:.1f} s</title></rect>"
            )

    def _draw_fault(self, fault: Fault) -> None:
        colour = _COLOURS.get(fault.target, _OTHER)
        x = self._x(fault.at_s)
        told = [f"{fault.kind} {fault.target} ({fault.victim}) at {fault.at_s:.1f} s, {fault.share:.0%} of the rows"]
        told += [f"recovered after {fault.recovered_s:.2f} s"] if fault.recovered_s is not None else []
        title = f"<title>{escape('; '.join(told))}</title>"
        y = self._y(fault.share)
        self._marks.append(f'<g stroke="{colour}" fill="{colour}">{title}<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{y:.1f}" ')
        self._marks.append(f'stroke-width="1" stroke-opacity="0.35"/><circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        if fault.recovered_s is not None:
            until = self._x(fault.at_s + fault.recovered_s)
            self._marks.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{until:.1f}" y2="{y:.1f}" stroke-width="3" stroke-opacity="0.6"/>')
        if fault.victim in self._lanes:
            at = self._lane(fault.victim) + _LANE / 2
            self._marks.append(f'<path d="M{x - 4:.1f} {at - 4:.1f} l8 8 m0 -8 l-8 8" stroke-width="2" fill="none"/>')
        self._marks.append("</g>")

    def _draw_legend(self) -> None:
        y = self._lanes_top + len(self._lanes) * _LANE + 28
        x = float(_LEFT)
        counts = Counter(fault.target if fault.target in _COLOURS else "at a point, or elsewhere" for fault in self._report.faults)
        for target, count in counts.most_common():
            self._marks.append(f'<circle cx="{x:.1f}" cy="{y - 4}" r="4" fill="{_COLOURS.get(target, _OTHER)}"/>')
            self._write(x + 8, y, f"{target} ({count})")
            x += 110

    # -- strokes -------------------------------------------------------------------------------------------------------------------------
    def _write(self, x: float, y: float, words: str, *, anchor: str = "start", size: int = 11) -> None:
        self._marks.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor={quoteattr(anchor)} font-size="{size}">{escape(words)}</text>')

    def _line(self, x1: float, y1: float, x2: float, y2: float, colour: str) -> None:
        self._marks.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>')


def _ticks(seconds: float) -> Sequence[float]:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 1e9) if seconds / step <= 12)
    return [step * number for number in range(int(seconds / step) + 1)]


def _by_number(names: Iterable[str]) -> list[str]:
    """Masters first, then workers as they came."""

    def key(name: str) -> tuple[bool, int, str]:
        number = name.rpartition("-")[2]
        return ("master" not in name, int(number) if number.isdigit() else 0, name)

    return sorted(names, key=key)
