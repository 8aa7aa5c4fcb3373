"""Thousands of files: their footers are read while the first rows are computed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.storage import layout
from antinfer.testing.chaos.points import PointFolder
from tests.integration.commands import JobFolder, antinfer, finish, kill, start, wait_until

FILES = 1_600
ROWS = 3
"""Of each file."""
HELD = 10
"""The chunk of the plan with the files from 1,023 to 1,534."""


@pytest.mark.slow
def test_the_first_shards_run_while_the_last_footers_are_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = JobFolder(tmp_path / "job", source="{type: parquet, path: many/}")
    (job.folder / "many").mkdir()
    for number in range(FILES):
        ids = range(number * ROWS, (number + 1) * ROWS)
        pq.write_table(pa.table({"id": list(ids), "x": [0.5 * n for n in ids]}), job.folder / "many" / f"{number:05d}.parquet")
    points = PointFolder(tmp_path / "points")
    for name, value in points.environment.items():
        monkeypatch.setenv(name, value)
    chunk = f"{layout.folder(layout.PLAN)}/chunk-{HELD:08d}"
    held = points.arm("storage.write", "error", errno="EIO", where={"object": chunk}, times=0)
    process = start("run", job.folder)
    try:
        wait_until(lambda: (job.committed() and points.proofs(held)) or process.poll() is not None, why="nothing was published")
        status = antinfer("status", job.output, "--json").json()
        assert points.disarm(held)
        ended = finish(process)
    finally:
        kill(process)

    assert ended.code == 0, ended
    assert points.proofs(held), "the plan was not held up"
    assert (status["files_planned"], status["files_total"], status["plan_complete"]) == (2**HELD - 1, FILES, False)
    assert status["rows_committed"] > 0
    assert job.ids() == list(range(FILES * ROWS))
