"""What a source is: files that can be listed, planned without a full read, and read from any row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Changes when the content may have changed (modification time in ns, ETag); empty where the storage knows neither."""


@dataclass(frozen=True, slots=True)
class Target:
    """How large a shard should become; whichever is reached first closes it."""

    size_bytes: int
    rows: int | None
    """None: only bytes count."""


@dataclass(frozen=True, slots=True)
class SizedPiece:
    """A piece and the stored bytes that reading it touches."""

    piece: Piece
    size_bytes: int


class Source(Protocol):
    """A data set in one format. Methods block and may be called from several threads.

    All raise `SourceError` naming the file (and the row group, line or byte where known); a file whose schema differs from its siblings
    raises `SchemaMismatchError` naming the first differing column; trouble of the storage that may pass raises `InfraError`.
    """

    @property
    def opens_to_plan(self) -> bool:
        """Whether `pieces` touches the file; otherwise planning needs nothing but the listing."""
        ...

    @property
    def frozen_schema(self) -> pa.Schema | None:
        """The schema of every batch of every file, None before `freeze`. Stored beside the plan and given to every reader."""
        ...

    def list_files(self) -> list[InputFile]:
        """List the input, sorted by path: the order of shards. Raises `SourceError` when nothing matches."""
        ...

    def freeze(self, files: Sequence[InputFile]) -> pa.Schema:
        """Fix the schema to that of the first of `files` that has one, and return it; what is frozen already stays.

        From then on files with another schema are refused. A data set without any row or header freezes to its declared schema, or to none.
        """
        ...

    def schema(self, file: InputFile) -> pa.Schema:
        """Return the schema that reading `file` alone yields, after column pruning, without reading its rows.

        Raises `SourceError` when a wanted column is missing, naming the near ones.
        """
        ...

    def pieces(self, file: InputFile, target: Target) -> list[SizedPiece]:
        """Cut `file` into pieces of at most about `target`, without reading its rows, and check its schema where that is cheap."""
        ...

    def count_rows(self, shard: Shard) -> int:
        """Count the rows of a shard whose size the plan does not know."""
        ...

    def read(self, shard: Shard, start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows ``[start, stop)`` of `shard` in order, in batches of at most `batch_rows` rows.

        A `stop` beyond the end reads to the end. Skips to `start` as cheaply as the format allows; a read that starts where an earlier
        one of the same shard stopped goes on from there, without decoding anything twice.
        """
        ...
