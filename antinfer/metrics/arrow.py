"""Turns the columns that accumulators need from Arrow into numpy; nulls become masked elements."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from antinfer.errors import JobFileError
from antinfer.metrics.base import Array
from antinfer.metrics.config import near


def to_arrays(batch: pa.RecordBatch, columns: Iterable[str]) -> dict[str, Array]:
    """Return the named columns as arrays of `batch.num_rows` elements.

    Numbers and booleans keep their type (float16 too), text becomes an object array of Python strings, dictionaries are decoded, vectors of
    numbers (lists of equal length, tensors) become one array of shape (rows, ...). Columns with nulls become `numpy.ma.MaskedArray`. Every
    other type becomes what pyarrow makes of it.

    Raises:
        JobFileError: a column is not there, is there twice, or holds lists of different lengths.
    """
    return {name: _to_array(_column(batch, name), name) for name in columns}


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    found = batch.schema.get_all_field_indices(name)
    if not found:
        raise JobFileError(f"accumulators: there is no output column {name!r}", hint=near(name, batch.schema.names))
    if len(found) > 1:
        raise JobFileError(
            f"accumulators: there are {len(found)} output columns called {name!r}", hint="Rename all but one in the pipeline."
        )
    return batch.column(found[0])


def _to_array(column: pa.Array, name: str) -> Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type):
        # Views cannot be filtered yet.
        column = column.cast(pa.large_string())
    if pa.types.is_null(column.type):
        return np.ma.MaskedArray(np.zeros(len(column)), mask=True)
    if not column.null_count:
        return _dense(column, name)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    dense = _dense(column.drop_null(), name)
    spread = np.zeros((len(column), *dense.shape[1:]), dtype=dense.dtype)
    spread[valid] = dense
    mask = np.broadcast_to(~valid.reshape(-1, *(1,) * (dense.ndim - 1)), spread.shape)
    return np.ma.MaskedArray(spread, mask=mask)


def _dense(column: pa.Array, name: str) -> Array:
    """Convert a column without nulls."""
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        if not len(column):
            return np.empty((0, *kind.shape), dtype=kind.value_type.to_pandas_dtype())
        tensors: Array = column.to_numpy_ndarray()
        return tensors
    if isinstance(kind, pa.BaseExtensionType):
        return _dense(column.storage, name)
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _vectors(column, name)
    array: Array = column.to_numpy(zero_copy_only=False)
    return array


def _vectors(column: pa.Array, name: str) -> Array:
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) > 1:
        raise JobFileError(
            f"accumulators: column {name!r} holds lists of different lengths ({min(lengths)} to {max(lengths)})",
            hint="Accumulators need vectors of one length, or one column for every class.",
        )
    flat = column.flatten()
    if flat.null_count:
        # A missing element makes its vector unknown, not shorter; NaN is how numbers say so.
        flat = flat.cast(pa.float64()).fill_null(float("nan"))
    width = lengths[0] if lengths else getattr(column.type, "list_size", 0)
    dense = _dense(flat, name)
    return dense.reshape(len(column), width, *dense.shape[1:])
