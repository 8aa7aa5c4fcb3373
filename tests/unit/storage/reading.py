"""What the tests of sources share: planning and reading whole data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from antinfer.core.ids import ShardId
from antinfer.core.plan import Piece, Shard
from antinfer.storage.planning import plan_shards
from antinfer.storage.sources import open_source
from antinfer.storage.sources.base import Source


def opened(kind: str, path: Path | str, columns: Sequence[str] | None = None, **options: Any) -> Source:
    """Open and freeze a source."""
    source = open_source(kind, str(path), columns=columns, options=options)
    source.freeze(source.list_files())
    return source


def shards_of(source: Source, **targets: Any) -> list[Shard]:
    files = source.list_files()
    return [shard for chunk in plan_shards(source, files, threads=2, **targets) for shard in chunk.shards]


def shard_of(*pieces: Piece, index: int = 0) -> Shard:
    rows = None if any(piece.rows is None for piece in pieces) else sum(piece.rows or 0 for piece in pieces)
    return Shard(ShardId(index), pieces, rows, 0)


def rows_of(source: Source, shards: Sequence[Shard], batch_rows: int = 1000) -> list[dict[str, Any]]:
    return [row for shard in shards for row in rows_between(source, shard, 0, 1 << 60, batch_rows)]


def rows_between(source: Source, shard: Shard, start: int, stop: int, batch_rows: int = 1000) -> list[dict[str, Any]]:
    return [row for batch in checked(source, shard, start, stop, batch_rows) for row in batch.to_pylist()]


def checked(source: Source, shard: Shard, start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
    for batch in source.read(shard, start, stop, batch_rows):
        assert 0 < batch.num_rows <= batch_rows
        assert source.frozen_schema is None or batch.schema.equals(source.frozen_schema)
        batch.validate(full=True)
        yield batch


def reopened(
    kind: str, path: Path | str, source: Source, columns: Sequence[str] | None = None, options: Mapping[str, Any] | None = None
) -> Source:
    """Open the same data set as another process would: with the frozen schema alone."""
    return open_source(kind, str(path), columns=columns, options=options, frozen_schema=source.frozen_schema)
