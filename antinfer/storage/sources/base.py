"""What a source is: files that can be listed, planned without a full read, and read from any row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from antinfer.core.plan import Piece, Shard


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file as it was when the plan was made."""

    path: str
    """Full URI or absolute local path."""
    size_bytes: int
    version: str
    """Changes when the content may have changed (modification time in ns, ETag)."""


class Source(Protocol):
    """A data set in one format. Methods block and may be called from several threads.

    All raise `SourceError` naming the file (and the row group, line or byte where known); a file whose schema differs from its siblings
    raises `SchemaMismatchError` naming the first differing column.
    """

    def list_files(self) -> list[InputFile]:
        """List the input, sorted by path: the order of shards. Raises `SourceError` when nothing matches."""
        ...

    def schema(self, file: InputFile) -> pa.Schema:
        """Return the schema that reading `file` yields, after column pruning, without reading its rows.

        Raises `SourceError` when a wanted column is missing, naming the near ones.
        """
        ...

    def pieces(self, file: InputFile, target_bytes: int) -> list[Piece]:
        """Cut `file` into pieces of about `target_bytes`, without reading its rows."""
        ...

    def count_rows(self, shard: Shard) -> int:
        """Count the rows of a shard whose size the plan does not know."""
        ...

    def read(self, shard: Shard, start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows ``[start, stop)`` of `shard` in order, in batches of at most `batch_rows` rows.

        A `stop` beyond the end reads to the end. Skips to `start` as cheaply as the format allows.
        """
        ...
