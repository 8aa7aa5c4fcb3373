"""Sources: data sets in one format, listed, planned without a full read, and read from any row."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from antinfer.errors import JobFileError

if TYPE_CHECKING:
    import pyarrow as pa

    from antinfer.storage.sources.base import Source

# Imported when asked for: each format pulls in its own part of pyarrow.
_TYPES: Final = {
    "parquet": ("antinfer.storage.sources.parquet", "ParquetSource"),
    "csv": ("antinfer.storage.sources.csv", "CsvSource"),
    "jsonl": ("antinfer.storage.sources.jsonl", "JsonlSource"),
    "arrow": ("antinfer.storage.sources.arrow", "ArrowSource"),
    "text": ("antinfer.storage.sources.text", "TextSource"),
    "files": ("antinfer.storage.sources.files", "FilesSource"),
}
SOURCE_TYPES: Final = tuple(_TYPES)
"""Values of ``source.type``."""


def open_source(
    type: str,
    path: str | Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    frozen_schema: pa.Schema | None = None,
) -> Source:
    """Open a data set.

    Args:
        type: One of `SOURCE_TYPES`.
        path: File, folder, pattern or URI, or several of them.
        columns: Names of the wanted columns, in the order they shall have; None for all.
        options: Options of the format (for CSV ``delimiter`` and others), and ``storage``: options of the file system.
        frozen_schema: The schema that `Source.freeze` returned when the data set was planned.

    Raises:
        JobFileError: The type or an option is unknown, or has a value that is not allowed.
    """
    if type not in _TYPES:
        raise JobFileError(f"source.type {type!r} is not known", hint=f"Allowed: {', '.join(SOURCE_TYPES)}.")
    paths = (path,) if isinstance(path, str) else tuple(path)
    if not paths:
        raise JobFileError("source.path is empty", hint="Give at least one file, folder or pattern.")
    from antinfer.storage.sources.common import SourceSpec

    module, name = _TYPES[type]
    wanted = None if columns is None else tuple(columns)
    spec = SourceSpec(paths=paths, columns=wanted, options=dict(options or {}), frozen_schema=frozen_schema)
    source: Source = getattr(importlib.import_module(module), name)(spec)
    return source
