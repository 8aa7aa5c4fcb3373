"""Arrow columns as JSON text, a column at a time in Arrow's own kernels: no Python object per value for numbers, plain strings and lists.

Forms: integers, floats and decimals are numbers; floats always show a point or an exponent; NaN and infinities, which JSON has not, are
null (or an error); binary is base64; dates, times and timestamps are ISO 8601 (with a time zone: in UTC with ``Z``); durations are integers
in the column's unit; structs are objects; maps are arrays of ``{"key": ..., "value": ...}``, which keeps their order and repeated keys;
dictionaries and extension types are what they store.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from antinfer.errors import UserCodeError

_NULL: Final = "null"
_NEEDS_ESCAPE: Final = r'["\\\x00-\x1f]'
_NO_POINT: Final = r"^(-?\d+)$"


def unsupported_field(schema: pa.Schema) -> pa.Field | None:
    """Return the first column whose type has no JSON form."""
    return next((field for field in schema if not _supported(field.type)), None)


def lines(batch: pa.RecordBatch, *, nan_is_error: bool) -> pa.Buffer:
    """Return `batch` as JSON Lines. Raises `UserCodeError` naming the column that holds a NaN or infinity if `nan_is_error`."""
    pieces: list[Any] = []
    for at, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
        try:
            text = fragments(column, nan_is_error=nan_is_error)
        except _NotFinite as error:
            message = f"the column {name!r} of the result holds NaN or an infinity, which JSON cannot"
            raise UserCodeError(message, hint="Replace it, or set sink.options.nan: null.") from error
        pieces += [_scalar(("," if at else "{") + json.dumps(name, ensure_ascii=False) + ":"), text]
    if not pieces:
        return pa.py_buffer(b"{}\n" * batch.num_rows)
    joined = pc.binary_join_element_wise(*pieces, _scalar("}\n"), _scalar(""))
    return _text_bytes(joined)


def fragments(array: pa.Array, *, nan_is_error: bool) -> pa.Array:
    """Return the JSON text of every value, as strings without nulls (a null value is the text ``null``)."""
    return pc.fill_null(_encode(array, nan_is_error), _NULL)


class _NotFinite(Exception):
    """A NaN or an infinity was met."""


def _encode(array: pa.Array, strict: bool) -> pa.Array:
    kind = array.type
    types = pa.types
    if types.is_null(kind):
        return pa.nulls(len(array), pa.string())
    if types.is_dictionary(kind):
        return fragments(array.dictionary, nan_is_error=strict).take(array.indices)
    if isinstance(kind, pa.BaseExtensionType):
        return _encode(array.storage, strict)
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_decimal(kind):
        return array.cast(pa.string())
    if types.is_floating(kind):
        return _floats(array, strict)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _strings(array.cast(pa.string()))
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind) or types.is_binary_view(kind):
        texts = [None if value is None else f'"{b64encode(value).decode()}"' for value in array.to_pylist()]
        return pa.array(texts, pa.string())
    if types.is_duration(kind):
        return array.cast(pa.int64()).cast(pa.string())
    if types.is_date(kind) or types.is_time(kind):
        return _quoted(array.cast(pa.string()))
    if types.is_timestamp(kind):
        moment = array.cast(pa.timestamp(kind.unit, "UTC")) if kind.tz else array
        return _quoted(pc.replace_substring(moment.cast(pa.string()), " ", "T", max_replacements=1))
    if types.is_map(kind):
        return _encode(array.cast(pa.list_(pa.struct({"key": kind.key_type, "value": kind.item_type}))), strict)
    if types.is_struct(kind):
        return _structs(array, strict)
    return _lists(array, strict)


def _floats(array: pa.Array, strict: bool) -> pa.Array:
    finite = pc.is_finite(array)
    if not pc.all(finite).as_py() and len(array) > array.null_count:
        if strict:
            raise _NotFinite
        array = pc.if_else(finite, array, pa.scalar(None, array.type))
    return pc.replace_substring_regex(array.cast(pa.string()), _NO_POINT, r"\1.0")


def _strings(array: pa.Array) -> pa.Array:
    escaped = pc.match_substring_regex(array, _NEEDS_ESCAPE)
    if not pc.any(escaped).as_py():
        return _quoted(array)
    odd = [json.dumps(text, ensure_ascii=False) for text in array.filter(escaped).to_pylist()]
    return pc.replace_with_mask(_quoted(array), pc.fill_null(escaped, False), pa.array(odd, pa.string()))


def _quoted(array: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(_scalar('"'), array, _scalar('"'), _scalar(""))


def _structs(array: pa.Array, strict: bool) -> pa.Array:
    pieces: list[Any] = []
    for at, (field, child) in enumerate(zip(array.type, array.flatten(), strict=True)):
        pieces += [_scalar(("," if at else "{") + json.dumps(field.name, ensure_ascii=False) + ":"), fragments(child, nan_is_error=strict)]
    if not pieces:
        pieces = [pa.array(["{"] * len(array), pa.string())]
    return _masked(pc.binary_join_element_wise(*pieces, _scalar("}"), _scalar("")), array)


def _lists(array: pa.Array, strict: bool) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])
    values = fragments(array.flatten(), nan_is_error=strict)
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, values), ",")
    return _masked(pc.binary_join_element_wise(_scalar("["), joined, _scalar("]"), _scalar("")), array)


def _masked(texts: pa.Array, array: pa.Array) -> pa.Array:
    return pc.if_else(array.is_valid(), texts, pa.scalar(None, pa.string())) if array.null_count else texts


def _supported(kind: pa.DataType) -> bool:
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _supported(kind.storage_type)
    if types.is_dictionary(kind):
        return _supported(kind.value_type)
    if types.is_nested(kind):
        if types.is_union(kind):
            return False
        return all(_supported(kind.field(at).type) for at in range(kind.num_fields))
    return not (types.is_interval(kind) or types.is_run_end_encoded(kind))


def _scalar(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.string())


def _text_bytes(texts: pa.Array) -> pa.Buffer:
    """Return the bytes of all strings one after the other, which is how Arrow keeps them."""
    _, offsets, data = texts.buffers()
    bounds = memoryview(offsets).cast("i")
    start, stop = bounds[texts.offset], bounds[texts.offset + len(texts)]
    return data.slice(start, stop - start) if data is not None else pa.py_buffer(b"")
