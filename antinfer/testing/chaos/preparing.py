"""The job as it is run under test: same input and pipeline, a pace, an output place of its own, and the identity of every row in it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from antinfer.errors import UsageError
from antinfer.spec.canonical import document_json
from antinfer.spec.load import build_job
from antinfer.spec.schema import JobSpec
from antinfer.spec.yamlfile import Lines
from antinfer.storage.jobs import STORAGE_OPTION
from antinfer.testing.chaos.plan import FaultPlan

_TASK_S: Final = 0.5
"""A task of a job that is paced takes about so long: what takes minutes in production takes seconds here."""
_BATCH_S: Final = 0.05
_LONGEST_BATCH_S: Final = 0.25
"""Batches are cut to what comes in this time: one that takes several tasks to fill, which a slow job alone would have, loses them all."""
_MOST_BATCH_ROWS: Final = 4096
_PACE: Final = "antinfer.testing.chaos.pacing:Pace"


def prepare(spec: JobSpec, plan: FaultPlan, output: str, counts: str, *, rows_per_second: float, workers: int | None = None) -> JobSpec:
    """Return `spec` as a job of its own that writes to `output`.

    Args:
        spec: the user's job; left as it is.
        plan: for its overrides.
        output: place of the output, a local folder or a URI.
        counts: folder in which the rows that are computed are counted; empty: they are not.
        rows_per_second: of one worker; 0: as fast as it can.
        workers: how many there shall be, neither more nor less; None: whoever starts them knows.

    Raises:
        JobFileError: An override of the plan does not fit.
        UsageError: The job has a store of its own.
    """
    if spec.store.url:
        raise UsageError("the job names a store", hint="A job under test gets its own: leave store.url out, or override it with --set.")
    document: dict[str, Any] = json.loads(document_json(spec))
    base_dir = document.pop("base_dir")
    if "://" not in output:
        document["sink"]["options"].pop(STORAGE_OPTION, None)
    document["sink"].update({"path": output, "row_ids": True})
    if workers is not None:
        document["workers"].update({"min": workers, "max": workers})
    document["pipeline"] = [_pace(spec, counts, rows_per_second), *document["pipeline"]]
    if rows_per_second:
        _cut_batches(document["pipeline"], max(1, int(rows_per_second * _LONGEST_BATCH_S)))
    if rows_per_second and spec.task.rows == "auto":
        document["task"] = {"rows": max(1, int(rows_per_second * _TASK_S))}
    overrides = [f"{path}={json.dumps(value)}" for path, value in plan.job.items()]
    return build_job(document, Lines(f"plan {plan.name}", {}), base_dir, overrides)


def _pace(spec: JobSpec, counts: str, rows_per_second: float) -> dict[str, Any]:
    sizes = [stage.batch_size for stage in spec.pipeline if isinstance(stage.batch_size, int)]
    batch = _batch_rows(rows_per_second, sizes)
    return {
        "map_batches": _PACE,
        "name": "pace",
        "args": {"folder": counts, "rows_per_second": rows_per_second},
        "batch_format": "arrow",
        "workers_as": "threads",
        # One, for ever: more of them would be faster.
        "concurrency": 1,
        **({"batch_size": batch} if batch else {}),
    }


def _cut_batches(part: Any, most: int) -> None:
    """Bound every batch size below `part` of a job document."""
    if isinstance(part, dict):
        size = part.get("batch_size")
        if isinstance(size, int):
            part["batch_size"] = min(size, most)
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _cut_batches(each, most)


def _batch_rows(rows_per_second: float, sizes: Iterable[int]) -> int:
    """Small enough for an even pace; 0: as many as the host likes."""
    if rows_per_second:
        return max(1, min(_MOST_BATCH_ROWS, int(rows_per_second * _BATCH_S)))
    return min(sizes, default=0)
