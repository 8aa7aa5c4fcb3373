"""What bad rows cost: a row that crashes its process, one that hangs it and one in a thousand that raise, against the same job without.

The model sleeps as long as a device would compute, so that the cores are left to the two commands. Deadlines are the default: what is
measured includes the time until somebody notices.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from antinfer.storage import layout
from benchmarks.contest import by_turns, run_timed, times_faster
from benchmarks.report import Result

_JOB = Path(__file__).parent / "bad_rows_job"
_NAME = "bad_rows"
_SEED = 20_000


def measure(quick: bool) -> list[Result]:
    """Return how many times longer the job takes with bad rows. Raises RuntimeError when other rows than those are missing."""
    rows, rounds = (5_000, 1) if quick else (100_000, 1)
    bad = _bad_rows(rows)
    with tempfile.TemporaryDirectory(prefix="antinfer-bench-") as name:
        folders = {kind: Path(name, kind) for kind in ("clean", "with bad rows")}
        for kind, folder in folders.items():
            shutil.copytree(_JOB, folder)
            _write(folder / "in", rows, bad if kind != "clean" else {})
        runs = {kind: partial(_run, folder, rows, bad if kind != "clean" else {}) for kind, folder in folders.items()}
        seconds = by_turns(runs, rounds)
    what = f"{rows:,} rows, one crashes, one hangs, {len(bad) - 2} raise: time against that without them"
    ratios = times_faster(seconds, "clean", "with bad rows")
    return [Result(_NAME, what, ratios, "x", 1.3, at_least=False, details={"seconds": seconds, "seed": _SEED})]


def _bad_rows(rows: int) -> Mapping[int, str]:
    chance = random.Random(_SEED)
    crash, hang, *raising = chance.sample(range(rows), 2 + rows // 1000)
    return {crash: "crash", hang: "hang", **dict.fromkeys(raising, "none")}


def _write(folder: Path, rows: int, bad: Mapping[int, str]) -> None:
    folder.mkdir()
    table = pa.table({"id": range(rows), "text": [bad.get(row, str(row)) for row in range(rows)]})
    pq.write_table(table, folder / "rows.parquet", row_group_size=10_000)


def _run(folder: Path, rows: int, bad: Mapping[int, str]) -> float:
    shutil.rmtree(folder / "out", ignore_errors=True)
    seconds = run_timed([str(Path(sys.executable).parent / "antinfer"), "run", "job.yaml", "--workers", "1", "--json"], folder)
    found = ds.dataset(folder / "out", format="parquet").to_table(columns=["id"])["id"].to_pylist()
    if sorted(found) != [row for row in range(rows) if row not in bad]:
        raise RuntimeError(f"{len(found)} of {rows - len(bad)} rows came out, or other ones")
    report = json.loads((folder / "out" / layout.REPORT).read_text())
    if report["rows_quarantined"] != len(bad):
        raise RuntimeError(f"{report['rows_quarantined']} rows were quarantined instead of {len(bad)}")
    return seconds
