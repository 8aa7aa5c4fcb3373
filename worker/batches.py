"""The one form of a batch between stages, `pyarrow.RecordBatch`, and the forms that user code knows.

Numbers and tensors (fixed_shape_tensor, fixed_size_list) become plain arrays where they hold no nulls, and so do arrays of any shape
(`ragged`) where a batch has but one; strings, bytes and nested values become arrays of objects.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from antinfer.errors import UserCodeError
from antinfer.storage.lean import notice_pandas
from antinfer.worker.pipeline import arrays, ragged, unify

if TYPE_CHECKING:
    from antinfer.worker.passing import Given

Columns = dict[str, Any]
_NULL = np.float64("nan")
"""What row functions get for a null in a column of whole numbers. Known again by its identity: it is null in what they return, too."""


def _references(container: Any, key: Any) -> int:
    """Count the references to ``container[key]``. A name for it would be one of them."""
    return sys.getrefcount(container[key])


_ALONE = _references([object()], 0)
"""What `_references` returns for an object that nothing but its container holds."""


def to_format(batch: pa.RecordBatch, batch_format: str, *, writable: bool = True) -> Any:
    """Return `batch` as user code wants it: ``numpy``, ``arrow``, ``pandas`` or ``torch``.

    With `writable`, arrays are the caller's own: user code may change its batch, which must not reach carryover columns nor a second
    attempt. Without, they are views of the batch where its memory has the right form.

    Raises:
        UserCodeError: ``torch`` with a column that is no tensor, or pandas or torch is not installed.
    """
    if batch_format == "arrow":
        return batch
    if batch_format == "pandas":
        _require("pandas")
        return _to_pandas(batch)
    columns = {name: to_numpy(batch.column(i)) for i, name in enumerate(batch.schema.names)}
    if writable:
        columns = {name: array if array.flags.writeable else arrays.copy(array) for name, array in columns.items()}
    return columns if batch_format == "numpy" else _to_torch(columns)


def to_numpy(column: pa.Array) -> NDArray[Any]:
    """Return a column as an array: tensors with their shape, numbers with nulls as floats with NaN, all else as objects."""
    plain = arrays.to_plain(column)
    if plain is not None:
        return plain
    if isinstance(column.type, pa.FixedShapeTensorType) and column.type.permutation is not None and not column.null_count:
        return np.asarray(column.to_numpy_ndarray())
    if (rows := _rows_of_one_shape(column)) is not None:
        return rows
    if ragged.is_ragged(column.type) and (rows := ragged.unpack(column)) is not None:
        return rows
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _rows_of_one_shape(column: pa.Array) -> NDArray[Any] | None:
    """Return tensors or fixed-size lists of numbers as one array, or as an array of arrays where rows are null; None for other columns."""
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        shape, flat = kind.shape, None if kind.permutation is not None else column.storage.flatten()
    else:
        shape, flat = ([kind.list_size], column.flatten()) if pa.types.is_fixed_size_list(kind) else ([], None)
    if flat is None or not arrays.is_number(flat.type):
        return None
    values = arrays.to_plain(flat)
    if values is None:
        if pa.types.is_boolean(flat.type):
            return None
        values = flat.to_numpy(zero_copy_only=False)
    rows = values.reshape(len(column) - column.null_count, *shape)
    if not column.null_count:
        return rows
    present = arrays.to_plain(column.is_valid())
    assert present is not None
    found = np.empty(len(column), dtype=object)
    # A copy of all at once: user code may change its arrays.
    for at, row in zip(np.flatnonzero(present), arrays.copy(rows), strict=True):
        found[at] = row
    return found


def from_result(result: object, where: str, *, copy: bool, start: int = 0, given: Given | None = None) -> pa.RecordBatch:
    """Read what user code returned: a mapping of columns, an Arrow batch or table, or a data frame.

    With `copy` the result does not share memory with arrays of the user, who may fill them again in the next call. `start` is the row of
    the batch that it begins with. Columns of `given` that it holds keep what they were.

    Raises UserCodeError for anything else, for columns of different lengths, for data frames and series whose rows are in another order,
    and naming the column whose values have no Arrow type.
    """
    return _read(result, where, copy=copy, is_ours=False, start=start, given=given)


def take_result(made: list[object], where: str, *, copy: bool, given: Given | None = None) -> pa.RecordBatch:
    """Read the one object in `made` as `from_result` does, without a copy of arrays that nobody but `made` can reach.

    User code keeps no array that has no reference left but the one it returned; what it may fill again it must hold somewhere.
    """
    is_ours = type(made[0]) is dict and _references(made, 0) == _ALONE
    return _read(made[0], where, copy=copy, is_ours=is_ours, given=given)


def _read(result: object, where: str, *, copy: bool, is_ours: bool, start: int = 0, given: Given | None = None) -> pa.RecordBatch:
    notice_pandas()
    if isinstance(result, Mapping):
        _check_series(result, where, start)
        return _from_columns(result, where, copy=copy, is_ours=is_ours, start=start, given=given)
    if isinstance(result, pa.Table):
        batches = result.combine_chunks().to_batches()
        nothing = [pa.nulls(0, field.type) for field in result.schema]
        result = unify.concat(batches) if batches else pa.RecordBatch.from_arrays(nothing, schema=result.schema)
    if isinstance(result, pa.RecordBatch):
        return result.replace_schema_metadata(None)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(result, pandas.DataFrame):
        _check_order(result.index, f"{where}: the data frame", start)
        kept = {} if given is None else _kept_of(result, given, start)
        try:
            return _from_pandas(result.copy() if copy else result, where, kept)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise UserCodeError(f"{where} returned a data frame that has no Arrow form: {error}") from error
    raise UserCodeError(
        f"{where} must return a dict of columns, not {type(result).__name__}",
        hint="Return {'column': array}, one value per input row; a pyarrow batch or a pandas data frame is fine too.",
    )


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows one by one, as row functions get them: scalars and arrays of numpy, strings and bytes as they are."""
    names = batch.schema.names
    columns = [_values(column) for column in batch.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(column: pa.Array) -> Sequence[Any]:
    if not pa.types.is_integer(column.type) or not column.null_count:
        return to_numpy(column)  # type: ignore[return-value]
    present, numbers = arrays.to_plain(column.is_valid()), arrays.to_plain(column.fill_null(0))
    assert present is not None and numbers is not None
    # As one array they would all be floats, and whether a row's number is one would depend on its neighbours.
    return [number if is_there else _NULL for number, is_there in zip(numbers, present, strict=True)]


def _with_nulls(values: list[Any]) -> Any:
    """Return whole numbers and `_NULL` as whole numbers and nulls, and all else as it is."""
    numbers = [value for value in values if value is not _NULL]
    if len(numbers) == len(values):
        return values
    if not all(isinstance(number, (int, np.integer)) and not isinstance(number, bool) for number in numbers):
        return values
    dtype = np.array(numbers).dtype
    if numbers and dtype.kind not in "iu":
        return values
    kind = pa.from_numpy_dtype(dtype) if numbers else pa.null()
    return pa.array([None if value is _NULL else value for value in values], type=kind)


def from_rows(rows: Sequence[object], where: str) -> pa.RecordBatch:
    """Make a batch of row dicts that all have the same keys. Raises UserCodeError as `from_result` does."""
    first = rows[0]
    for row in rows:
        if not isinstance(row, Mapping):
            raise UserCodeError(f"{where} must return rows as dicts, not {type(row).__name__}")
        assert isinstance(first, Mapping)
        if row.keys() != first.keys():
            one, other = (", ".join(map(str, names)) for names in (first, row))
            raise UserCodeError(f"{where} returned rows with different columns: {one} and {other}")
    assert isinstance(first, Mapping)
    return _from_columns({name: _with_nulls([row[name] for row in rows]) for name in first}, where, copy=False)  # type: ignore[index]


def _from_columns(
    columns: Mapping[Any, Any], where: str, *, copy: bool, is_ours: bool = False, start: int = 0, given: Given | None = None
) -> pa.RecordBatch:
    if not columns:
        raise UserCodeError(f"{where} returned a dict without columns", hint="Return at least one column.")
    made = []
    for name in columns:
        if not isinstance(name, str):
            raise UserCodeError(f"{where} returned a column whose name is {name!r}, not a string")
        kept = None if given is None else given.column(name, columns[name], start)
        if kept is not None:
            made.append(kept)
            continue
        needs_copy = copy and not (is_ours and _is_unshared(columns, name))
        made.append(_column(columns[name], name, where, copy=needs_copy))
    if len({len(array) for array in made}) > 1:
        lengths = ", ".join(f"{name}: {len(array)}" for name, array in zip(columns, made, strict=True))
        raise UserCodeError(f"{where} returned columns of different lengths ({lengths})")
    return pa.RecordBatch.from_arrays(made, names=list(columns))


def _column(values: object, name: str, where: str, *, copy: bool) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if not hasattr(values, "__len__") or isinstance(values, (str, bytes, Mapping, Set)):
        raise UserCodeError(
            f"{where}: column {name!r} must be an array or a list with one value per row, not {type(values).__name__}",
        )
    torch = sys.modules.get("torch")
    try:
        if torch is not None and isinstance(values, torch.Tensor):
            values = values.detach().cpu().numpy()
        return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else _array(values, copy=copy)
    except pa.lib.ArrowCapacityError as error:
        raise unify.TooLargeError(name, where=where) from error
    except ragged.MixedError as error:
        raise UserCodeError(f"{where}: column {name!r} {error}", hint=error.hint) from error
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, OverflowError, TypeError) as error:
        if "offset overflow" in str(error):
            raise unify.TooLargeError(name, where=where) from error
        raise UserCodeError(
            f"{where}: column {name!r} holds values that cannot be written: {error}",
            hint="Return numbers, strings, bytes, timestamps, or lists, dicts and arrays of these (inside of lists and dicts: flat ones).",
        ) from error


