"""Parquet: row groups, counted and cut by the footer alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from antinfer.core.plan import Piece
from antinfer.errors import SourceError
from antinfer.storage.sources import schemas
from antinfer.storage.sources.base import InputFile, SizedPiece, Target
from antinfer.storage.sources.common import FileSource, Rows, SourceSpec, conform, damaged, pack, reading

FOOTERS_KEPT: Final = 64
"""Parsed footers that stay in memory, so that the tasks of a shard read it once."""

FETCH_BYTES: Final = 32 << 20
"""Small row groups are fetched together up to this size; the bytes are in memory at once."""


class ParquetSource(FileSource):
    """A piece is a run of row groups; only the wanted columns are fetched."""

    type_name = "parquet"
    opens_to_plan = True

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        self._footer = lru_cache(maxsize=FOOTERS_KEPT)(self._read_footer)

    def schema(self, file: InputFile) -> pa.Schema:
        if file.size_bytes == 0:
            raise damaged(file.path, "the file is empty, so it is not a Parquet file")
        with self._opened(file.path) as parquet:
            return schemas.prune(parquet.schema_arrow, self._spec.columns, file.path)

    def pieces(self, file: InputFile, target: Target) -> list[SizedPiece]:
        if file.size_bytes == 0:
            raise damaged(file.path, "the file is empty, so it is not a Parquet file", "Remove it, or give a pattern that leaves it out.")
        # Not through the cache: a plan of thousands of files would wash out the footers that readers use.
        with self._opened(file.path) as parquet:
            self._check_schema(file.path, schemas.prune(parquet.schema_arrow, self._spec.columns, file.path))
            sizes = self._group_sizes(parquet.metadata, file)
            rows = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]
        return pack(file.path, rows, sizes, target)

    def _piece_rows(self, piece: Piece, skip: int, batch_rows: int) -> Rows:
        metadata, present = self._footer(piece.path)
        self._check_schema(piece.path, schemas.prune(present, self._spec.columns, piece.path))
        groups = list(range(piece.start, piece.stop))
        if piece.stop > metadata.num_row_groups:
            raise damaged(piece.path, f"it has {metadata.num_row_groups} row groups, the plan knows {piece.stop}", "It changed since.")
        while groups and metadata.row_group(groups[0]).num_rows <= skip:
            skip -= metadata.row_group(groups.pop(0)).num_rows
        if not groups:
            return skip
        schema = self._frozen or schemas.frozen(schemas.prune(present, self._spec.columns, piece.path))
        with self._opened(piece.path, metadata) as parquet:
            for run in _runs(metadata, groups):
                with reading(piece.path, f"row groups {run[0]}..{run[-1]}"):
                    batches = parquet.iter_batches(batch_size=batch_rows, row_groups=run, columns=schema.names, use_threads=True)
                    for batch in batches:
                        if batch.num_rows <= skip:
                            skip -= batch.num_rows
                            continue
                        yield conform(batch.slice(skip), schema)
                        skip = 0
        return skip

    def _read_footer(self, path: str) -> tuple[Any, pa.Schema]:
        with self._opened(path) as parquet:
            return parquet.metadata, parquet.schema_arrow

    @contextmanager
    def _opened(self, path: str, metadata: Any = None) -> Iterator[Any]:
        with reading(path):
            file = self.open_random(path)
        with file:
            try:
                with reading(path):
                    parquet = pq.ParquetFile(file, metadata=metadata, pre_buffer=True)
            except SourceError as cause:
                hint = "It may be truncated or of another format; a pattern such as folder/*.parquet leaves other files out."
                raise SourceError(str(cause), hint=hint) from cause.__cause__
            yield parquet

    def _group_sizes(self, metadata: Any, file: InputFile) -> list[int]:
        """Return the stored bytes of each row group that reading it touches."""
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        wanted = self._spec.columns
        if wanted is not None:
            names = set(wanted)
            leaves = [i for i in range(metadata.num_columns) if metadata.schema.column(i).path.split(".", 1)[0] in names]
            return [sum(group.column(i).total_compressed_size for i in leaves) for group in groups]
        # Looking into every column of a wide file would cost more than the footer itself; uncompressed sizes give the shares.
        total = sum(group.total_byte_size for group in groups)
        return [file.size_bytes * group.total_byte_size // total if total else 0 for group in groups]


def _runs(metadata: Any, groups: list[int]) -> Iterator[list[int]]:
    """Split row groups into runs that are fetched at once."""
    run: list[int] = []
    held = 0
    for group in groups:
        size = metadata.row_group(group).total_byte_size
        if run and held + size > FETCH_BYTES:
            yield run
            run, held = [], 0
        run.append(group)
        held += size
    if run:
        yield run
