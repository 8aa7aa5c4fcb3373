"""Which row a process died of: the one that is to blame and no other, however many batches were under way beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.worker.pipeline.stagecalls import StageCall
from tests.integration.predictorbench import Bench
from tests.integration.runs import run_job

pytestmark = pytest.mark.timeout(120)

CODE = """
import fcntl, os, signal, time
import numpy as np

class Breaks:
    # A row that is answered leaves the process in a state in which any row kills it.
    def __init__(self, breaks):
        self.breaks, self.is_broken = breaks, False
    def __call__(self, batch):
        for value in batch["x"].tolist():
            if self.is_broken:
                os.abort()
            self.is_broken = value == self.breaks
        return {"x": batch["x"]}

class KilledOnce:
    # While the row is searched for that crashes, somebody kills the process that has just another one alone.
    def __init__(self, bad, innocent, mark):
        self.bad, self.innocent, self.mark = bad, innocent, mark
    def __call__(self, batch):
        x = batch["x"].tolist()
        if x == [self.innocent] and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.bad in x:
            os.abort()
        return {"x": batch["x"]}

class Several:
    # Computes three batches at once; a bad one kills when it is begun.
    depth = 3
    def __init__(self, bad):
        self.bad = bad
    def submit(self, batch):
        if self.bad in batch["x"].tolist():
            os.abort()
        return batch["x"], time.monotonic() + 0.3
    def done(self, ticket):
        return time.monotonic() >= ticket[1]
    def collect(self, ticket):
        time.sleep(max(0.0, ticket[1] - time.monotonic()))
        return {"x": ticket[0]}

class Holds:
    # Holds something that there is but once.
    def __init__(self, lock, bad):
        self.lock, self.bad = lock, bad
    def setup(self):
        self.file = open(self.lock, "w")
        fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    def __call__(self, batch):
        if self.bad in batch["x"].tolist():
            os.abort()
        return {"x": batch["x"]}
"""


class BlameBench(Bench):
    """As `Bench`, with the code above."""

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        (self.folder / "blame_steps.py").write_text(CODE)

    def stage_of(self, target: str, **args: Any) -> StageCall:
        return StageCall(target, "predict", f"blame_steps:{target}", str(self.folder), args, tolerant=True)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., BlameBench]]:
    benches: list[BlameBench] = []

    def start(*args: Any, **keys: Any) -> BlameBench:
        benches.append(BlameBench(tmp_path, *args, **keys))
        return benches[-1]

    yield start
    for bench in benches:
        bench.stop()


def test_a_row_is_not_given_up_for_what_the_one_before_has_left_behind(make: Callable[..., BlameBench]) -> None:
    bench = make("Breaks", 16, breaks=20)
    bench.start()
    bench.put(0, 64)
    bench.wait(64)
    assert not bench.root.bad and sorted(bench.found) == list(range(64))


def test_a_row_is_not_given_up_for_one_kill_from_outside(make: Callable[..., BlameBench], tmp_path: Path) -> None:
    bench = make("KilledOnce", 16, bad=25, innocent=22, mark=str(tmp_path / "mark"))
    bench.start()
    bench.put(0, 64)
    bench.wait(64)
    assert (tmp_path / "mark").exists()
    assert list(bench.root.bad) == [25] and bench.root.bad[25].error.startswith("Abort: ")


def test_where_several_batches_were_at_work_each_is_run_alone(make: Callable[..., BlameBench], caplog: pytest.LogCaptureFixture) -> None:
    bench = make("Several", 8, bad=16)
    # All of them wait, so that the third one, which kills, is begun while the other two are computed.
    bench.put(0, 64)
    bench.start()
    bench.wait(64)
    assert list(bench.root.bad) == [16] and len(bench.found) == 63
    deaths = [record.rows for record in caplog.records if getattr(record, "action", "") == "restart"]  # type: ignore[attr-defined]
    # With two others, alone, and in a part, which is a row here and the first one that the process is given.
    assert deaths == [8, 8, 1]


def test_no_second_copy_looks_for_the_row_where_the_user_allows_for_one(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"x": list(range(400))}), tmp_path / "in" / "a.parquet")
    job = {
        "source": {"type": "parquet", "path": "in"},
        "pipeline": [{"predict": "steps:Holds", "batch_size": 16, "concurrency": 1, "args": {"lock": str(tmp_path / "lock"), "bad": 200}}],
        "sink": {"path": "out"},
    }
    report = run_job(tmp_path, job, "--workers", "1", steps=CODE)
    assert (report["rows_out"], report["rows_quarantined"]) == (399, 1)
