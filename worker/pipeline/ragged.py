"""Columns whose rows are arrays of different shapes: ``struct<data: large_list<T>, shape: fixed_size_list<int32, dimensions>>``.

A plain struct, known by its fields, so that every reader of Arrow and Parquet can read what is written. Arrays of one dimension are lists,
and need none of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from antinfer.worker.pipeline import arrays


class MixedError(ValueError):
    """The rows of a column are not arrays of one kind. The message goes on behind the name of the column."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def is_ragged(kind: pa.DataType) -> bool:
    """Tell whether columns of `kind` hold arrays of different shapes, two dimensions or more."""
    if not pa.types.is_struct(kind) or [field.name for field in kind] != ["data", "shape"]:
        return False
    data, shape = kind[0].type, kind[1].type
    is_list = pa.types.is_list(data) or pa.types.is_large_list(data)
    return is_list and pa.types.is_fixed_size_list(shape) and bool(shape.value_type == pa.int32() and shape.list_size > 1)


def common(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds arrays of both types, of which one at least is a tensor; None when there is none."""
    loose = _loose(one)
    return loose if loose is not None and loose == _loose(other) else None


def describe(kind: pa.DataType) -> str:
    """Return what a column of `kind` holds, in words where Arrow's own name of it tells too little."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return f"arrays of shape {tuple(kind.shape)} of {kind.value_type}"
    return f"arrays of any shape with {kind[1].type.list_size} dimensions of {kind[0].type.value_type}" if is_ragged(kind) else str(kind)


def pack(rows: Sequence[Any]) -> pa.Array:
    """Copy arrays of the same dtype and number of dimensions, two or more, into a column; None is null. Raises MixedError for others."""
    first_at, first = next((at, row) for at, row in enumerate(rows) if row is not None)
    for at, row in enumerate(rows):
        if row is None:
            continue
        if not isinstance(row, np.ndarray):
            what = f"holds an array in row {first_at} and {type(row).__name__} in row {at}"
            raise MixedError(what, "Make each row an array, np.asarray(row), or None.")
        if row.ndim != first.ndim:
            what = f"holds a {first.ndim}-dimensional array in row {first_at} and a {row.ndim}-dimensional one in row {at}"
            raise MixedError(what, "Shapes may differ, the number of dimensions may not: add one with array[..., None], or drop one.")
        if row.dtype != first.dtype:
            what = f"holds an array of {first.dtype} in row {first_at} and one of {row.dtype} in row {at}"
            raise MixedError(what, "Shapes may differ, the type of the values may not: convert the arrays with .astype.")
    if not arrays.is_plain(first):
        raise MixedError(f"holds arrays of {first.dtype}", "Arrays with several dimensions must hold numbers or booleans; encode others.")
    shapes = np.array([(0,) * first.ndim if row is None else row.shape for row in rows], dtype=np.int32)
    values = arrays.from_plain(np.concatenate([row.reshape(-1) for row in rows if row is not None]))
    return _made(values, shapes, np.array([row is None for row in rows]))


def widen(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a column of tensors as `kind`, which is `common` to its own type and others."""
    if not is_ragged(kind):
        return column.storage.cast(kind)
    absent = arrays.to_plain(column.is_null())
    assert absent is not None
    shapes = np.where(absent[:, None], 0, np.array(column.type.shape, dtype=np.int32)).astype(np.int32)
    return _made(column.storage.flatten(), shapes, absent)


def unpack(column: pa.Array) -> NDArray[Any] | None:
    """Return the arrays of a ragged column: as one array, read-only, where all have the same shape, else as an array of objects.

    None when it holds something else: nulls within an array, or shapes that do not fit the data.
    """
    # Imported here: it takes as long as numpy, and few jobs come by.
    import pyarrow.compute as pc

    present = arrays.to_plain(column.is_valid())
    data, shape = (child.filter(column.is_valid()) if column.null_count else child for child in column.flatten())
    values, flat = arrays.to_plain(data.flatten()), arrays.to_plain(shape.flatten())
    if present is None or values is None or flat is None or data.null_count or shape.null_count:
        return None
    shapes = flat.reshape(len(data), shape.type.list_size)
    lengths = arrays.to_plain(pc.list_value_length(data))
    if lengths is None or (shapes < 0).any() or not np.array_equal(lengths, shapes.prod(axis=1, dtype=np.int64)):
        return None
    if len(column) == len(data) > 0 and bool((shapes == shapes[0]).all()):
        return values.reshape(len(data), *shapes[0])
    # A copy of all at once: user code may change its arrays.
    parts = np.split(arrays.copy(values), np.cumsum(lengths)[:-1]) if len(data) else []
    found = np.empty(len(column), dtype=object)
    for row, part, sides in zip(np.flatnonzero(present), parts, shapes, strict=True):
        found[row] = part.reshape(sides)
    return found


def _kind(value: pa.DataType, dimensions: int) -> pa.DataType:
    return pa.struct([("data", pa.large_list(value)), ("shape", pa.list_(pa.int32(), dimensions))])


def _loose(kind: pa.DataType) -> pa.DataType | None:
    if isinstance(kind, pa.FixedShapeTensorType):
        if kind.permutation is not None:
            return None
        return pa.list_(kind.value_type) if len(kind.shape) == 1 else _kind(kind.value_type, len(kind.shape))
    return kind if pa.types.is_list(kind) or is_ragged(kind) else None


def _made(values: pa.Array, shapes: NDArray[np.int32], absent: NDArray[np.bool_]) -> pa.Array:
    dimensions = shapes.shape[1]
    kind = _kind(values.type, dimensions)
    offsets = arrays.from_plain(np.concatenate(([0], np.cumsum(shapes.prod(axis=1, dtype=np.int64)))))
    data = pa.LargeListArray.from_arrays(offsets, values, type=kind[0].type)
    shape = pa.FixedSizeListArray.from_arrays(arrays.from_plain(shapes.reshape(-1)), type=kind[1].type)
    mask = arrays.from_plain(absent) if absent.any() else None
    return pa.StructArray.from_arrays([data, shape], fields=list(kind), mask=mask)
