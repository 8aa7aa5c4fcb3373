"""What all formats share: listing, the frozen schema, and reading a shard piece by piece."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import pyarrow as pa

from antinfer.core.ids import ShardId
from antinfer.core.plan import Piece, Shard
from antinfer.errors import JobFileError, SourceError
from antinfer.storage import filesystems
from antinfer.storage.filesystems import Location
from antinfer.storage.sources import listing, schemas
from antinfer.storage.sources.base import InputFile, SizedPiece, Target
from antinfer.storage.sources.cursors import Cursor, ParkedCursors

STORAGE_OPTION: Final = "storage"
"""Source option that holds the options of the file system."""

FLAT_STORAGE_OPTIONS: Final = ("endpoint_url", "endpoint_override", "region", "access_key", "secret_key", "session_token", "anonymous")
"""Those that may also stand among the source's own options, as they do in a sink."""

PARKED_CURSORS: Final = 4
"""Reads that wait in the middle of a shard, per source; each holds up to one row group or block."""

Rows = Generator[pa.RecordBatch, None, int]
"""Yields batches of a piece after skipping rows; returns how many rows are still to skip when the piece held too few."""


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """What a source is opened from."""

    paths: tuple[str, ...]
    columns: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    frozen_schema: pa.Schema | None = None


@contextmanager
def reading(path: str, where: str = "") -> Iterator[None]:
    """Turn exceptions of pyarrow and the file system into ours, naming `path` and the place in it."""
    try:
        yield
    except (OSError, EOFError, pa.ArrowException) as cause:
        raise filesystems.explain(cause, f"{path} ({where})" if where else path, "read") from cause


