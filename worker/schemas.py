"""Schemas that freeze: what the first batch looked like, all later ones must look like."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pyarrow as pa

from antinfer.errors import UserCodeError
from antinfer.worker.pipeline import unify


class SchemaGate:
    """Lets batches of one schema through. The first one sets it, unless it is given. Safe to use from several threads."""

    def __init__(self, where: str, schema: pa.Schema | None = None) -> None:
        self._where = where
        self._guard = threading.Lock()
        self.schema = schema
        self.is_told = False
        """Other workers have been told the schema."""

    def learn(self, others: Iterable[pa.Schema]) -> None:
        """Take from the schemas of `others` the types that no batch has shown here. One that contradicts ours teaches nothing: whose
        results are refused is not decided here."""
        with self._guard:
            for other in others:
                if self.schema is None or set(other.names) != set(self.schema.names):
                    continue
                kinds = [unify.common(field.type, other.field(field.name).type) for field in self.schema]
                if None not in kinds:
                    self.schema = pa.schema([field.with_type(kind) for field, kind in zip(self.schema, kinds, strict=True)])

    def fit(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return `batch` in the frozen schema: columns in its order and types.

        What the schema does not know yet, since no batch had a value there, it learns from the first one that has.

        Raises UserCodeError when a column is missing, new, or of another type.
        """
        frozen = self.schema
        if frozen is not None and batch.schema.equals(frozen):
            return batch
        with self._guard:
            frozen = self.schema = self._merged(batch.schema)
        columns = [self._column(batch.column(field.name), field) for field in frozen]
        return pa.RecordBatch.from_arrays(columns, schema=frozen)

    def _merged(self, new: pa.Schema) -> pa.Schema:
        if self.schema is None:
            return pa.schema([pa.field(field.name, field.type) for field in new])
        names, known = set(new.names), set(self.schema.names)
        if names != known:
            what = (
                f"has new columns {', '.join(sorted(names - known))}"
                if names - known
                else f"lacks the columns {', '.join(sorted(known - names))}"
            )
            raise UserCodeError(
                f"{self._where}: a batch {what}; earlier ones had {', '.join(self.schema.names)}",
                hint="Return the same columns for every batch.",
            )
        kinds = [unify.common(field.type, new.field(field.name).type) or field.type for field in self.schema]
        return pa.schema([field.with_type(kind) for field, kind in zip(self.schema, kinds, strict=True)])

    def _column(self, column: pa.Array, field: pa.Field) -> pa.Array:
        if unify.common(field.type, column.type) is not None:
            return unify.fit(column, field.type)
        is_row = isinstance(column.type, pa.FixedShapeTensorType) and len(column.type.shape) == 1
        if is_row and pa.types.is_list(field.type) and field.type.value_type.equals(column.type.value_type):
            # Arrays of different lengths that happen to be of one length in this batch.
            return column.storage.cast(field.type)
        lengths = (
            " Arrays of different lengths need np.array(..., dtype=object)." if isinstance(field.type, pa.FixedShapeTensorType) else ""
        )
        raise UserCodeError(
            f"{self._where}: column {field.name!r} is {column.type} in one batch and {field.type} in another",
            hint=f"Convert the column to one type in every batch, for instance with .astype: {field.type} came first.{lengths}",
        )
