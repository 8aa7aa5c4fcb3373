"""Readers without a pipeline: what they say about the shards they read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.core.ids import LeaseId, ShardId
from antinfer.core.plan import Piece, Shard
from antinfer.core.ranges import UNSIZED, Rows
from antinfer.errors import ChangedError
from antinfer.metrics import AccumulatorSet
from antinfer.storage.place import open_place
from antinfer.storage.sources import open_source
from antinfer.storage.sources.base import Target
from antinfer.worker.host.credits import Credits
from antinfer.worker.host.flow import Flow
from antinfer.worker.host.leases import Leases
from antinfer.worker.host.parts import OutputPlan
from antinfer.worker.host.readers import Reader
from antinfer.worker.hostlink import Sized, Work
from antinfer.worker.pipeline.assembler import BatchLimits
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.schemas import SchemaGate

ROWS, STEP = 100, 10


class Lines:
    """A source of `ROWS` rows; `between` is called before each batch with its first row."""

    def __init__(self, between: Callable[[int], None]) -> None:
        self._between = between

    def read(self, shard: Shard, start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
        for at in range(start, min(stop, ROWS), STEP):
            self._between(at)
            yield pa.record_batch({"x": np.arange(at, min(at + STEP, stop, ROWS))})


def plan() -> OutputPlan:
    return OutputPlan(
        open_place("unused"), "parquet", {}, (), (), row_ids=False, accumulators=AccumulatorSet({}), gate=SchemaGate(""), worker="", code=""
    )


def read(work: Work, between: Callable[[Leases, int], None] = lambda *_: None, source: object = None, step: int = 1) -> list[Any]:
    """Let one reader read one lease; return what the host said."""
    said: list[Any] = []
    credits = Credits(1 << 30)
    leases = Leases(credits, said.append, 3600.0)
    leases.start(work)
    run = leases.next_to_read()
    assert run is not None
    made: Any = source or Lines(lambda at: between(leases, at))
    Reader(made, plan(), Flow([], leases.collect), leases, credits, step)._read(run)
    return said


def work(rows: Rows, known: int | None) -> Work:
    return Work(LeaseId(1, 1), Shard(ShardId(0), (Piece("input", 0, 0, known),), known, 1), rows)


def test_the_size_is_told_when_the_end_was_met() -> None:
    assert read(work(Rows(0, UNSIZED), None)) == [Sized(LeaseId(1, 1), ROWS)]


def test_a_cut_is_not_taken_for_the_end_of_the_shard() -> None:
    def between(leases: Leases, at: int) -> None:
        if at == 5 * STEP:
            leases.cut(LeaseId(1, 1), Rows(0, 5 * STEP - 5))

    assert read(work(Rows(0, UNSIZED), None), between) == []


def test_a_shard_that_ends_early_is_told() -> None:
    with pytest.raises(ChangedError, match="ends at row 100"):
        read(work(Rows(0, 120), 120))


class Packed:
    """A source of rows that take next to nothing in their file; `asked` tells from which row and in what chunks they were read."""

    def __init__(self, row_bytes: Callable[[int], int]) -> None:
        self._row_bytes = row_bytes
        self.asked: list[tuple[int, int]] = []

    def read(self, shard: Shard, start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
        self.asked.append((start, batch_rows))
        for at in range(start, stop, batch_rows):
            yield pa.record_batch({"x": pa.array([bytes(self._row_bytes(at))] * min(batch_rows, stop - at))})


@pytest.mark.parametrize(
    ("row_bytes", "rows", "asked"),
    [
        (lambda at: 100 << 10, 3000, [(0, 1024), (1024, 163)]),
        (lambda at: 96, 300_000, [(0, 1024), (1024, 1 << 16)]),
        (lambda at: 16 << 10, 3000, [(0, 1024)]),
        (lambda at: 80 << 20, 2, [(0, 1024)]),
        (lambda at: 16 << 10 if at < 2048 else 160 << 10, 4000, [(0, 1024), (3072, 102)]),
    ],
    ids=["large", "small", "fitting", "huge", "growing"],
)
def test_chunks_are_cut_by_the_size_of_rows_in_memory(row_bytes: Callable[[int], int], rows: int, asked: list[tuple[int, int]]) -> None:
    source = Packed(row_bytes)
    read(work(Rows(0, rows), rows), source=source)
    assert source.asked == asked


@pytest.mark.parametrize(("step", "chunk"), [(128, 128), (256, 256), (512, 512), (1024, 163)])
def test_chunks_are_as_large_as_a_batch_while_that_is_not_too_much(step: int, chunk: int) -> None:
    """Of rows of 100 KiB a chunk has 163, which were put together again for every larger batch."""
    source = Packed(lambda at: 100 << 10)
    read(work(Rows(0, 3000), 3000), source=source, step=step)
    assert source.asked == [(0, 1024), (1024, chunk)]


class Watched(Credits):
    """Credits that tell when a reader has come to its limit."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.waits = threading.Semaphore(0)

    def take(self, size_bytes: int, unwanted: Callable[[], bool], timeout: float | None = None) -> bool:
        self.waits.release()
        return super().take(size_bytes, unwanted, timeout)


GROUP_ROWS, GROUPS = 1024, 8


@pytest.mark.parametrize(("groups", "more", "ahead"), [(1, 0, 1), (5, 0, 5), (6, -1, 5), (0, 1, 1)])
def test_a_reader_reads_ahead_as_far_as_its_credits_reach(tmp_path: Path, groups: int, more: int, ahead: int) -> None:
    """Of a real file, while nobody takes anything out of the pipeline. The limit is the size of so many row groups and some bytes more."""
    # Rows so large that one group is one chunk.
    pq.write_table(pa.table({"x": [bytes(9 << 10)] * GROUP_ROWS * GROUPS}), tmp_path / "0.parquet", row_group_size=GROUP_ROWS)
    source = open_source("parquet", str(tmp_path))
    (file,) = source.list_files()
    source.freeze([file])
    (piece,) = (each.piece for each in source.pieces(file, Target(1 << 30, None)))
    shard = Shard(ShardId(0), (piece,), piece.rows, 1)
    sizes = {batch.nbytes for batch in source.read(shard, 0, GROUP_ROWS * GROUPS, GROUP_ROWS)}
    assert len(sizes) == 1
    size = sizes.pop()
    credits = Watched(groups * size + more)
    leases = Leases(credits, lambda message: None, 3600.0)
    flow = Flow([Call(StageCall("s", "map_batches", "m:f", ""), BatchLimits(GROUP_ROWS), 1, in_processes=False)], leases.collect)
    leases.start(Work(LeaseId(1, 1), shard, Rows(0, GROUP_ROWS * GROUPS)))
    thread = threading.Thread(target=Reader(source, plan(), flow, leases, credits, 1).run, daemon=True)
    thread.start()
    try:
        for returned in range(3):
            # What leaves the pipeline is followed by as much again, and no more.
            assert credits.waits.acquire(timeout=30), "it does not come to the limit"
            assert flow.statistics()[0].queue_rows == (ahead + returned) * GROUP_ROWS
            credits.give_back(size)
    finally:
        leases.stop()
        thread.join(30)
    assert not thread.is_alive()
