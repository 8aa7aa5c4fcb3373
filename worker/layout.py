"""How a batch lies in shared memory: put together there from its pieces, so that each of their bytes is copied once.

Columns of numbers, of tensors, of text and of bytes that hold no nulls lie there as their plain values, piece behind piece. What is left,
usually little, is put together before and lies behind them as a stream of Arrow's IPC format; so does a batch of one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from antinfer.worker.pipeline import arrays, unify

ALIGNMENT = 64
"""Values of a column begin at multiples of so many bytes."""
_LEAST_BYTES = 128 << 10
"""Pieces of a column that are smaller are put together by Arrow: to copy them twice takes less time than to handle each by itself."""
_MOST_COLUMNS = 64
"""Of more columns it would take too long to find the large ones."""
_OFFSETS = {pa.string(): "int32", pa.binary(): "int32", pa.large_string(): "int64", pa.large_binary(): "int64"}
_VARIABLE = {str(kind): kind for kind in _OFFSETS}


@dataclass(frozen=True, slots=True)
class Column:
    """A column that lies there as its plain values."""

    at: int
    """Its number in the batch."""
    name: str
    kind: str
    """What it consists of: numpy's name of numbers, Arrow's of text or bytes."""
    shape: tuple[int, ...]
    """Rows, and the shape of each where they are tensors."""
    starts: tuple[int, ...]
    """First byte of its values, or of its offsets and of its values."""
    sizes: tuple[int, ...]
    """Bytes of the same."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a batch lies, in bytes from the start of the memory."""

    length: int
    """All that is taken."""
    stream: int | None = 0
    """Start of the stream with all columns that are not in `columns`; None: there are none."""
    columns: tuple[Column, ...] = ()

    def to_json(self) -> list[Any]:
        """Return plain JSON data; `from_json` is its inverse."""
        return [self.length, self.stream, [[each.at, each.name, each.kind, each.shape, each.starts, each.sizes] for each in self.columns]]

    @classmethod
    def from_json(cls, data: list[Any]) -> Self:
        length, stream, columns = data
        return cls(length, stream, tuple(Column(*each[:3], *map(tuple, each[3:])) for each in columns))


@dataclass(frozen=True, slots=True)
class Loose:
    """A column whose pieces are still where they were made."""

    at: int
    name: str
    kind: str
    shape: tuple[int, ...]
    buffers: tuple[Sequence[NDArray[Any]], ...]
    """The pieces of each of its buffers."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(sum(piece.nbytes for piece in pieces) for pieces in self.buffers)


@dataclass(frozen=True, slots=True)
class Divided:
    """The pieces of a batch by how they are written."""

    columns: tuple[Loose, ...]
    rest: pa.RecordBatch | None
    """All other columns, in one; None when there are none."""

    @property
    def nbytes(self) -> int:
        """Bytes of the rows themselves."""
        return sum(size for column in self.columns for size in column.sizes) + (0 if self.rest is None else int(self.rest.nbytes))

    @property
    def columns_bytes(self) -> int:
        """At most so many bytes `columns` take where they are written."""
        return sum(size + ALIGNMENT for column in self.columns for size in column.sizes)


def divide(parts: Sequence[pa.RecordBatch]) -> Divided:
    """Say how the batch that consists of `parts` is to be written."""
    schema = parts[0].schema
    columns = _large_columns(schema, parts)
    if not columns:
        return Divided((), unify.concat(parts))
    taken = {column.at for column in columns}
    left = [at for at in range(len(schema)) if at not in taken]
    return Divided(tuple(columns), unify.concat([part.select(left) for part in parts]) if left else None)


def read(memory: pa.Buffer, layout: Layout) -> pa.RecordBatch:
    """Return the batch that lies in `memory`, without a copy."""
    fields: list[pa.Field] = []
    columns: list[pa.Array] = []
    if layout.stream is not None:
        with pa.ipc.open_stream(memory.slice(layout.stream, layout.length - layout.stream)) as stream:
            batch = stream.read_next_batch()
        if not layout.columns:
            return batch
        fields, columns = list(batch.schema), batch.columns
    for column in layout.columns:
        columns.insert(column.at, _array(memory, column))
        fields.insert(column.at, pa.field(column.name, columns[column.at].type))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _large_columns(schema: pa.Schema, parts: Sequence[pa.RecordBatch]) -> list[Loose]:
    rows = sum(part.num_rows for part in parts)
    if len(parts) == 1 or not rows or len(schema) > _MOST_COLUMNS or schema.metadata:
        return []
    largest = max(parts, key=lambda part: part.num_rows)
    mean = rows / largest.num_rows / len(parts)
    if mean * largest.get_total_buffer_size() < _LEAST_BYTES:
        return []
    large = [at for at, column in enumerate(largest.columns) if mean * column.nbytes >= _LEAST_BYTES]
    if not large or not all(part.schema.equals(schema, check_metadata=True) for part in parts[1:]):
        return []
    return [loose for at in large if (loose := _loose(at, schema.field(at), [part.column(at) for part in parts])) is not None]


def _loose(at: int, field: pa.Field, pieces: list[pa.Array]) -> Loose | None:
    """Return a column that can be written as its plain values; None when it cannot."""
    if not field.nullable or field.metadata or any(piece.null_count for piece in pieces):
        return None
    rows = sum(map(len, pieces))
    kind = field.type
    if kind in _OFFSETS:
        return _variable(at, field, pieces, rows)
    is_tensor = isinstance(kind, pa.FixedShapeTensorType)
    if is_tensor and not (kind.shape and kind.equals(pa.fixed_shape_tensor(kind.value_type, kind.shape))):
        return None
    if pa.types.is_boolean(kind.value_type if is_tensor else kind):
        # Eight to a byte, wherever a piece begins.
        return None
    values = [arrays.to_plain(piece.storage.flatten() if is_tensor else piece) for piece in pieces]
    known = [each for each in values if each is not None]
    if len(known) < len(values):
        return None
    shape = (rows, *kind.shape) if is_tensor else (rows,)
    return Loose(at, field.name, known[0].dtype.name, shape, (known,))


def _variable(at: int, field: pa.Field, pieces: list[pa.Array], rows: int) -> Loose | None:
    dtype = np.dtype(_OFFSETS[field.type])
    starts, values = [np.zeros(1, dtype)], []
    end = 0
    for piece in pieces:
        _, offsets, data = piece.buffers()
        own = np.frombuffer(offsets, dtype=dtype, count=piece.offset + len(piece) + 1)[piece.offset :]
        first, last = int(own[0]), int(own[-1])
        if end + last - first > np.iinfo(dtype).max:
            return None
        starts.append(own[1:] + dtype.type(end - first))
        if last > first:
            values.append(np.frombuffer(data, dtype=np.uint8)[first:last])
        end += last - first
    return Loose(at, field.name, str(field.type), (rows,), (starts, values))


def _array(memory: pa.Buffer, column: Column) -> pa.Array:
    buffers = [memory.slice(start, size) for start, size in zip(column.starts, column.sizes, strict=True)]
    if (kind := _VARIABLE.get(column.kind)) is not None:
        return pa.Array.from_buffers(kind, column.shape[0], [None, *buffers])
    number = pa.from_numpy_dtype(np.dtype(column.kind))
    values = pa.Array.from_buffers(number, int(np.prod(column.shape, dtype=np.int64)), [None, *buffers])
    return values if len(column.shape) == 1 else arrays.tensors(values, column.shape[1:])
