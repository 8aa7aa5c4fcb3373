"""Results that stay in the memory of the process that made them until the next process has them: whole, and never in the way for long."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from antinfer.spec.schema import StageSpec
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline.assembler import BatchLimits
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors.placing import PredictorPlaces
from antinfer.worker.predictors.predictor import Predictor
from tests.integration.hosts import wait_until

pytestmark = pytest.mark.timeout(120)

CODE = """
import numpy as np

class Makes:
    # One array, filled again and again: what is not copied before the next call is spoilt.
    def __init__(self, width):
        self.pixels = np.empty((64, width), np.uint32)
    def __call__(self, batch):
        made = self.pixels[: len(batch["n"])]
        made[:] = batch["n"][:, None] + np.arange(made.shape[1])
        return {"n": batch["n"], "pixels": made}

def keeps(batch):
    return np.ones(len(batch["n"]), bool)

class Checks:
    def __call__(self, batch):
        right = batch["n"][:, None] + np.arange(batch["pixels"].shape[1])
        return {"n": batch["n"], "right": (batch["pixels"] == right).all(axis=1)}
"""
ROWS = 16
LENT = 8
"""Results of one process that may be held at most."""
WIDE = 20_000
"""Numbers of a row: 1.3 MB a batch, more than half of what a slab has at least."""


class Bench:
    """A stage in a process, and another one behind it or nobody."""

    def __init__(self, folder: Path, width: int, then: str = "Checks", *, lives: int | str = "off") -> None:
        """`lives`: batches after which the process of the first stage is started afresh."""
        (folder / "lending_steps.py").write_text(CODE)

        def stage(target: str, kind: str, **args: int) -> StageCall:
            return StageCall(target, kind, f"lending_steps:{target}", str(folder), args)

        spec = StageSpec(kind="map_batches", name="Makes", target="lending_steps:Makes", max_lifetime=lives)
        nodes = [Call(stage("Makes", "map_batches", width=width), BatchLimits(ROWS), 1, in_processes=True, spec=spec)]
        if then:
            kind = "predict" if then == "Checks" else "filter"
            nodes.append(Call(stage(then, kind), BatchLimits(3 * ROWS + 5), 1, in_processes=True))
        self.pieces: list[Piece] = []
        self.flow = Flow(nodes, self.pieces.append)
        self.predictors = [predictor for _, predictor in PredictorPlaces(nodes, self.flow, 1, ()).first()]
        self.threads: list[threading.Thread] = []
        self.root = Root(0)

    def start(self, predictor: Predictor) -> None:
        self.threads.append(threading.Thread(target=predictor.run))
        self.threads[-1].start()
        wait_until(lambda: predictor.wait_ready(0.1), "ready")

    def put(self, begin: int, batches: int) -> None:
        for at in range(begin, begin + batches * ROWS, ROWS):
            self.flow.put(Piece(self.root, at, at + ROWS, pa.record_batch({"n": np.arange(at, at + ROWS)})))

    def waiting(self) -> int:
        """Count the rows that were made and wait for the next stage."""
        return self.flow.statistics()[1].queue_rows

    def wait(self, rows: int) -> None:
        wait_until(lambda: sum(piece.stop - piece.begin for piece in self.pieces) >= rows, f"{rows} rows")

    def stop(self) -> None:
        self.flow.stop()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()

    def column(self, name: str) -> list[object]:
        pieces = sorted(self.pieces, key=lambda piece: piece.begin)
        return [value for piece in pieces if piece.batch is not None for value in piece.batch[name].to_pylist()]


def mapped() -> int:
    """Count the pieces of memory for results that this process sees."""
    return sum("antinfer-results" in line for line in Path("/proc/self/maps").read_text().splitlines())


def slabs(predictor: Predictor) -> int:
    """Count the pieces of memory for results that a process has."""
    return sum("antinfer-results" in line for line in Path(f"/proc/{predictor.pid}/maps").read_text().splitlines())


def test_the_next_process_gets_every_row_as_it_was_made_out_of_few_slabs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, WIDE)
    makes, checks = bench.predictors
    bench.start(makes)
    bench.put(0, 4)
    wait_until(lambda: bench.waiting() == 4 * ROWS, "four results")
    assert slabs(makes) == 4, "nobody has them yet"
    bench.put(4 * ROWS, 26)
    wait_until(lambda: bench.waiting() == 30 * ROWS, "more than may be lent")
    assert slabs(makes) <= LENT + 3
    bench.start(checks)
    for begin in range(30, 400, 37):
        bench.put(begin * ROWS, 37)
        bench.wait((begin - 9) * ROWS)
    bench.wait(400 * ROWS)
    most = slabs(makes)
    bench.stop()
    assert bench.column("n") == [*range(400 * ROWS)]
    assert all(bench.column("right"))
    assert most <= LENT + 3, "as many as may be lent, and as many as batches are under way"


def test_nothing_is_kept_of_a_process_that_was_started_afresh(tmp_path: Path) -> None:
    before = mapped()
    bench = Bench(tmp_path, WIDE, lives=40)
    for predictor in bench.predictors:
        bench.start(predictor)
    former = bench.predictors[0].pid
    bench.put(0, 40)
    wait_until(lambda: bench.predictors[0].pid != former and bench.predictors[0].is_ready, "another process")
    bench.wait(40 * ROWS)
    assert bench.column("n") == [*range(40 * ROWS)]
    assert all(bench.column("right"))
    bench.pieces.clear()
    wait_until(lambda: mapped() <= before + 3, "what the second stage has written and nothing of the first")
    bench.stop()


def test_results_outlive_the_process_that_made_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path, WIDE)
    makes, checks = bench.predictors
    bench.start(makes)
    bench.put(0, 10)
    wait_until(lambda: bench.waiting() == 10 * ROWS, "ten results")
    former = makes.pid
    assert former is not None
    os.kill(former, signal.SIGKILL)
    wait_until(lambda: makes.pid != former, "another process")
    bench.put(10 * ROWS, 10)
    bench.start(checks)
    bench.wait(20 * ROWS)
    bench.stop()
    assert bench.column("n") == [*range(20 * ROWS)]
    assert all(bench.column("right"))


@pytest.mark.parametrize(("width", "then"), [(WIDE, ""), (WIDE, "keeps"), (100, "Checks")], ids=["for long", "let through", "small"])
def test_results_that_may_be_held_for_long_or_are_small_keep_no_slab(tmp_path: Path, width: int, then: str) -> None:
    bench = Bench(tmp_path, width, then)
    makes = bench.predictors[0]
    bench.start(makes)
    bench.put(0, 30)
    wait_until(lambda: len(bench.pieces) == 30 or (bool(then) and bench.waiting() == 30 * ROWS), "30 results")
    assert slabs(makes) <= 3, "as many as batches are under way"
    bench.stop()
