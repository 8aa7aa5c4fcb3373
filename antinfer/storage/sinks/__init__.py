"""Writers of parts: Parquet, JSON Lines, Arrow IPC. A writer fills one local file; the output place makes it durable and visible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from antinfer.errors import JobFileError
from antinfer.storage.sinks.base import PartWriter

TYPES: Final = ("parquet", "jsonl", "arrow")

_SUFFIXES: Final = {"parquet": "parquet", "jsonl": "jsonl", "arrow": "arrow"}


def suffix(type: str) -> str:
    """Return the suffix of parts written by sink `type`, without a dot. Raises `JobFileError` for an unknown type."""
    return _SUFFIXES[_known(type)]


def carries_record(type: str) -> bool:
    """Tell whether parts of sink `type` hold their commit record in themselves; the others need a record object beside them."""
    return _known(type) == "parquet"


def holds_types(type: str) -> bool:
    """Tell whether parts of sink `type` have a schema of their own; a line of JSON says nothing about a null."""
    return _known(type) != "jsonl"


def open_writer(type: str, path: str, schema: pa.Schema, options: Mapping[str, Any] | None = None) -> PartWriter:
    """Create the local file `path` and return the writer that fills it with rows of `schema`.

    Options of parquet: ``compression`` (zstd, snappy, gzip, brotli, lz4, none), ``compression_level``, ``row_group_bytes``,
    ``row_group_rows``, ``dictionary`` (true, false or column names). Of jsonl: ``nan`` (``null``: NaN and infinities become null;
    ``error``: they fail the job). Of arrow: ``compression`` (zstd, lz4, none).

    Raises `JobFileError` for an unknown type or option, `UserCodeError` naming the column whose type the format cannot hold, `OutputError`
    when the file cannot be created.
    """
    given = dict(options or {})
    match _known(type):
        case "parquet":
            from antinfer.storage.sinks.parquet import ParquetPartWriter

            return ParquetPartWriter(path, schema, given)
        case "jsonl":
            from antinfer.storage.sinks.jsonl import JsonlPartWriter

            return JsonlPartWriter(path, schema, given)
        case _:
            from antinfer.storage.sinks.arrow import ArrowPartWriter

            return ArrowPartWriter(path, schema, given)


def _known(type: str) -> str:
    if type not in TYPES:
        raise JobFileError(f"sink.type: unknown type {type!r}", hint=f"Allowed: {', '.join(TYPES)}.")
    return type
