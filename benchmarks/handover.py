"""How fast large batches go to a predictor process and back: the flow and the process of a worker, with models that cost nothing.

A batch is 256 pictures of 224 x 224 x 3 bytes, 38.5 MB. GB/s counts the bytes of the batch once a way: there is one way, there and back are
two. One in four pieces is put together on its way. Where a stage in a process makes these, the bytes go from there through the worker into
the predictor, and are counted once. The peers carry the same bytes: a pipe between two processes, pickled, as ``multiprocessing`` does it;
and one copy in memory, the least that handing over what lies somewhere else can cost.
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
from antinfer.spec.dataset import BatchFormat
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline import arrays, graph
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.predictors.placing import PredictorPlaces
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
        "there, in four pieces": ("There", 1, lambda: _through_predictor("There", "numpy", batches, pieces=4)),
        "there, from a stage in a process": ("There", 1, lambda: _through_predictor("There", "numpy", batches, pieces=4, made=True)),
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


def _through_predictor(model: str, batch_format: BatchFormat, batches: int, *, pieces: int = 1, made: bool = False) -> float:
    """Return seconds a batch that comes in so many `pieces`, once everything runs; `made`: by a stage in a process of its own."""
    source, rows = read_parquet("in"), _ROWS // pieces
    if made:
        source = source.map_batches(f"file:{_STEPS}:Makes", batch_size=rows, workers_as="processes", concurrency=1)
    source = source.predict(f"file:{_STEPS}:{model}", batch_size=_ROWS, batch_format=batch_format)
    nodes = graph.build(source.write_parquet("out").spec, cpus=1)
    room, done = threading.Semaphore(_IN_FLIGHT * pieces), threading.Semaphore(0)

    def collect(piece: Piece) -> None:
        assert piece.rows == rows
        room.release()
        done.release()

    flow = Flow(nodes, collect)
    predictors = [predictor for _, predictor in PredictorPlaces(nodes, flow, 1, ()).first()]
    threads = [threading.Thread(target=predictor.run) for predictor in predictors]
    for thread in threads:
        thread.start()
    batch, root = pa.record_batch({"n": np.arange(rows)}) if made else _batch(rows), Root(0)
    try:
        while not all(predictor.wait_ready(1.0) for predictor in predictors):
            assert all(thread.is_alive() for thread in threads), "a process has failed"
        started = 0.0
        for n in range((_WARM_UP + batches) * pieces):
            room.acquire()
            if n == _WARM_UP * pieces:
                for _ in range(_WARM_UP * pieces):
                    done.acquire()
                started = time.perf_counter()
            flow.put(Piece(root, n * rows, (n + 1) * rows, batch))
        for _ in range(batches * pieces):
            done.acquire()
        return (time.perf_counter() - started) / batches
    finally:
        flow.stop()
        for thread in threads:
            thread.join()


def _batch(rows: int) -> pa.RecordBatch:
    pictures = np.arange(rows * int(np.prod(_SHAPE)), dtype=np.uint32).astype(np.uint8).reshape(rows, *_SHAPE)
    return pa.RecordBatch.from_arrays([arrays.from_tensor(pictures)], names=["pixels"])


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
