"""A bench for hybrid stages: a real flow, threads and predictor process, whose three resources sleep, so that the best is known."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from antinfer.spec.schema import StageSpec
from antinfer.worker.host.flow import Flow
from antinfer.worker.host.machine import MachineReader
from antinfer.worker.host.pools import Pools
from antinfer.worker.host.tuning import Tuning
from antinfer.worker.pipeline.assembler import BatchLimits
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors.placing import PredictorPlaces
from antinfer.worker.tuning.shares import Rates
from tests.integration.hosts import Crew, wait_until

CODE = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np

DEVICE = threading.Lock()

class Decode:
    def __init__(self, seconds):
        self.seconds = seconds
    def __call__(self, batch):
        time.sleep(self.seconds * len(batch["raw"]))
        return {"x": batch["raw"] * 10, "picture": np.zeros((len(batch["raw"]), 4096), np.uint8)}

class DecodeAside(Decode):
    def __init__(self, seconds):
        super().__init__(seconds)
        self.aside = ThreadPoolExecutor(1)
    def submit(self, batch):
        return self.aside.submit(self, batch)
    def teardown(self):
        self.aside.shutdown()

class DecodeOnTheSameDevice(DecodeAside):
    def __call__(self, batch):
        with DEVICE:
            return super().__call__(batch)

class Model:
    def __init__(self, seconds):
        self.seconds = seconds
        self.device = ThreadPoolExecutor(1)
    def submit(self, batch):
        return self.device.submit(self.compute, batch["x"])
    def compute(self, x):
        with DEVICE:
            time.sleep(self.seconds * len(x))
        return {"x": x}
    def done(self, ticket):
        return ticket.done()
    def collect(self, ticket):
        return ticket.result()
    def teardown(self):
        self.device.shutdown()
"""
NUMBERS = itertools.count()
ROWS = 10
"""Of a batch."""
PICTURE_BYTES = 4096
"""Of a row that has been decoded."""


@dataclass(frozen=True)
class Speeds:
    """Seconds that one row takes each of the three, and how the front works in the predictor."""

    decode: float
    """In one copy on the cores."""
    front: float
    model: float
    copies: int = 1
    """On the cores."""
    front_target: str = "DecodeAside"
    """`DecodeAside`: at the same time as the model, `DecodeOnTheSameDevice`: in turns with it."""

    @property
    def rates(self) -> Rates:
        """What the predictor does is counted as one after the other, as if both needed all of the device."""
        return Rates(self.copies / self.decode, 1 / self.model, 1 / (self.front + self.model))

    @property
    def formula(self) -> float:
        """The rate with the best share, in rows a second."""
        return self.rates.together(self.rates.best_share())

    @property
    def ceiling(self) -> float:
        """The most that can be, in rows a second: of a front that works aside as if it and the model never waited for each other."""
        if self.front_target != "DecodeAside":
            return self.formula
        return min(1 / self.model, self.copies / self.decode + 1 / self.front)


class Bench:
    """A decoder in threads that a predictor can do the work of as well, and that predictor."""

    def __init__(self, folder: Path, speeds: Speeds, *, gpu_share: float | None = None, tunes: bool = False) -> None:
        # The threads run in this process, where a module keeps its name for good.
        module = f"hybrid_steps_{next(NUMBERS)}"
        (folder / f"{module}.py").write_text(CODE)

        def stage(name: str, kind: str, target: str, seconds: float) -> StageCall:
            return StageCall(name, kind, f"{module}:{target}", str(folder), {"seconds": seconds})

        def spec(name: str, kind: str, target: str, copies: int) -> StageSpec:
            keys = {"kind": kind, "target": f"{module}:{target}", "name": name, "concurrency": copies}
            return StageSpec.model_validate({**keys, "workers_as": "threads"} if kind != "predict" else keys)

        limits = BatchLimits(ROWS)
        decode = stage("decode", "map_batches", "Decode", speeds.decode)
        raw = Call(decode, limits, speeds.copies, False, spec("decode", "map_batches", "Decode", speeds.copies))
        taker = Call(
            stage("model", "predict", "Model", speeds.model),
            limits,
            1,
            True,
            spec("model", "predict", "Model", 1),
            hybrid=0,
            on_gpu=stage("decode", "map_batches", speeds.front_target, speeds.front),
            gpu_share=gpu_share,
            processes=1,
        )
        self.crew = Crew()
        self.flow = Flow([raw, taker], self.collect)
        self.pools = Pools([raw, taker], self.flow, PredictorPlaces([raw, taker], self.flow, 2, (), probes=False), self.crew.start)
        self.tuning = Tuning([raw, taker], self.flow, self.pools, MachineReader(())) if tunes else None
        self.root = Root(0)
        self.found: list[int] = []
        self.put_rows = 0

    def collect(self, piece: Piece) -> None:
        if piece.batch is not None:
            self.found += piece.batch.column("x").to_pylist()

    def put(self, rows: int) -> None:
        begin, self.put_rows = self.put_rows, self.put_rows + rows
        self.flow.put(Piece(self.root, begin, begin + rows, pa.record_batch({"raw": np.arange(begin, begin + rows)})))

    def start(self) -> None:
        self.pools.start_processes([])
        self.pools.start_threads()
        wait_until(lambda: bool(self.crew.errors) or self.pools.wait_ready(0.1), "ready")

    def tick(self) -> bool:
        if self.tuning is not None:
            self.tuning.tick(time.monotonic())
        return bool(self.crew.errors)

    def run(self, seconds: float) -> tuple[float, float]:
        """Return the rows a second, and the share of raw ones, with raw rows waiting all the time."""
        began, before = time.monotonic(), self.flow.statistics()[1]
        while time.monotonic() < began + seconds and not self.tick():
            time.sleep(0.1)
        stats = self.flow.statistics()[1]
        rows = stats.rows_done - before.rows_done
        return rows / (time.monotonic() - began), (stats.fused_done - before.fused_done) / max(1, rows)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(lambda: self.tick() or condition(), what)

    def stop(self) -> None:
        self.flow.stop()
        self.crew.join()
        assert not self.crew.errors, self.crew.errors
        assert len(set(self.found)) == len(self.found), "no row twice"
        assert not self.root.bad
