"""Arrow IPC: the file format (also called Feather) by record batches, the stream format as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa

from antinfer.core.plan import Piece
from antinfer.errors import SourceError
from antinfer.storage.sources import schemas
from antinfer.storage.sources.base import InputFile, SizedPiece, Target
from antinfer.storage.sources.common import FileSource, Rows, conform, damaged, pack, reading

_FILE_MAGIC: Final = b"ARROW1"
_SEEK_START: Final = 0


class ArrowSource(FileSource):
    """A piece is a run of record batches of a file, or a whole stream, whose row count only reading it tells."""

    type_name = "arrow"
    opens_to_plan = True

    def schema(self, file: InputFile) -> pa.Schema:
        if file.size_bytes == 0:
            raise damaged(file.path, "the file is empty, so it is not an Arrow IPC file")
        with self._opened(file.path) as (reader, _):
            return schemas.prune(reader.schema, self._spec.columns, file.path)

    def pieces(self, file: InputFile, target: Target) -> list[SizedPiece]:
        self._check_schema(file.path, self.schema(file))
        with self._opened(file.path) as (reader, is_stream):
            if is_stream:
                return [SizedPiece(Piece(file.path, 0, 0, None), file.size_bytes)]
            leanest = _leanest_column(reader.schema)
        # One narrow column: the reader then fetches little more than each batch's header, which holds the row count.
        with self._opened(file.path, leanest) as (reader, _), reading(file.path):
            rows = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
        total = sum(rows)
        sizes = [file.size_bytes * count // total if total else 0 for count in rows]
        return pack(file.path, rows, sizes, target)

    def _piece_rows(self, piece: Piece, skip: int, batch_rows: int) -> Rows:
        schema = self._frozen
        with self._opened(piece.path) as (reader, is_stream):
            present = schemas.prune(reader.schema, self._spec.columns, piece.path)
            self._check_schema(piece.path, present)
            names = reader.schema.names
            if schema is None:
                schema = schemas.frozen(present)
        wanted = [] if len(schema.names) == len(names) else sorted(names.index(name) for name in schema.names)
        with self._opened(piece.path, wanted) as (reader, is_stream), reading(piece.path):
            if not is_stream and piece.stop > reader.num_record_batches:
                why = f"it has {reader.num_record_batches} record batches, the plan knows {piece.stop}"
                raise damaged(piece.path, why, "The file changed since.")
            batches = reader if is_stream else (reader.get_batch(i) for i in range(piece.start, piece.stop))
            for batch in batches:
                if batch.num_rows <= skip:
                    skip -= batch.num_rows
                    continue
                for start in range(skip, batch.num_rows, batch_rows):
                    yield conform(batch.slice(start, batch_rows), schema)
                skip = 0
        return skip

    @contextmanager
    def _opened(self, path: str, columns: list[int] | None = None) -> Iterator[tuple[Any, bool]]:
        """Open a reader for the columns at these places (None or empty: all), and tell whether it is one of a stream."""
        options = pa.ipc.IpcReadOptions(included_fields=columns or [])
        with reading(path):
            file = self.open_random(path)
        with file:
            try:
                with reading(path):
                    is_stream = file.read(len(_FILE_MAGIC)) != _FILE_MAGIC
                    file.seek(_SEEK_START)
                    reader = pa.ipc.open_stream(file, options=options) if is_stream else pa.ipc.open_file(file, options=options)
            except SourceError as cause:
                hint = "It may be truncated or of another format; a pattern such as folder/*.arrow leaves other files out."
                raise SourceError(str(cause), hint=hint) from cause.__cause__
            with reader:
                yield reader, is_stream


def _leanest_column(schema: pa.Schema) -> list[int]:
    widths = [(field.type.bit_width, i) for i, field in enumerate(schema) if pa.types.is_primitive(field.type)]
    return [min(widths)[1]] if widths else [0][: len(schema)]
