"""Our own commands: a job file, where it reads, and what is set for this machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.arena import JOBS, Arena, Run


def run(
    arena: Arena,
    name: str,
    job: str,
    source: Path,
    rows: int,
    sets: Mapping[str, Any],
    *,
    models: Sequence[int] = (1,),
    ticking: int = 1,
    limit: float = 200.0,
    environment: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> Run | None:
    """Run a job file of `JOBS` over the Parquet or Arrow files of a folder, one worker.

    Args:
        sets: Fields of the job file that are different.
        models: Which stages of the pipeline hold models whose numbers a CPU cannot compute with.
        ticking: The stage that writes ticks; -1: none does.
        output: Where results are to stay; not given: they are counted and removed.
    """
    form = "arrow" if job.endswith("arrow.yaml") else "parquet"
    changed: dict[str, Any] = {"source.path": f"{source}/*.{form}"}
    if ticking >= 0:
        changed[f"pipeline.{ticking}.args.ticks"] = "{ticks}"
    changed |= sets
    more = dict(environment or {})
    if arena.settings.device == "cpu":
        changed |= {f"pipeline.{stage}.args.dtype": "null" for stage in models}
        # A GPU that is not there: the predictors find none and stay on the CPU, everything else is as it would be with one.
        more.setdefault("CUDA_VISIBLE_DEVICES", "0")
    command = [sys.executable, "-m", "antinfer", "run", str(JOBS / job), "--workers", "1", "--json", "--output", str(output or "{out}")]
    command += [part for key, value in changed.items() for part in ("--set", f"{key}={value}")]
    said = {"job": job} | {key: value for key, value in changed.items() if key != "source.path" and not key.endswith("ticks")}
    return arena.run(name, command, rows=rows, settings=said, limit=limit, environment=more)
