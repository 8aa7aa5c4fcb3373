"""Figures as people read them."""

from __future__ import annotations

from collections import defaultdict

from antinfer.rpc.values import Status


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


def busy_stages(status: Status) -> dict[str, float]:
    """Mean share of the last second in which each stage was at work, over the workers that told; in pipeline order."""
    shares: dict[str, list[float]] = defaultdict(list)
    for worker in status.workers:
        for stage, share in (worker.stats.busy if worker.stats is not None else {}).items():
            shares[stage].append(share)
    return {stage: sum(values) / len(values) for stage, values in shares.items()}


def bottleneck(busy: dict[str, float]) -> str:
    """The stage that the others wait for: the busiest, when it is at work most of the time; empty when none is."""
    if not busy:
        return ""
    stage = max(busy, key=lambda name: busy[name])
    return stage if busy[stage] >= 0.5 else ""


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
    slowest = bottleneck(busy_stages(status))
    if slowest:
        parts.append(f"bottleneck: {slowest}")
    return ", ".join(parts)
