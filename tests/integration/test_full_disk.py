"""A disk that is really full: nothing torn is visible, the status says what is wrong, and the job goes on when there is room."""

from __future__ import annotations

import os
import random
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from antinfer.spec.schema import JobSpec
from antinfer.testing.chaos.cluster import Cluster
from antinfer.testing.chaos.processes import wait_until
from tests.integration.jobs import make_spec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root"),
    pytest.mark.timeout(240),
]
ROWS = 4_000
STEPS = "def double(batch):\n    return {'y': batch['id'] * 2}\n"


@pytest.fixture
def disk() -> Iterator[Path]:
    """A disk of 3 MB of its own."""
    # Not below tmp_path: what pytest removes later must not be a mount.
    folder = tempfile.mkdtemp(prefix="antinfer-full-")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False).returncode:
        os.rmdir(folder)
        pytest.skip("this machine lets nobody mount")
    try:
        yield Path(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        os.rmdir(folder)


@pytest.fixture
def logs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ai-") as logs:
        yield Path(logs)


def assert_nothing_torn(output: Path) -> int:
    """Every visible part can be read to its end; return how many there are."""
    parts = sorted(output.glob("part-*"))
    for part in parts:
        pq.read_table(part)
    return len(parts)


def make_job(folder: Path, output: Path) -> JobSpec:
    """A job of 40 shards whose results take 8 MB, however well they are compressed."""
    data = folder / "in"
    data.mkdir()
    table = pa.table({"id": range(ROWS), "noise": [random.Random(n).randbytes(2_000) for n in range(ROWS)]})
    pq.write_table(table, data / "a.parquet", row_group_size=100)
    (folder / "steps.py").write_text(STEPS)
    job = {
        "source": {"type": "parquet", "path": str(data)},
        "pipeline": [{"map_batches": "steps:double", "columns": ["id"]}],
        "carryover": ["id", "noise"],
        "sink": {"path": str(output)},
        "shard": {"rows": 100},
        "tuning": "off",
    }
    return make_spec(job, folder)


def test_a_full_disk_is_waited_out(tmp_path: Path, logs: Path, disk: Path) -> None:
    output = disk / "out"
    cluster = Cluster(make_job(tmp_path, output), ROWS, logs, grounds=(output,))
    try:
        master = cluster.master()
        worker = cluster.worker("w1")
        wait_until(lambda: (said := cluster.status()) is not None and "no space left" in said.reason, "the status tells")
        assert assert_nothing_torn(output) < 40
        master.kill()
        # Leaves no room at all: what is written first takes a few bytes.
        (disk / "filler").write_bytes(b"")
        subprocess.run(["dd", "if=/dev/zero", f"of={disk}/filler", "bs=1k"], capture_output=True, check=False)
        master = cluster.master(wait=False)
        wait_until(
            lambda: re.search(r"(writing to|claiming|saying).* failed .*no space left.*trying again", master.log), "the next one waits"
        )
        assert master.is_alive
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        cluster.finish(worker, master)
        table = ds.dataset(output, format="parquet").to_table().sort_by("id")
        assert table.column("id").to_pylist() == list(range(ROWS))
        assert table.column("y").to_pylist() == [2 * n for n in range(ROWS)]
        assert table.column("noise").to_pylist() == [random.Random(n).randbytes(2_000) for n in range(ROWS)]
    finally:
        cluster.close()
        print(cluster.logs())