def _array(values: Any, *, copy: bool) -> pa.Array:
    many = _many_dimensions(values)
    if isinstance(values, list) and _are_alike(values, exactly=many):
        values, copy = np.stack(values), False
    elif many:
        return ragged.pack(values)
    if isinstance(values, list) and values and isinstance(values[0], np.generic):
        values, copy = np.array(values), False
    # numpy imports its masked arrays when somebody uses them: where nobody has, there are none.
    if "numpy.ma" in sys.modules and isinstance(values, np.ma.MaskedArray):
        return pa.array(values.data, mask=np.ma.getmaskarray(values))
    if isinstance(values, np.ndarray) and copy:
        values = arrays.copy(values)
    if isinstance(values, np.ndarray) and arrays.is_plain(values) and values.ndim:
        if values.ndim == 1:
            return arrays.from_plain(values)
        if 0 in values.shape[1:]:
            raise ValueError(f"an array of shape {values.shape} holds nothing")
        return arrays.from_tensor(values)
    if isinstance(values, np.ndarray) and values.dtype == object and values.ndim > 1:
        what = f"is one object array of shape {values.shape}: numpy takes arrays of one shape apart"
        raise ragged.MixedError(
            what, "Fill it row by row (made = np.empty(rows, dtype=object), then made[i] = array), or np.stack the rows."
        )
    array = pa.array(values)
    return _of_one_width(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)


