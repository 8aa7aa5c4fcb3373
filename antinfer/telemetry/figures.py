"""Figures as people read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from antinfer.rpc.values import StageStats, Status


def count(value: float) -> str:
    """12,345 below a million, then 1.23 M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """3.2 s, 4:05, 2:03:04."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@dataclass(frozen=True, slots=True)
class StageFigures:
    """What a stage does now on all workers together."""

    name: str
    busy: float
    """Share of the time of its copies in which they are at work, 0..1."""
    starved: float
    """They have nothing to do."""
    blocked: float
    """What follows has no room."""
    rows_per_second: float
    copies: str
    """How many there are, and of what kind."""
    batch_rows: int


def stages(status: Status) -> list[StageFigures]:
    """Return what each stage does now, over the workers that told; in pipeline order."""
    told: dict[str, list[StageStats]] = defaultdict(list)
    for worker in status.workers:
        for stage in worker.stats.stages if worker.stats is not None and worker.state != "lost" else ():
            told[stage.name].append(stage)
    return [_stage(name, found) for name, found in told.items()]


def _stage(name: str, found: list[StageStats]) -> StageFigures:
    degree = max(1, sum(stage.degree for stage in found))
    counts = {mode: sum(stage.degree for stage in found if stage.mode == mode) for mode in ("threads", "processes")}
    return StageFigures(
        name,
        sum(stage.busy * stage.degree for stage in found) / degree,
        sum(stage.starved * stage.degree for stage in found) / degree,
        sum(stage.blocked * stage.degree for stage in found) / degree,
        sum(stage.rows_per_second for stage in found),
        " + ".join(_copies(number, mode) for mode, number in counts.items() if number),
        max(stage.batch_rows for stage in found),
    )


def _copies(number: int, mode: str) -> str:
    return f"{number} {mode}" if number != 1 else {"threads": "1 thread", "processes": "1 process"}[mode]


def bottleneck(figures: Sequence[StageFigures]) -> str:
    """The stage that the others wait for: the busiest, when it is at work most of the time; empty when none is."""
    slowest = max(figures, key=lambda stage: stage.busy, default=None)
    return slowest.name if slowest is not None and slowest.busy >= 0.5 else ""


def counters(status: Status) -> str:
    """One line on what happened besides the work itself: what did not happen is left out; empty when the master told nothing."""
    parts = [f"{value:,} {name.replace('_', ' ')}" for name, value in status.counters.items() if value]
    return ", ".join(parts)


def headline(status: Status) -> str:
    """One line on how far the job is."""
    total = status.rows_total
    done = f"{count(status.rows_committed)} of {count(total)} rows" if total is not None else f"{count(status.rows_committed)} rows"
    if total:
        done += f" ({status.rows_committed / total:.0%})"
    parts = [done, f"{count(status.rows_per_second)} rows/s"]
    if status.eta_seconds is not None:
        parts.append(f"ETA {duration(status.eta_seconds)}")
    if status.rows_quarantined:
        parts.append(f"{count(status.rows_quarantined)} quarantined")
    if not status.plan_complete and status.files_total:
        parts.append(f"planning: {status.files_planned:,} of {status.files_total:,} files")
    elif status.phase == "finishing":
        parts.append("finishing")
    if status.reason and status.phase != "failed":
        parts.append(status.reason.partition("\n")[0])
    slowest = bottleneck(stages(status))
    if slowest:
        parts.append(f"bottleneck: {slowest}")
    return ", ".join(parts)


def fan(rows: int) -> str:
    """Say how many more rows came out than went in, as a term behind the rows that went in; nothing where they are as many."""
    return f" + {rows:,} fanned out" if rows > 0 else f" - {-rows:,} filtered out" if rows < 0 else ""
