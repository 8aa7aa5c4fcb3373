"""Batches that outgrow the device's memory: no row may be lost, and no process may end for it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds

from benchmarks.gpu import ours
from benchmarks.gpu.arena import Arena
from benchmarks.gpu.datasets import Recipe
from benchmarks.report import Result

_NAME = "oom"


def run(arena: Arena) -> None:
    """Run rows of growing cost, with a batch size that is given and with one that is found."""
    rows = arena.settings.rows(65_536, 16_384)
    source = arena.input(Recipe("cost", rows, 8))
    for size in ("2048", "auto"):
        # Its own folder: what is in the output is looked at afterwards.
        out = Path(tempfile.mkdtemp(prefix="antinfer-oom-")) / "out"
        try:
            sets = {"pipeline.0.batch_size": size}
            done = ours.run(arena, f"oom: batch_size {size}", "oom/job.yaml", source, 0, sets, models=(), ticking=-1, output=out)
            if done is not None:
                _judge(arena, size, out, rows)
        finally:
            shutil.rmtree(out.parent, ignore_errors=True)


def _judge(arena: Arena, size: str, out: Path, rows: int) -> None:
    table = ds.dataset(out, format="parquet").to_table()
    found: dict[str, Any] = {
        "rows": len(table),
        "different ids": pc.count_distinct(table["id"]).as_py(),
        "wrong results": pc.sum(pc.not_equal(table["doubled"], pc.multiply(table["id"], 2))).as_py() or 0,
        "processes": pc.count_distinct(table["process"]).as_py(),
        "times without enough memory": pc.max(table["failed"]).as_py(),
        "largest batch": pc.max(table["rows"]).as_py(),
        "smallest batch": pc.min(table["rows"]).as_py(),
    }
    lost = rows - found["different ids"] + found["rows"] - found["different ids"] + found["wrong results"]
    arena.results += [
        _at_most(f"batch_size {size}: rows lost, doubled or wrong", lost, 0, found),
        _at_most(f"batch_size {size}: processes that the model was in", found["processes"], 1, found),
    ]
    arena.add(_NAME, f"batch_size {size}: times that memory was not enough", found["times without enough memory"], "", 1)
    arena.add(_NAME, f"batch_size {size}: smallest batch", found["smallest batch"], "rows")


def _at_most(what: str, value: float, most: float, found: dict[str, Any]) -> Result:
    return Result(_NAME, what, (value,), "", most, at_least=False, details=found)
