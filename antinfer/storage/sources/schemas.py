"""Schemas of a data set: pruned, compared, declared by name, and carried as text."""

from __future__ import annotations

import base64
import binascii
import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from antinfer.errors import ColumnError, InternalError, JobFileError, SchemaMismatchError, SourceError


def frozen(schema: pa.Schema) -> pa.Schema:
    """Return `schema` as a data set's: every column nullable, no schema metadata (which belongs to one file)."""
    return pa.schema([field.with_nullable(True) for field in schema])


def prune(schema: pa.Schema, columns: Sequence[str] | None, path: str) -> pa.Schema:
    """Keep `columns` in their order (None: all). Raises `ColumnError` naming the missing one and the near ones."""
    seen = duplicates(schema.names)
    if seen and (columns is None or set(seen) & set(columns)):
        raise SourceError(f"{path}: column {seen[0]!r} occurs more than once", hint="Columns are found by name; rename one of them.")
    if columns is None:
        return schema
    for column in columns:
        if column not in schema.names:
            raise ColumnError(f"{path}: column {column!r} not found", hint=near(column, schema.names))
    return pa.schema([schema.field(column) for column in columns])


def duplicates(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def near(name: str, known: Sequence[str]) -> str:
    """Return a hint that names what `name` may have meant, or what there is."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(repr(other) for other in close) + "?"
    listed = ", ".join(repr(other) for other in known[:20]) + (", ..." if len(known) > 20 else "")
    return f"There is {listed}." if known else "The file has no columns."


def require_same(expected: pa.Schema, actual: pa.Schema, path: str) -> None:
    """Raise `SchemaMismatchError` naming `path` and the first column that differs in presence or type.

    Order and metadata may differ, and a column that holds nothing but nulls and so has no type fits any.
    """
    present = dict(zip(actual.names, actual.types, strict=True))
    for field in expected:
        if field.name not in present:
            raise SchemaMismatchError(
                f"{path}: column {field.name!r} is missing, the other files have it ({field.type})", hint=near(field.name, actual.names)
            )
        if present[field.name] != field.type and not pa.types.is_null(present[field.name]):
            raise SchemaMismatchError(
                f"{path}: column {field.name!r} has type {present[field.name]}, the other files have {field.type}",
                hint="All files of a data set need the same types; rewrite the file or read it as a data set of its own.",
            )
    known = set(expected.names)
    for name in actual.names:
        if name not in known:
            raise SchemaMismatchError(
                f"{path}: column {name!r} is not in the other files",
                hint="Name the wanted columns in `columns`, then others do not matter.",
            )


def declared(types: Mapping[str, str] | None) -> dict[str, pa.DataType]:
    """Read the option ``schema``: column -> type name. Raises `JobFileError` naming the column."""
    return {column: _type_named(column, name) for column, name in (types or {}).items()}


def _type_named(column: str, name: str) -> pa.DataType:
    if not isinstance(name, str):
        raise JobFileError(f"source.schema.{column}: {name!r} is not the name of a type", hint=_TYPES_HINT)
    inner = name.strip()
    if inner.startswith("list<") and inner.endswith(">"):
        return pa.list_(_type_named(column, inner[5:-1]))
    try:
        return pa.type_for_alias(inner)
    except ValueError as cause:
        raise JobFileError(f"source.schema.{column}: type {name!r} is not known", hint=_TYPES_HINT) from cause


_TYPES_HINT = "Types: bool, int8..int64, uint8..uint64, float, double, string, binary, date32, timestamp[us], and list<...> of them."


def without_null_types(schema: pa.Schema) -> pa.Schema:
    """Give columns that held nothing but nulls when the schema was inferred the type string, since a later block may hold values."""
    return pa.schema([field.with_type(_without_null(field.type)) for field in schema])


def _without_null(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_null(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_null(field.type)) for field in kind])
    return kind


def to_text(schema: pa.Schema) -> str:
    """Write a schema as ASCII text that fits in a JSON document."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")


def from_text(text: str) -> pa.Schema:
    """Read what `to_text` wrote. Raises `InternalError` on anything else."""
    try:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text, validate=True)))
    except (binascii.Error, pa.ArrowException, OSError) as cause:
        raise InternalError("a stored schema cannot be read back") from cause
