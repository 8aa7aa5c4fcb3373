"""Schemas that freeze: what the first batch looked like, all later ones must look like."""

from __future__ import annotations

import threading

import pyarrow as pa

from antinfer.errors import UserCodeError


class SchemaGate:
    """Lets batches of one schema through. The first one sets it, unless it is given. Safe to use from several threads."""

    def __init__(self, where: str, schema: pa.Schema | None = None) -> None:
        self._where = where
        self._guard = threading.Lock()
        self.schema = schema

    def fit(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return `batch` in the frozen schema: columns in its order, columns without any value in its type.

        Raises UserCodeError when a column is missing, new, or of another type.
        """
        if self.schema is None:
            with self._guard:
                if self.schema is None:
                    self.schema = pa.schema([pa.field(field.name, field.type) for field in batch.schema])
        frozen = self.schema
        if batch.schema.equals(frozen):
            return batch
        names = batch.schema.names
        if set(names) != set(frozen.names):
            new, missing = sorted(set(names) - set(frozen.names)), sorted(set(frozen.names) - set(names))
            what = f"has new columns {', '.join(new)}" if new else f"lacks the columns {', '.join(missing)}"
            raise UserCodeError(
                f"{self._where}: a batch {what}; earlier ones had {', '.join(frozen.names)}",
                hint="Return the same columns for every batch.",
            )
        columns = [self._column(batch.column(field.name), field) for field in frozen]
        return pa.RecordBatch.from_arrays(columns, schema=frozen)

    def _column(self, column: pa.Array, field: pa.Field) -> pa.Array:
        if column.type.equals(field.type):
            return column
        if pa.types.is_null(column.type):
            return pa.nulls(len(column), field.type)
        if pa.types.is_list(column.type) and pa.types.is_list(field.type) and not len(column.flatten()):
            offsets = pa.array([None if value is None else 0 for value in column.to_pylist()] + [0], pa.int32())
            return pa.ListArray.from_arrays(offsets, pa.nulls(0, field.type.value_type), type=field.type)
        raise UserCodeError(
            f"{self._where}: column {field.name!r} is {column.type} in one batch and {field.type} in another",
            hint=f"Convert the column to one type in every batch, for instance with .astype: {field.type} came first.",
        )