def _are_alike(values: list[Any], *, exactly: bool) -> bool:
    """Tell whether `values` are arrays of one shape that hold something, and `exactly`: of one type as well."""
    first = values[0] if values else None
    if not isinstance(first, np.ndarray) or not first.ndim or not first.size or first.dtype == object:
        return False
    if not all(isinstance(value, np.ndarray) and value.shape == first.shape for value in values):
        return False
    return not exactly or all(value.dtype == first.dtype for value in values)


def _many_dimensions(values: Any) -> bool:
    """Tell whether `values` are arrays one by one, some of them with two dimensions or more."""
    is_of_objects = getattr(values, "ndim", 0) == 1 and getattr(getattr(values, "dtype", None), "kind", "") == "O"
    if not is_of_objects and not isinstance(values, (list, tuple)):
        return False
    if not isinstance(next((value for value in values if value is not None), None), np.ndarray):
        return False
    return any(isinstance(value, np.ndarray) and value.ndim > 1 for value in values)


def _to_pandas(batch: pa.RecordBatch) -> Any:
    """Return `batch` as a data frame, in which arrays keep their shapes."""
    frame = batch.to_pandas()
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        has_shape = isinstance(column.type, pa.FixedShapeTensorType) and len(column.type.shape) > 1
        # Pandas gets arrays of floats from pyarrow where a row is null.
        if ragged.is_ragged(column.type) or has_shape or (column.null_count and _rows_of_one_shape(column) is not None):
            rows = to_numpy(column)
            objects = np.empty(len(rows), dtype=object)
            for at, row in enumerate(rows if rows.flags.writeable else arrays.copy(rows)):
                objects[at] = row
            frame[name] = objects
    return frame


