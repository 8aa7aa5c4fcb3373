"""Numbers of numpy as arrays of Arrow and back, without a copy.

The ways that pyarrow offers import pandas at their first use, which takes longer than the start of everything else together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "bool")
_LARGE_BYTES = 1 << 20
_DTYPES = {pa.from_numpy_dtype(np.dtype(name)): np.dtype(name) for name in _NUMBERS}


def is_number(kind: pa.DataType) -> bool:
    """Tell whether arrays of `kind` without nulls are plain (`is_plain`) as they are."""
    return kind in _DTYPES


def is_plain(array: NDArray[Any]) -> bool:
    """Tell whether `array` holds numbers or booleans as this machine does."""
    return array.dtype.isnative and array.dtype in _DTYPES.values()


def from_plain(array: NDArray[Any]) -> pa.Array:
    """Return a one-dimensional plain array (`is_plain`) as an Arrow array over the same memory."""
    if array.dtype.kind == "b":
        bits = np.packbits(array, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(array), [None, pa.py_buffer(bits)])
    array = np.ascontiguousarray(array)
    return pa.Array.from_buffers(pa.from_numpy_dtype(array.dtype), len(array), [None, pa.py_buffer(array)])


def from_tensor(array: NDArray[Any]) -> pa.Array:
    """Return a plain array of two or more dimensions, none of them empty but the first, as one tensor a row."""
    return tensors(from_plain(np.ascontiguousarray(array).reshape(-1)), array.shape[1:])


def tensors(values: pa.Array, shape: Sequence[int]) -> pa.Array:
    """Return one tensor of `shape` a row, over the memory of their values."""
    storage = pa.FixedSizeListArray.from_arrays(values, int(np.prod(shape, dtype=np.int64)))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(values.type, shape), storage)


def to_plain(column: pa.Array) -> NDArray[Any] | None:
    """Return an Arrow array of numbers or booleans without nulls as a read-only array; None when it is something else."""
    dtype = _DTYPES.get(column.type)
    if dtype is None or column.null_count:
        return None
    values = column.buffers()[1]
    if values is None or not len(column):
        return np.empty(0, dtype=dtype)
    start, stop = column.offset, column.offset + len(column)
    if dtype == np.bool_:
        packed = np.frombuffer(values, dtype=np.uint8)[start // 8 : (stop + 7) // 8]
        return np.unpackbits(packed, bitorder="little")[start % 8 : start % 8 + len(column)].view(np.bool_)
    numbers = np.frombuffer(values, dtype=dtype, count=stop)[start:]
    # Buffers that a reader filled are writable, but they belong to more than this array.
    numbers.flags.writeable = False
    return numbers


def copy(array: NDArray[Any]) -> NDArray[Any]:
    """Return a writable copy of `array`."""
    if array.dtype.hasobject or array.nbytes < _LARGE_BYTES:
        return array.copy()
    # Arrow's pool keeps the pages of what was freed; numpy would have the kernel clear fresh ones, which takes longer than the copy.
    target = np.frombuffer(pa.allocate_buffer(array.nbytes), dtype=array.dtype).reshape(array.shape)
    np.copyto(target, array)
    return target
