"""What the stages did, as the report tells it: the figures of all workers put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from antinfer.rpc.values import KEPT_DECISIONS, SUMS, StageStats, Stats


def stage_table(workers: Iterable[Stats]) -> list[dict[str, Any]]:
    """Return one entry for each stage, in the order of the pipeline.

    Sums of rows, batches and seconds are over all workers; recomputed rows count as often as they were computed. `rows_per_second` is that
    of one worker on average, while it got batches done.
    """
    told: dict[str, list[StageStats]] = defaultdict(list)
    for stats in workers:
        for stage in stats.stages:
            told[stage.name].append(stage)
    return [_entry(name, found) for name, found in told.items()]


def _entry(name: str, found: list[StageStats]) -> dict[str, Any]:
    sums = {field: sum(getattr(stage, field) for stage in found) for field in SUMS}
    whole = sums["busy_seconds"] + sums["starved_seconds"] + sums["blocked_seconds"]
    return {
        "name": name,
        **{field: round(value, 3) for field, value in sums.items()},
        **{state: round(sums[f"{state}_seconds"] / whole, 4) if whole else 0.0 for state in ("busy", "starved", "blocked")},
        "rows_per_second": round(sums["rows_in"] / sums["active_seconds"], 1) if sums["active_seconds"] else None,
        "workers_as": "/".join(sorted({stage.mode for stage in found})),
        "degree": sum(stage.degree for stage in found),
        "batch_rows": max(stage.batch_rows for stage in found),
        "load_seconds": round(max(stage.load_seconds for stage in found), 3),
        "decisions": [line for stage in found for line in stage.decisions][-KEPT_DECISIONS:],
    }