class FileSource(ABC):
    """Base of all sources; see `antinfer.storage.sources.base.Source`."""

    type_name: ClassVar[str]
    allowed_options: ClassVar[tuple[str, ...]] = ()
    opens_to_plan: ClassVar[bool] = False

    def __init__(self, spec: SourceSpec) -> None:
        allowed = (*self.allowed_options, STORAGE_OPTION)
        for key in spec.options:
            if key not in allowed and key not in FLAT_STORAGE_OPTIONS:
                raise JobFileError(f"source.{key} is not known for type {self.type_name!r}", hint=f"Allowed: {', '.join(allowed)}.")
        if spec.columns is not None and (not spec.columns or schemas.duplicates(spec.columns)):
            raise JobFileError("source.columns must name at least one column, each once")
        self._spec = spec
        self._storage = {key: spec.options[key] for key in FLAT_STORAGE_OPTIONS if key in spec.options}
        self._storage.update(option(spec.options, STORAGE_OPTION, dict, {}))
        self._lock = threading.Lock()
        self._frozen = spec.frozen_schema
        self._locations: dict[str, Location] = {}
        self._parked = ParkedCursors(PARKED_CURSORS)

    @property
    def frozen_schema(self) -> pa.Schema | None:
        return self._frozen

    # -- planning --------------------------------------------------------------------------------------------------------------------
    def list_files(self) -> list[InputFile]:
        return listing.list_inputs(self._spec.paths, self.locate)

    def freeze(self, files: Sequence[InputFile]) -> pa.Schema:
        with self._lock:
            if self._frozen is None:
                self._frozen = schemas.frozen(self._first_schema(files))
            return self._frozen

    def _first_schema(self, files: Sequence[InputFile]) -> pa.Schema:
        first: pa.Schema | None = None
        for file in files:
            if file.size_bytes > 0:
                found = self.schema(file)
                if self._has_rows(file):
                    return found
                first = found if first is None or not first.names else first
        return self._empty_schema() if first is None else first

    def _has_rows(self, file: InputFile) -> bool:
        """Whether the schema of `file` can be trusted; types inferred from nothing cannot."""
        return True

    @abstractmethod
    def schema(self, file: InputFile) -> pa.Schema: ...

    @abstractmethod
    def pieces(self, file: InputFile, target: Target) -> list[SizedPiece]: ...

    def _empty_schema(self) -> pa.Schema:
        """Schema of a data set without any content."""
        return pa.schema([])

    def _check_schema(self, path: str, actual: pa.Schema) -> None:
        """Compare a file's schema with the frozen one, when there is one."""
        if self._frozen is not None:
            schemas.require_same(self._frozen, actual, path)

    # -- reading ---------------------------------------------------------------------------------------------------------------------
    def read(self, shard: Shard, start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
        if start >= stop:
            return
        cursor = self._parked.take(shard, start, batch_rows) or Cursor(self._shard_rows(shard, start, batch_rows), start)
        while cursor.position < stop:
            batch = cursor.take(stop - cursor.position)
            if batch is None:
                return
            yield batch
        if shard.rows is None or cursor.position < shard.rows:
            self._parked.park(shard, batch_rows, cursor)
        else:
            cursor.close()

    def count_rows(self, shard: Shard) -> int:
        return sum(self._count_piece(piece) if piece.rows is None else piece.rows for piece in shard.pieces)

    def _shard_rows(self, shard: Shard, skip: int, batch_rows: int) -> Generator[pa.RecordBatch, None, None]:
        for piece in shard.pieces:
            if piece.rows is not None and piece.rows <= skip:
                skip -= piece.rows
                continue
            skip = yield from self._piece_rows(piece, skip, batch_rows)

    @abstractmethod
    def _piece_rows(self, piece: Piece, skip: int, batch_rows: int) -> Rows:
        """Yield the rows of `piece` from row `skip` on; return what is left of `skip`."""

    def _count_piece(self, piece: Piece) -> int:
        """Count the rows of a piece whose size the plan does not know."""
        total = 0
        for batch in self._shard_rows(Shard(index=ShardId(0), pieces=(piece,), rows=None, size_bytes=0), 0, _COUNT_BATCH_ROWS):
            total += batch.num_rows
        return total

    # -- files -----------------------------------------------------------------------------------------------------------------------
    def locate(self, path: str) -> Location:
        """Return where `path` lies; the file system is opened once per place."""
        scheme, rest = filesystems.split_uri(path)
        place = scheme if scheme == "file" else f"{scheme}://{rest.partition('/')[0]}"
        known = self._locations.get(place)
        if known is None:
            known = self._locations[place] = filesystems.locate(path, self._storage)
            return known
        uri = filesystems.canonical_uri(path)
        return Location(known.filesystem, uri.removeprefix(known.prefix), known.prefix)

    def open_random(self, path: str) -> Any:
        """Open a file for reading at any place; a pyarrow file. Foreign exceptions pass: call it inside `reading`."""
        location = self.locate(path)
        return location.filesystem.open_input_file(location.path)

    def open_stream(self, path: str, compression: str | None) -> Any:
        """Open a file for reading from its start, decompressed."""
        location = self.locate(path)
        return location.filesystem.open_input_stream(location.path, compression=compression)


_COUNT_BATCH_ROWS: Final = 65_536


def option(options: Mapping[str, Any], key: str, kind: type | tuple[type, ...], default: Any) -> Any:
    """Return option `key`, checked for its type. Raises `JobFileError` naming the field."""
    value = options.get(key, default)
    if value is not default and not isinstance(value, kind):
        names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise JobFileError(f"source.{key}: expected {names}, got {value!r}")
    return value


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the columns of `schema` in its order, with its fields; `schemas.require_same` holds."""
    columns = [batch.column(name) for name in schema.names]
    typed = [
        pa.nulls(batch.num_rows, field.type) if column.type != field.type else column for field, column in zip(schema, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(typed, schema=schema)


def pack(path: str, rows: Sequence[int], sizes: Sequence[int], target: Target) -> list[SizedPiece]:
    """Put neighbouring units of a file (row groups, record batches) together to pieces up to `target`; pieces without rows are left out."""
    pieces: list[SizedPiece] = []
    start, held_rows, held_bytes = 0, 0, 0
    for i, (count, size) in enumerate(zip(rows, sizes, strict=True)):
        full = held_bytes + size > target.size_bytes or (target.rows is not None and held_rows + count > target.rows)
        if held_rows and full:
            pieces.append(SizedPiece(Piece(path, start, i, held_rows), held_bytes))
            start, held_rows, held_bytes = i, 0, 0
        held_rows += count
        held_bytes += size
    if held_rows:
        pieces.append(SizedPiece(Piece(path, start, len(rows), held_rows), held_bytes))
    return pieces


def damaged(path: str, why: str, hint: str = "") -> SourceError:
    """Return the error for a file that is not what it should be."""
    return SourceError(f"{path}: {why}", hint=hint)
