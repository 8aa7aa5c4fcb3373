"""How fast large batches go to a predictor process and back: the flow and the process of a worker, with models that cost nothing.

A batch is 256 pictures of 224 x 224 x 3 bytes, 38.5 MB. GB/s counts the bytes of the batch once a way: there is one way, there and back are
two. The peers carry the same bytes: a pipe between two processes, pickled, as ``multiprocessing`` does it; and one copy in memory, the
least that handing over what lies somewhere else can cost.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa

from antinfer import read_parquet
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.pool import Predictor
from benchmarks.contest import by_turns
from benchmarks.report import Result

_NAME = "handover"
_STEPS = Path(__file__).parent / "handover_job" / "steps.py"
_ROWS = 256
_SHAPE = (224, 224, 3)
_WARM_UP = 6
"""Batches that make slabs grow, and that nobody counts."""
_IN_FLIGHT = 6


def measure(quick: bool) -> list[Result]:
    """Return GB/s there, and there and back, for user code that gets Arrow data or arrays of its own, and the peers'."""
    batches, rounds = (3, 1) if quick else (100, 5)
    cases: dict[str, tuple[str, int, Callable[[], float]]] = {
        "there, Arrow": ("There", 1, lambda: _through_predictor("There", "arrow", batches)),
        "there, numpy": ("There", 1, lambda: _through_predictor("There", "numpy", batches)),
        "there and back, Arrow": ("ThereAndBack", 2, lambda: _through_predictor("ThereAndBack", "arrow", batches)),
        "there and back, numpy": ("ThereAndBack", 2, lambda: _through_predictor("ThereAndBack", "numpy", batches)),
        "peer: pickled through a pipe, there": ("", 1, lambda: _through_pipe(batches)),
        "peer: copied once in memory": ("", 1, lambda: _copied(batches)),
    }
    seconds = by_turns({what: run for what, (_, _, run) in cases.items()}, rounds)
    size = _ROWS * int(np.prod(_SHAPE))
    return [
        Result(
            _NAME,
            what,
            tuple(ways * size / each / 1e9 for each in seconds[what]),
            "GB/s",
            2.0 if target else None,
            details={"batch_bytes": size, "batches": batches, "seconds_per_batch": seconds[what]},
        )
        for what, (target, ways, _) in cases.items()
    ]


def _through_predictor(model: str, batch_format: str, batches: int) -> float:
    """Return seconds a batch, once everything runs."""
    stage = read_parquet("in").predict(f"file:{_STEPS}:{model}", batch_size=_ROWS, batch_format=batch_format)
    nodes = graph.build(stage.write_parquet("out").spec, cpus=1)
    call = nodes[0]
    assert isinstance(call, Call)
    room, done = threading.Semaphore(_IN_FLIGHT), threading.Semaphore(0)

    def collect(piece: Piece) -> None:
        assert piece.rows == _ROWS
        room.release()
        done.release()

    flow = Flow(nodes, collect)
    predictor = Predictor(0, call.stage, flow, threads=1, started=spawn.start(1))
    thread = threading.Thread(target=predictor.run)
    thread.start()
    batch, root = _batch(), Root(0)
    try:
        while not predictor.wait_ready(1.0):
            assert thread.is_alive(), "the predictor has failed"
        started = 0.0
        for n in range(_WARM_UP + batches):
            room.acquire()
            if n == _WARM_UP:
                for _ in range(_WARM_UP):
                    done.acquire()
                started = time.perf_counter()
            flow.put(Piece(root, n * _ROWS, (n + 1) * _ROWS, batch))
        for _ in range(batches):
            done.acquire()
        return (time.perf_counter() - started) / batches
    finally:
        flow.stop()
        thread.join()


def _batch() -> pa.RecordBatch:
    values = pa.array(np.arange(_ROWS * int(np.prod(_SHAPE)), dtype=np.uint32).astype(np.uint8))
    storage = pa.FixedSizeListArray.from_arrays(values, int(np.prod(_SHAPE)))
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.uint8(), _SHAPE), storage)
    return pa.RecordBatch.from_arrays([tensors], names=["pixels"])


def _through_pipe(batches: int) -> float:
    array = np.zeros((_ROWS, *_SHAPE), np.uint8)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_drain, args=(theirs,))
    process.start()
    ours.send(array)
    ours.recv()
    started = time.perf_counter()
    for _ in range(batches):
        ours.send(array)
    ours.send(None)
    ours.recv()
    seconds = time.perf_counter() - started
    process.join()
    return seconds / batches


def _drain(end: Connection) -> None:
    end.recv()
    end.send(None)
    while end.recv() is not None:
        pass
    end.send(None)


def _copied(batches: int) -> float:
    array, target = np.zeros((2, _ROWS, *_SHAPE), np.uint8)
    np.copyto(target, array)
    started = time.perf_counter()
    for _ in range(batches):
        np.copyto(target, array)
    return (time.perf_counter() - started) / batches