def _check_series(columns: Mapping[Any, Any], where: str, start: int) -> None:
    # A function of its own: a name for the last column would be one more reference to it.
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return
    for name, values in columns.items():
        if isinstance(values, pandas.Series):
            _check_order(values.index, f"{where}: column {name!r}", start)


def _check_order(index: Any, what: str, start: int) -> None:
    """Raise UserCodeError where `index` is that of the rows as they came, in another order: results are taken by place.

    A frame that user code made itself counts from 0, what it yields of its batch from `start`. An index with a name is data of its own.
    """
    if index.name is not None or getattr(index.dtype, "kind", "") not in "iu" or index.is_monotonic_increasing:
        return
    first = int(index.min())
    if first not in (0, start) or not np.array_equal(np.sort(index.to_numpy()), np.arange(first, first + len(index))):
        return
    at = int(np.flatnonzero(index.to_numpy() != np.arange(first, first + len(index)))[0])
    raise UserCodeError(
        f"{what} has its rows in another order: its index is {index[at]} in row {first + at}, as after sort_values",
        hint="Restore the order with .sort_index(), or with .reset_index(drop=True) say that it is right: results belong to rows by place.",
    )


def _kept_of(frame: Any, given: Given, start: int) -> dict[str, pa.Array]:
    """Return the columns of `frame` that are those of `given`."""
    found = {name: given.column(name, frame[name], start) for name in frame.columns if name in given}
    return {name: column for name, column in found.items() if column is not None}


def _from_pandas(frame: Any, where: str, kept: Mapping[str, pa.Array]) -> pa.RecordBatch:
    odd = [name for name in frame.columns if name not in kept and _many_dimensions(frame[name])]
    plain = frame.copy(deep=False) if odd or kept else frame
    for name in (*odd, *kept):
        plain[name] = None
    batch = pa.RecordBatch.from_pandas(plain, preserve_index=False)
    columns = {str(name): _column(list(frame[name]), str(name), where, copy=False) for name in odd} | dict(kept)
    made = [columns.get(field.name, column) for field, column in zip(batch.schema, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays([_of_one_width(column) for column in made], names=batch.schema.names)


def _of_one_width(column: pa.Array) -> pa.Array:
    """Return a dictionary as one whose indices do not tell how many values the categories of this batch have."""
    kind = column.type
    if not pa.types.is_dictionary(kind):
        return column
    if not len(column.dictionary):
        # Without a category their type is not known yet.
        return pa.nulls(len(column))
    return column.cast(pa.dictionary(pa.int32(), kind.value_type, kind.ordered))


def _is_unshared(columns: Mapping[str, Any], name: str) -> bool:
    """Tell whether the memory of an array can be reached through `columns` alone."""
    if not isinstance(columns[name], np.ndarray) or _references(columns, name) > _ALONE:
        return False
    owner = columns[name]
    while owner.base is not None:
        # As in `_references`: no name for the base while it is counted.
        if not isinstance(owner.base, np.ndarray) or sys.getrefcount(owner.base) > _ALONE:
            return False
        owner = owner.base
    return bool(owner.flags.owndata)


def _to_torch(columns: Columns) -> Columns:
    torch = _require("torch")
    tensors = {}
    for name, array in columns.items():
        try:
            with warnings.catch_warnings():
                # Torch warns of arrays that are read-only; so is what lies in a slab, and `submit` says so.
                warnings.simplefilter("ignore", UserWarning)
                tensors[name] = torch.from_numpy(array)
        except TypeError as error:
            raise UserCodeError(
                f"column {name!r} ({array.dtype}) cannot be a torch tensor",
                hint="Name the stage's inputs with columns: [...], or use batch_format: numpy.",
            ) from error
    return tensors


def _require(module: str) -> Any:
    try:
        return __import__(module)
    except ImportError as error:
        raise UserCodeError(f"batch_format: {module} needs the package {module}, which cannot be imported: {error}") from error
