"""Types that are not known yet: a column, list or field that has held no value so far is of Arrow's type null, and fits every other.

Some batches are such by nature: images without a face, rows whose label is None. They come before, between and after batches with values.
So do batches whose arrays happen to have one shape, in a column where others do not: as tensors they fit what is `ragged`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from antinfer.errors import UserCodeError
from antinfer.worker.pipeline import arrays, ragged


class TooLargeError(UserCodeError):
    """A column holds more than one Arrow array of its type can: 2 GiB of text or bytes, or as many values in lists."""

    def __init__(self, column: str, *, where: str = "", rows: int | None = None) -> None:
        """`where`: who made it; `rows`: so many it is of, where that is known."""
        of_rows = "" if rows is None else f" in {rows:,} rows"
        super().__init__(
            f"{where}{': ' * bool(where)}column {column!r} holds more than 2 GiB{of_rows}, which is too much for one batch",
            hint="Set a lower batch_size for the stage that makes these rows, and for the one that gets them.",
        )


def is_known(schema: pa.Schema) -> bool:
    """Tell whether every type of `schema` is known."""
    return all(map(_is_known, schema.types))


def common(one: pa.DataType, other: pa.DataType, *, widens: bool = True) -> pa.DataType | None:
    """Return the type of both, each taking from the other what it does not know; None when they contradict each other.

    Without `widens`, arrays that have one shape in `one` must have it in `other` as well.
    """
    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if isinstance(one, pa.FixedShapeTensorType) or isinstance(other, pa.FixedShapeTensorType):
        return ragged.common(one, other) if widens or not isinstance(one, pa.FixedShapeTensorType) else None
    if pa.types.is_list(one) and pa.types.is_list(other):
        inner = common(one.value_type, other.value_type, widens=widens)
        return None if inner is None else pa.list_(one.value_field.with_type(inner))
    if pa.types.is_struct(one) and pa.types.is_struct(other) and [f.name for f in one] == [f.name for f in other]:
        inners = [common(mine.type, theirs.type, widens=widens) for mine, theirs in zip(one, other, strict=True)]
        return None if None in inners else pa.struct([field.with_type(inner) for field, inner in zip(one, inners, strict=True)])
    return None


def fit(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return `column` as `kind`, which is `common` to its own type and others."""
    if column.type.equals(kind):
        return column
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), kind)
    if isinstance(column.type, pa.FixedShapeTensorType):
        return ragged.widen(column, kind)
    mask = column.is_null() if column.null_count else None
    if pa.types.is_list(kind):
        # Imported here: it takes as long as numpy, and few jobs come by.
        import pyarrow.compute as pc

        lengths = arrays.to_plain(pc.fill_null(pc.list_value_length(column), 0))
        assert lengths is not None
        offsets = arrays.from_plain(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))
        return pa.ListArray.from_arrays(offsets, fit(column.flatten(), kind.value_type), type=kind, mask=mask)
    children = [fit(child, field.type) for child, field in zip(column.flatten(), kind, strict=True)]
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=mask)


def concat(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Put batches together that agree on every type they know; without a copy when there is only one.

    Raises TooLargeError naming a column that would hold more than an array can.
    """
    first = batches[0].schema
    if len(batches) == 1:
        return batches[0]
    if all(batch.schema.equals(first) for batch in batches):
        return _joined(batches)
    kinds = first.types
    for batch in batches[1:]:
        kinds = [common(mine, theirs) for mine, theirs in zip(kinds, batch.schema.types, strict=True)]
    schema = pa.schema(list(zip(first.names, kinds, strict=True)))
    fitting = [[fit(column, kind) for column, kind in zip(batch.columns, kinds, strict=True)] for batch in batches]
    return _joined([pa.RecordBatch.from_arrays(columns, schema=schema) for columns in fitting])


def nulls(rows: int, kind: pa.DataType) -> pa.Array:
    """Return `rows` nulls of type `kind`."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.nulls(rows, kind.storage_type))
    return pa.nulls(rows, kind)


def pick(column: pa.Array, rows: NDArray[np.int64]) -> pa.Array:
    """Return the values of `column` at `rows`, null where that is negative."""
    absent = rows < 0
    if not absent.any() and len(rows) == len(column) and bool((rows == np.arange(len(rows))).all()):
        return column
    try:
        return column.take(arrays.from_plain(rows) if not absent.any() else _with_nulls(rows, absent))
    except pa.ArrowNotImplementedError:
        # As in `pieces.take`: runs of neighbours can always be put together.
        runs = np.split(rows, np.flatnonzero((np.diff(rows) != 1) | absent[1:]) + 1) if len(rows) else []
        parts = [nulls(len(run), column.type) if run[0] < 0 else column.slice(int(run[0]), len(run)) for run in runs]
        return pa.concat_arrays(parts) if parts else column.slice(0, 0)


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    try:
        return pa.concat_batches(batches)
    except pa.ArrowInvalid:
        for at, name in enumerate(batches[0].schema.names):
            try:
                pa.concat_arrays([batch.column(at) for batch in batches])
            except pa.ArrowInvalid as error:
                raise TooLargeError(name, rows=sum(batch.num_rows for batch in batches)) from error
        raise


def _with_nulls(rows: NDArray[np.int64], absent: NDArray[np.bool_]) -> pa.Array:
    valid = pa.py_buffer(np.packbits(~absent, bitorder="little"))
    return pa.Array.from_buffers(pa.int64(), len(rows), [valid, pa.py_buffer(np.ascontiguousarray(rows))])


def _is_known(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_struct(kind):
        return all(_is_known(kind.field(at).type) for at in range(kind.num_fields))
    return not pa.types.is_null(kind)
