"""Readers: threads that read leases in order, as far ahead as the credits reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from antinfer import faultpoints
from antinfer.core.plan import Shard
from antinfer.core.ranges import UNSIZED
from antinfer.errors import AntinferError, ChangedError, InfraError
from antinfer.storage.sources.base import Source
from antinfer.storage.sources.common import reading
from antinfer.worker.host import failing
from antinfer.worker.host.credits import Credits
from antinfer.worker.host.flow import Flow
from antinfer.worker.host.leases import Leases
from antinfer.worker.host.parts import OutputPlan
from antinfer.worker.host.patience import Patience
from antinfer.worker.host.runs import Chunk, Run
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.frames import reach
from antinfer.worker.pipeline.pieces import BadRow, Piece, take

_CHUNK_ROWS = 1 << 16
_CHUNK_BYTES = 16 << 20
_MOST_CHUNK_BYTES = 4 * _CHUNK_BYTES
_UNSIZED_CHUNK_ROWS = 1 << 13
_STARVING_SECONDS = 0.05
"""So long nothing must have moved before a reader looks whether rows wait for those that it has no credit for."""
_FIRST_CHUNK_ROWS = 1 << 10
"""Nobody knows yet how large rows are in memory: what compresses well is far larger there than in its file."""


class Reader:
    """One reader; `run` is its thread."""

    def __init__(self, source: Source, plan: OutputPlan, flow: Flow, leases: Leases, credits: Credits, step: int) -> None:
        """`step`: rows of a batch of the first stage; chunks are multiples of it, so that cutting them up copies nothing."""
        self._source = source
        self._plan = plan
        self._flow = flow
        self._leases = leases
        self._credits = credits
        self._step = step
        self._frames = graph.root_frames(flow.nodes)
        self._row_bytes: float | None = None
        """Size in memory of the rows read last; None before the first."""

    def run(self) -> None:
        """Read until the leases are stopped. Raises what is no lease's fault alone."""
        while (run := self._leases.next_to_read()) is not None:
            try:
                self._read(run)
            except AntinferError as error:
                if not failing.is_passing(error):
                    raise
                self._leases.fail(run, lambda lease, why=error: failing.failed(lease, why))  # type: ignore[misc]

    def _read(self, run: Run) -> None:
        unsized = not run.sized
        start, stop = self._reach(run)
        offset = start
        batches = self._open(run, start, stop, unsized=unsized)
        patience = Patience(f"reading shard {run.shard.index}", lambda: self._unwanted(run))
        ended = False
        while not self._unwanted(run) and offset < self._reach(run)[1]:
            try:
                with self._flow.reading():
                    batch = next(batches, None)
                    if batch is None:
                        ended = True
                        break
                    taken = self._credits.try_take(batch.nbytes)
                    if taken:
                        self._put(run, offset, batch)
            except InfraError as error:
                if not patience.outlasts(error):
                    raise
                # From the very row on that it had come to.
                batches = self._open(run, offset, stop, unsized=unsized)
                continue
            patience.end()
            if not taken:
                if not self._wait_for_credit(run, batch.nbytes):
                    return
                self._put(run, offset, batch)
            offset += batch.num_rows
            if run.shard.rows is not None and offset < stop and self._is_misfit(batch):
                batches = self._open(run, offset, stop, unsized=False)
        if ended and self._frames:
            self._flow.end(run, offset)
        if self._unwanted(run):
            return
        if unsized and ended:
            end = offset if offset > start or not start else self._source.count_rows(run.shard)
            self._leases.size(run, end)
        elif ended and offset < run.stop:
            path = run.shard.pieces[0].path
            raise ChangedError(
                f"{path} ends at row {offset} of shard {run.shard.index}; the plan knew {run.shard.rows} rows",
                hint="The input changed since the job was planned: restore it, or write to another output.",
            )

    def _open(self, run: Run, start: int, stop: int, *, unsized: bool) -> Iterator[pa.RecordBatch]:
        batches = _touched(self._source.read(run.shard, start, stop, self._chunk_rows(run.shard)), run.shard)
        return _look_ahead(batches) if unsized else batches

    def _reach(self, run: Run) -> tuple[int, int]:
        """Return which rows to read for the lease as it is now: more than its own where batches are cut at fixed places."""
        if not self._frames or run.quarantine:
            return run.start, run.stop
        start, stop = reach(run.start, run.stop, self._frames)
        known = run.end if run.sized else UNSIZED
        return start, stop if known is None else min(stop, known)

    def _wait_for_credit(self, run: Run, size_bytes: int) -> bool:
        """Wait until `size_bytes` may be held; false when the lease does not want them any more."""
        if not self._frames:
            return self._credits.take(size_bytes, lambda: self._unwanted(run))
        while not self._unwanted(run):
            if self._credits.take(size_bytes, lambda: self._unwanted(run), _STARVING_SECONDS):
                return True
            if self._flow.is_starving() and self._leases.is_idle():
                # The rows that hold the credit wait for these.
                self._credits.overdraw(size_bytes)
                return True
        return False

    def _chunk_rows(self, shard: Shard) -> int:
        """Return how many rows of `shard` to read at once: by their size, and a multiple of the first stage's batches where that fits."""
        if shard.rows is None:
            rows = _UNSIZED_CHUNK_ROWS
        elif self._row_bytes is None:
            rows = max(_FIRST_CHUNK_ROWS, self._step)
        else:
            rows = max(1, min(_CHUNK_ROWS, int(_CHUNK_BYTES / max(1.0, self._row_bytes))))
            if rows < self._step and self._step * self._row_bytes <= _MOST_CHUNK_BYTES:
                # A batch is held in any case; put together from several chunks it would be copied once more.
                rows = self._step
        return rows - rows % self._step if rows > self._step else rows

    def _is_misfit(self, batch: pa.RecordBatch) -> bool:
        """Take note of how large rows are; tell whether it pays to read those that follow in other chunks."""
        was_first = self._row_bytes is None
        # What a dictionary takes is no matter of the number of rows.
        columns = [column.indices if pa.types.is_dictionary(column.type) else column for column in batch.columns]
        size: int = sum(column.nbytes for column in columns)
        self._row_bytes = size / batch.num_rows
        return (was_first and 2 * size < _CHUNK_BYTES) or (size > _MOST_CHUNK_BYTES and batch.num_rows > 1)

    def _put(self, run: Run, offset: int, batch: pa.RecordBatch) -> None:
        faultpoints.hit("host.read", shard=run.shard.index, lease=run.lease)
        stop = offset + batch.num_rows
        if not self._leases.add_chunk(run, Chunk(offset, stop, batch.nbytes, self._plan.bypass(batch))):
            return
        retried = run.retried(offset, stop)
        if run.quarantine:
            rows = range(offset, stop) if retried is None else retried.tolist()
            run.bad.update(dict.fromkeys(rows, BadRow(run.quarantine)))
            self._leases.collect(Piece(run, offset, stop, None))
        elif retried is None:
            self._flow.put(Piece(run, offset, stop, batch))
        else:
            self._flow.put(Piece(run, offset, stop, take(batch, retried - offset), retried))

    @staticmethod
    def _unwanted(run: Run) -> bool:
        return run.dropped or run.ending is not None


def _touched(batches: Iterable[pa.RecordBatch], shard: Shard) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        with reading(shard.pieces[0].path):
            faultpoints.hit("storage.source", shard=shard.index)
        yield batch


def _look_ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield each batch only once it is known whether another one follows.

    So the size of a shard is known by the time its last rows are let into the pipeline, and cannot be outrun by their commit.
    """
    held: pa.RecordBatch | None = None
    for batch in batches:
        if held is not None:
            yield held
        held = batch
    if held is not None:
        yield held
