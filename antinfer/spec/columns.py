"""The columns that a job names, checked against those that its input has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from antinfer.errors import JobFileError, SourceError
from antinfer.spec.near import did_you_mean

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec

_SHOWN = 20


def check_columns(spec: JobSpec, columns: Sequence[str]) -> None:
    """Raise `JobFileError` when the job names a column that is not among the `columns` of its input; names the near ones.

    Raises `SourceError` when the input has no column at all, because there is nothing in it. What a stage returns is known only when it
    runs, so of the stages only the first one is looked at.
    """
    first = spec.pipeline[0]
    named = {
        "carryover": () if spec.carryover == "*" else spec.carryover,
        "quarantine.keep_columns": spec.quarantine.keep_columns,
        "pipeline.0.columns": first.columns or (),
    }
    for field, wanted in named.items():
        for name in wanted:
            if not columns:
                what = f"every file of {', '.join(spec.source.path)} is empty"
                raise SourceError(f"{what}, so that there is no column {name!r} for {field}", hint="Give files that hold something.")
            if name not in columns:
                listed = ", ".join(columns[:_SHOWN]) + (", ..." if len(columns) > _SHOWN else "")
                raise JobFileError(f"{field}: the input has no column {name!r}{did_you_mean(name, columns)}", hint=f"It has {listed}.")
