"""What is at the ends of the pipeline: readers, accumulators and writers, each alone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import pyarrow as pa

from antinfer.core.plan import Shard
from antinfer.core.ranges import UNSIZED
from antinfer.metrics import AccumulatorSet
from antinfer.spec.schema import JobSpec
from antinfer.storage import sinks
from antinfer.storage.jobs import part_options
from antinfer.storage.limits import PART_BYTES
from antinfer.storage.sources.base import Source
from antinfer.worker.profiling.bench import Tally
from antinfer.worker.profiling.gauges import cpu_seconds

_CHUNK_ROWS = 1 << 16
_CHUNK_BYTES = 16 << 20

Work = Callable[[float], tuple[int, int]]
"""Works until a monotonic time, but does at least something; returns the rows and the bytes that it has made."""


def read(source: Source, shards: Sequence[Shard], row_bytes: float, readers: int, seconds: float) -> Tally:
    """Read `shards` over and over, each thread its own ones, as far ahead as there is time."""
    chunk = max(1, min(_CHUNK_ROWS, int(_CHUNK_BYTES / max(1.0, row_bytes))))

    def reader(number: int) -> Work:
        def work(until: float) -> tuple[int, int]:
            rows, size = 0, 0
            while True:
                for shard in shards[number % len(shards) :: readers]:
                    for batch in source.read(shard, 0, UNSIZED if shard.rows is None else shard.rows, chunk):
                        rows += batch.num_rows
                        size += batch.nbytes
                        if time.monotonic() >= until:
                            return rows, size
                if time.monotonic() >= until:
                    return rows, size

        return work

    return _together([reader(number) for number in range(readers)], seconds)


def write(spec: JobSpec, results: Sequence[pa.RecordBatch], folder: Path, writers: int, seconds: float) -> Tally:
    """Write `results` over and over into files below `folder`, which are removed again. Bytes out are those of the files."""

    def writer(number: int) -> Work:
        def work(until: float) -> tuple[int, int]:
            rows, size = 0, 0
            batches = cycle(results)
            while not rows or time.monotonic() < until:
                path = folder / f"part-{number}"
                part = sinks.open_writer(spec.sink.type, os.fspath(path), results[0].schema, part_options(spec))
                try:
                    while part.size_bytes + part.buffered_bytes < PART_BYTES:
                        part.write(next(batches))
                        if time.monotonic() >= until:
                            break
                    size += part.close()
                    rows += part.rows
                finally:
                    path.unlink(missing_ok=True)
            return rows, size

        return work

    return _together([writer(number) for number in range(writers)], seconds)


def accumulate(accumulators: AccumulatorSet, results: Sequence[pa.RecordBatch], seconds: float) -> Tally:
    """Update `accumulators` with `results` over and over."""
    # The first time it imports what it computes with.
    accumulators.fresh().update_arrow(results[0])

    def work(until: float) -> tuple[int, int]:
        rows = 0
        own = accumulators.fresh()
        for batch in cycle(results):
            own.update_arrow(batch)
            rows += batch.num_rows
            if time.monotonic() >= until:
                break
        return rows, 0

    return _together([work], seconds)


def _together(work: Sequence[Work], seconds: float) -> Tally:
    """Do all of `work` at once, each in a thread. Raises what one of them raised."""
    done: list[tuple[int, int, float]] = []
    errors: list[BaseException] = []
    cpu, began = cpu_seconds(), time.monotonic()

    def run(each: Work) -> None:
        try:
            rows, size = each(began + seconds)
            done.append((rows, size, time.monotonic() - began))
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits for it
            errors.append(error)

    threads = [threading.Thread(target=run, args=(each,), daemon=True) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return Tally(
        rows=sum(rows for rows, _, _ in done),
        rows_per_second=sum(rows / spent for rows, _, spent in done),
        cpu_seconds=cpu_seconds() - cpu,
        bytes_out=sum(size for _, size, _ in done),
    )
