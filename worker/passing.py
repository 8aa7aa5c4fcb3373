"""Columns that user code returns as it got them keep what they were, although the form that it got them in cannot hold it.

In numpy and pandas a null makes whole numbers floats, decimals lose their digits, timestamps their zone, maps their type. What comes back
of such a column would depend on the rows that a batch happens to hold. A column is known again by its memory, not by its values: what was
computed may equal what was given in one batch and not in the next, and its type must be the same in both.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from antinfer.worker import batches
from antinfer.worker.pipeline import arrays, ragged


@dataclass(slots=True)
class _Column:
    column: pa.Array
    kind: pa.DataType
    """What it goes on as: what it becomes where nothing is lost, so that all batches agree."""
    array: NDArray[Any]
    """What user code got. Held, so that no other array can get its memory."""
    fresh: NDArray[Any] | None = None
    """The same again, which user code cannot have changed."""


class Given:
    """The columns of one batch that may not come back as they were given to user code."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._format = ""

    def note(self, batch: pa.RecordBatch, batch_format: str, made: Any) -> None:
        """Remember what user code gets of `batch`: `made`, in `batch_format`."""
        self._format = batch_format
        if batch_format == "arrow":
            return
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            kind = _kept(column, is_frame=batch_format == "pandas")
            if kind is not None and (array := _array(made[name])) is not None:
                self._columns[name] = _Column(column, kind, array)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def column(self, name: str, values: Any, start: int = 0) -> pa.Array | None:
        """Return as an Arrow column what user code returned as `name`, if that is what it was given from row `start` on; otherwise None.

        What it changed in place takes the column's type where it fits: without a null it would have had it all the time.
        """
        given = self._columns.get(name)
        found = None if given is None else _array(values)
        if given is None or found is None or not found.ndim:
            return None
        stop = start + len(found)
        if not _is_same_memory(found, given.array[start:stop]):
            return None
        if given.fresh is None:
            alone = pa.RecordBatch.from_arrays([given.column], names=[name])
            given.fresh = _array(batches.to_format(alone, self._format, writable=False)[name])
        assert given.fresh is not None
        if _are_equal(found, given.fresh[start:stop]):
            column = given.column.slice(start, len(found))
            return column if column.type.equals(given.kind) else _as_kind(column, given.kind)
        return _changed(found, given.fresh[start:stop], given.column.slice(start, len(found)), given.kind)


def _kept(column: pa.Array, *, is_frame: bool) -> pa.DataType | None:
    """Return the type that `column` must go on as; None where nothing is lost on the way to user code and back."""
    kind = column.type
    if arrays.is_number(kind):
        return kind if column.null_count and not pa.types.is_boolean(kind) else None
    if isinstance(kind, pa.FixedShapeTensorType) or (pa.types.is_fixed_size_list(kind) and arrays.is_number(kind.value_type)):
        has_shape = isinstance(kind, pa.FixedShapeTensorType)
        values = (column.storage if has_shape else column).flatten()
        if not column.null_count and not values.null_count:
            return None
        # What such a column becomes without nulls: a tensor, but in data frames a list where it has one dimension.
        if is_frame and not (has_shape and len(kind.shape) > 1):
            return pa.list_(kind.value_type)
        return kind if has_shape else pa.fixed_shape_tensor(kind.value_type, (kind.list_size,))
    if ragged.is_ragged(kind):
        return None
    if pa.types.is_struct(kind):
        return kind if any(_kept(field, is_frame=is_frame) is not None for field in column.flatten()) else None
    if _is_simple(kind):
        return None
    if pa.types.is_list(kind) and not pa.types.is_fixed_size_list(kind.value_type):
        return None if _kept(column.flatten(), is_frame=is_frame) is None else kind
    return kind


_SIMPLE = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
    *(pa.types.is_null, pa.types.is_date32, pa.types.is_duration, pa.types.is_time),
)


@lru_cache(maxsize=256)
def _is_simple(kind: pa.DataType) -> bool:
    """Tell whether values of `kind` come back as they are, nulls included, and always as the same type, though it may be another one."""
    if pa.types.is_timestamp(kind):
        return kind.tz is None
    if pa.types.is_dictionary(kind):
        return _is_simple(kind.value_type)
    return any(is_such(kind) for is_such in _SIMPLE)


def _array(values: Any) -> NDArray[Any] | None:
    """Return `values` as an array over the same memory; None where that is not to be had without a copy."""
    if isinstance(values, np.ndarray):
        return values
    pandas, torch = sys.modules.get("pandas"), sys.modules.get("torch")
    if pandas is not None and isinstance(values, pandas.Series):
        return np.asarray(values.to_numpy()) if isinstance(values.dtype, np.dtype) else None
    if torch is not None and isinstance(values, torch.Tensor) and values.device.type == "cpu":
        return np.asarray(values.detach().numpy())
    return None


def _is_same_memory(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or one.strides != other.strides:
        return False
    return bool(one.__array_interface__["data"][0] == other.__array_interface__["data"][0])


def _are_equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype == object:
        return all(map(_is_equal, one.tolist(), other.tolist()))
    return np.array_equal(one, other, equal_nan=True)


def _is_equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return _are_equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_is_equal, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_equal(value, other[key]) for key, value in one.items())
    return bool(one == other or (one != one and other != other))


def _as_kind(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return fixed-size lists or tensors as the tensors or lists `kind`."""
    if not isinstance(kind, pa.FixedShapeTensorType):
        return (column.storage if isinstance(column, pa.ExtensionArray) else column).cast(kind)
    storage = column if column.type.equals(kind.storage_type) else column.cast(kind.storage_type)
    return pa.ExtensionArray.from_storage(kind, storage)


def _changed(values: NDArray[Any], fresh: NDArray[Any], column: pa.Array, kind: pa.DataType) -> pa.Array | None:
    if pa.types.is_floating(kind):
        # It has this type anyhow, and what is NaN by now need not be a null.
        return None
    same = None
    if pa.types.is_integer(kind) and values.dtype.kind == "f":
        # Large numbers that nobody has touched are not what the floats say that user code got for them.
        same = (values == fresh) | (np.isnan(values) & np.isnan(fresh))
        values = np.where(same, 0, values)
    is_tensor = isinstance(kind, pa.BaseExtensionType)
    try:
        # A copy: user code may hold the array and fill it again.
        made = pa.array(values.copy(), type=kind.storage_type if is_tensor else kind, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, OverflowError, TypeError):
        return None
    made = made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made
    if same is not None:
        made = pc.if_else(pa.array(same), column, made)
    return pa.ExtensionArray.from_storage(kind, made) if is_tensor else made
