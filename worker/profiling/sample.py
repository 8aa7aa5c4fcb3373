"""The sample: the first rows of the input, held in memory, and the first shards for the reader."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from antinfer.core.plan import Shard
from antinfer.core.ranges import UNSIZED
from antinfer.errors import SourceError
from antinfer.spec.schema import JobSpec
from antinfer.storage.jobs import open_input
from antinfer.storage.planning import plan_shards
from antinfer.storage.sources.base import Source
from antinfer.worker.pipeline import unify

ROWS: Final = 4096
"""Rows of a sample whose size the user does not choose."""
_BYTES = 64 << 20
"""Such a sample is not larger than this."""
_CHUNK_ROWS = 256
_SHARDS = 8
"""Shards to read from where the reader is measured, if there are so many."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The beginning of an input."""

    source: Source
    shards: tuple[Shard, ...]
    batch: pa.RecordBatch


def read_sample(spec: JobSpec, rows: int | None) -> Sample:
    """Read the first `rows` rows of the job's input, with None as many as are enough.

    Raises SourceError when there are none, and as a source does.
    """
    source = open_input(spec)
    most = min(rows or ROWS, spec.limit or UNSIZED)
    read: list[pa.RecordBatch] = []
    held, size_bytes = 0, 0
    shards: list[Shard] = []
    with closing(_plan(source, spec)) as planned:
        for shard in planned:
            shards.append(shard)
            missing = most - held
            if missing > 0 and (rows is not None or size_bytes < _BYTES):
                for batch in source.read(shard, 0, missing if shard.rows is None else min(missing, shard.rows), min(missing, _CHUNK_ROWS)):
                    read.append(batch)
                    held += batch.num_rows
                    size_bytes += batch.nbytes
                    if held >= most or (rows is None and size_bytes >= _BYTES):
                        break
            elif len(shards) >= _SHARDS:
                break
    if not held:
        raise SourceError(f"the input {', '.join(spec.source.path)} has no rows", hint="There is nothing to measure with.")
    return Sample(source, tuple(shards), unify.concat(read))


def _plan(source: Source, spec: JobSpec) -> Generator[Shard, None, None]:
    shard = spec.shard
    chunks = plan_shards(
        source,
        source.list_files(),
        target_rows=None if shard.rows == "auto" else shard.rows,
        target_bytes=None if shard.bytes == "auto" else shard.bytes,
        threads=2,
    )
    with closing(chunks):
        for chunk in chunks:
            yield from chunk.shards
