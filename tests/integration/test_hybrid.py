"""A hybrid stage on a real flow, with a real thread and a real process: both ways reach the rate that the model of profiles tells."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from antinfer.spec.schema import StageSpec
from antinfer.worker.host.flow import Flow
from antinfer.worker.host.pools import Pools
from antinfer.worker.pipeline.assembler import BatchLimits
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors.placing import PredictorPlaces
from antinfer.worker.profiling.model import Measurement, Profile, StageProfile, forecast
from tests.integration.hosts import Crew, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(120)]

CODE = """
import time

class Decode:
    def __init__(self, seconds):
        self.seconds = seconds
    def __call__(self, batch):
        time.sleep(self.seconds * len(batch["raw"]))
        return {"x": batch["raw"] * 10}

class Model:
    def __init__(self, seconds):
        self.seconds = seconds
    def __call__(self, batch):
        time.sleep(self.seconds * len(batch["x"]))
        return {"x": batch["x"]}
"""
NUMBERS = itertools.count()
ROWS = 10
"""Of a batch."""


class Bench:
    """A decoder in one thread that a predictor can do the work of as well, and that predictor; seconds are those of one row."""

    def __init__(self, folder: Path, decode: float, decode_on_gpu: float, model: float) -> None:
        # The thread runs in this process, where a module keeps its name for good.
        module = f"hybrid_steps_{next(NUMBERS)}"
        (folder / f"{module}.py").write_text(CODE)

        def stage(name: str, kind: str, target: str, seconds: float) -> StageCall:
            return StageCall(name, kind, f"{module}:{target}", str(folder), {"seconds": seconds})

        def spec(name: str, kind: str, target: str) -> StageSpec:
            return StageSpec.model_validate({"kind": kind, "target": f"{module}:{target}", "name": name})

        limits = BatchLimits(ROWS)
        raw = Call(stage("decode", "map_batches", "Decode", decode), limits, 1, False, spec("decode", "map_batches", "Decode"))
        front = stage("decode", "map_batches", "Decode", decode_on_gpu)
        taker = Call(
            stage("model", "predict", "Model", model),
            limits,
            1,
            True,
            spec("model", "predict", "Model"),
            hybrid=0,
            on_gpu=front,
            processes=1,
        )
        self.crew = Crew()
        self.flow = Flow([raw, taker], self.collect)
        self.pools = Pools([raw, taker], self.flow, PredictorPlaces([raw, taker], self.flow, 2, (), probes=False), self.crew.start)
        self.found: list[int] = []
        self.put_rows = 0

    def collect(self, piece: Piece) -> None:
        if piece.batch is not None:
            self.found += piece.batch.column("x").to_pylist()

    def put(self, root: Root, rows: int) -> None:
        begin, self.put_rows = self.put_rows, self.put_rows + rows
        self.flow.put(Piece(root, begin, begin + rows, pa.record_batch({"raw": np.arange(begin, begin + rows)})))

    def rate(self, seconds: float) -> float:
        """Return the rows a second once all are at work, with raw rows waiting all the time."""
        root = Root(0)
        self.pools.start_processes([])
        self.pools.start_threads()
        wait_until(lambda: bool(self.crew.errors) or self.pools.wait_ready(0.1), "ready")
        self.put(root, 10_000)
        wait_until(lambda: bool(self.crew.errors) or len(self.found) >= 200, "the first rows")
        began, before = time.monotonic(), len(self.found)
        time.sleep(seconds)
        rate = (len(self.found) - before) / (time.monotonic() - began)
        self.flow.stop()
        self.crew.join()
        assert not self.crew.errors, self.crew.errors
        assert len(set(self.found)) == len(self.found), "no row twice"
        assert not root.bad
        return rate


def expected(decode: float, decode_on_gpu: float, model: float, *, gpu_share: float | None = None) -> float:
    def alone(seconds: float) -> tuple[Measurement, ...]:
        return (Measurement("threads", 1, ROWS, 1 / seconds, 0.0),)

    stages = (
        StageProfile("decode", "map_batches", 100, 1.0, 8, 8, alone(decode)),
        StageProfile("model", "predict", 100, 1.0, 8, 8, alone(model), alone(decode_on_gpu + model), hybrid="decode", gpu_share=gpu_share),
    )
    return forecast(Profile("job", "", 2, 100, 0, stages)).rate


@pytest.mark.parametrize(
    ("decode", "decode_on_gpu", "model"),
    [(0.010, 0.006, 0.003), (0.012, 0.003, 0.006), (0.010, 0.012, 0.002)],
    ids=["even", "mostly raw", "mostly decoded"],
)
def test_both_ways_together_reach_the_joint_rate(tmp_path: Path, decode: float, decode_on_gpu: float, model: float) -> None:
    joint = expected(decode, decode_on_gpu, model)
    only_one = max(expected(decode, decode_on_gpu, model, gpu_share=share) for share in (0, 1))
    assert 0.85 * joint > only_one, "neither way alone is enough"
    bench = Bench(tmp_path, decode, decode_on_gpu, model)
    reached = bench.rate(6.0)
    assert 0.85 * joint <= reached <= 1.05 * joint, (reached, joint, only_one)
    assert 0 < bench.flow.statistics()[1].fused_rows < len(bench.found)
