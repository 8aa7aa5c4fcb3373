"""What a batch costs between stages: queue, assembler and splitter, through the flow that a worker runs, with user code that costs nothing.

Pieces go in as a reader cuts them, batches come out, each is answered with itself, and the results go home. A reader's chunks of 1,000 rows
share no border with batches of 256 but one in a thousand, so nearly every batch is put together from two pieces; batches as large as the
chunks pass as slices. Time is that of this process on its cores, all of its threads together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from antinfer import read_parquet
from antinfer.spec.schema import JobSpec
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.splitter import Outcome
from benchmarks.contest import by_turns
from benchmarks.report import Result

_NAME = "assembler"
_TARGET_US = 75
_IN_FLIGHT = 8
"""Pieces that the reader may be ahead of the stage."""


def measure(quick: bool) -> list[Result]:
    """Return microseconds a batch: in one thread, with a reader's and an executor's thread, and for batches as large as chunks."""
    batches, rounds = (400, 1) if quick else (16_000, 5)
    cases: dict[str, tuple[int, int, bool]] = {
        "256 rows from chunks of 1,000, one thread": (256, 1_000, False),
        "256 rows from chunks of 1,000, reader and executor apart": (256, 1_000, True),
        "256 rows from chunks of 8,192, one thread": (256, 8_192, False),
        "identity at 8,192, whole chunks, one thread": (8_192, 8_192, False),
    }
    contestants: dict[str, Callable[[], float]] = {what: lambda case=case: _microseconds(*case, batches) for what, case in cases.items()}
    contestants["Arrow's own slice and concatenation of the same rows"] = lambda: _bare(256, 1_000, batches)
    figures = by_turns(contestants, rounds)
    return [
        Result(
            _NAME,
            what,
            tuple(samples),
            "us/batch",
            _TARGET_US if what in cases else None,
            at_least=False,
            details={"batches": batches, "columns": ["int64", "float64", "float32[16]"]},
        )
        for what, samples in figures.items()
    ]


def _job(batch_rows: int) -> JobSpec:
    job = read_parquet("in").predict("steps:Identity", batch_size=batch_rows).write_parquet("out")
    return job.spec


def _chunk(rows: int) -> pa.RecordBatch:
    values = np.arange(rows)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(16 * rows, np.float32)), 16)
    return pa.RecordBatch.from_arrays([pa.array(values), pa.array(values / 2), vectors], names=["id", "x", "vector"])


def _microseconds(batch_rows: int, chunk_rows: int, apart: bool, batches: int) -> float:
    """Drive a flow of one stage until so many batches have been answered; return CPU microseconds for each."""
    chunks = batches * batch_rows // chunk_rows
    batches = chunks * chunk_rows // batch_rows
    root, chunk, collected = Root(0), _chunk(chunk_rows), 0
    room = threading.Semaphore(_IN_FLIGHT)

    def collect(piece: Piece) -> None:
        nonlocal collected
        collected += piece.rows
        if collected % chunk_rows < batch_rows:
            room.release()

    flow = Flow(graph.build(_job(batch_rows), cpus=1), collect)
    pieces = (Piece(root, n * chunk_rows, (n + 1) * chunk_rows, chunk) for n in range(chunks))

    def read() -> None:
        for piece in pieces:
            room.acquire()
            flow.put(piece)

    def execute(count: int) -> None:
        for _ in range(count):
            call = flow.take(0)
            assert call is not None
            flow.finish(0, call, Outcome(call.batch(lambda batch: batch)), 0.0)

    started = time.process_time()
    with flow.reading():
        if apart:
            reader = threading.Thread(target=read)
            reader.start()
            execute(batches)
            reader.join()
        else:
            rows = done = 0
            for piece in pieces:
                flow.put(piece)
                rows += chunk_rows
                execute(rows // batch_rows - done)
                done = rows // batch_rows
        seconds = time.process_time() - started
    flow.stop()
    return seconds / batches * 1e6


def _bare(batch_rows: int, chunk_rows: int, batches: int) -> float:
    """Cut and join the same rows with nothing around it: who they are is forgotten."""
    chunk = _chunk(chunk_rows)
    started = time.process_time()
    for n in range(batches):
        begin = n * batch_rows % chunk_rows
        first = chunk.slice(begin, batch_rows)
        if first.num_rows < batch_rows:
            pa.concat_batches([first, chunk.slice(0, batch_rows - first.num_rows)])
    return (time.process_time() - started) / batches * 1e6
