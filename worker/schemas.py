"""Schemas that freeze: what the first batch looked like, all later ones must look like."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pyarrow as pa

from antinfer.errors import UserCodeError
from antinfer.worker.pipeline import ragged, unify


class SchemaGate:
    """Lets batches of one schema through. The first one sets it, unless it is given. Safe to use from several threads.

    With `widens`, arrays of another shape make a column ragged that has had one shape so far; what is written cannot change like that.
    """

    def __init__(self, where: str, schema: pa.Schema | None = None, *, widens: bool = True) -> None:
        self._where = where
        self._widens = widens
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
                kinds = [self._common(field, other.field(field.name).type) for field in self.schema]
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
        kinds = [self._common(field, new.field(field.name).type) or field.type for field in self.schema]
        return pa.schema([field.with_type(kind) for field, kind in zip(self.schema, kinds, strict=True)])

    def _common(self, field: pa.Field, kind: pa.DataType) -> pa.DataType | None:
        return unify.common(field.type, kind, widens=self._widens)

    def _column(self, column: pa.Array, field: pa.Field) -> pa.Array:
        if self._common(field, column.type) is not None:
            return unify.fit(column, field.type)
        hint = f"Convert it to one type in every batch, for instance with .astype or .reshape: {ragged.describe(field.type)} came first."
        if _is_nulls_doing(column.type, field.type):
            hint = (
                "Probably some batches hold a null and others do not: in numpy and pandas a null makes whole numbers floats. Use "
                "batch_format: arrow, fill the nulls before computing, or convert the result to one type in every batch; "
                f"{field.type} came first."
            )
        elif pa.types.is_decimal(column.type) and pa.types.is_decimal(field.type):
            hint = (
                "Decimals that come as Python objects get as many digits as the largest of their batch needs. Use batch_format: arrow, or "
                f"return pa.array(values, type=pa.decimal128(...)) with one type in every batch; {field.type} came first."
            )
        if unify.common(field.type, column.type) is not None:
            hint = (
                "Written rows need one type from the first batch on. Return arrays of different shapes as an object array in every batch "
                "(made = np.empty(rows, dtype=object), then made[i] = array; behind a flat_map: in a map_batches), resize or encode them."
            )
        one, other = ragged.describe(column.type), ragged.describe(field.type)
        raise UserCodeError(f"{self._where}: column {field.name!r} is {one} in one batch and {other} in another", hint=hint)


def _is_nulls_doing(one: pa.DataType, other: pa.DataType) -> bool:
    """Tell whether one type is of floats and the other of whole numbers, as they are or in lists."""
    while pa.types.is_list(one) and pa.types.is_list(other):
        one, other = one.value_type, other.value_type
    is_float, is_integer = pa.types.is_floating, pa.types.is_integer
    return bool((is_float(one) and is_integer(other)) or (is_integer(one) and is_float(other)))
