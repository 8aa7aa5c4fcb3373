"""Parts as Parquet files, with the commit record in the footer."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from antinfer.errors import JobFileError
from antinfer.storage import failures
from antinfer.storage.held import HeldBatches
from antinfer.storage.sinks.base import PartWriter, choice, explained, positive, take_options

_OPTIONS: Final = ("compression", "compression_level", "row_group_bytes", "row_group_rows", "dictionary")
_CODECS: Final = ("zstd", "snappy", "gzip", "brotli", "lz4", "none")
_ROW_GROUP_BYTES: Final = 64 << 20
_ROW_GROUP_ROWS: Final = 1 << 20


class ParquetPartWriter(PartWriter):
    """Gathers batches until a row group is worth writing: readers pay for every row group, writers for memory."""

    def __init__(self, path: str, schema: pa.Schema, options: Mapping[str, Any]) -> None:
        super().__init__(path, schema)
        take_options("parquet", options, _OPTIONS)
        self._group_bytes = positive(options, "row_group_bytes", _ROW_GROUP_BYTES)
        self._group_rows = positive(options, "row_group_rows", _ROW_GROUP_ROWS)
        self._held = HeldBatches()
        self._buffered_rows = 0
        with self._explained():
            self._writer = pq.ParquetWriter(path, schema, **_settings(schema, options))

    def _write(self, data: pa.RecordBatch | pa.Table) -> None:
        for batch in data.to_batches() if isinstance(data, pa.Table) else (data,):
            self._held.add(batch)
            self._buffered_rows += batch.num_rows
            self.buffered_bytes = self._held.size_bytes
            if self.buffered_bytes >= self._group_bytes or self._buffered_rows >= self._group_rows:
                self._flush()

    def _close(self, metadata: dict[str, str]) -> None:
        if self._held:
            self._flush()
        with self._explained():
            if metadata:
                self._writer.add_key_value_metadata(metadata)
            self._writer.close()

    def _abort(self) -> None:
        with failures.wrapped(self.path, "giving up a part"):
            self._writer.close()

    def _flush(self) -> None:
        with self._explained():
            self._writer.write_table(pa.Table.from_batches(self._held.take(), self.schema), row_group_size=self._group_rows)
        self._buffered_rows = self.buffered_bytes = 0

    def _explained(self) -> AbstractContextManager[None]:
        return explained("parquet", self.path, self.schema, _probe)


def _settings(schema: pa.Schema, options: Mapping[str, Any]) -> dict[str, Any]:
    # zstd at its fastest levels costs about what snappy costs and stores less: see benchmarks.
    codec = choice("parquet", options, "compression", _CODECS, "zstd")
    settings: dict[str, Any] = {"compression": codec, "version": "2.6", "write_page_index": False}
    level = options.get("compression_level", 1 if codec == "zstd" else None)
    if level is not None:
        if isinstance(level, bool) or not isinstance(level, int) or codec in ("snappy", "none"):
            raise JobFileError(f"sink.options.compression_level: {level!r} is not a level of {codec}")
        settings["compression_level"] = level
    dictionary = options.get("dictionary", True)
    if isinstance(dictionary, list):
        missing = [name for name in dictionary if name not in schema.names]
        if missing:
            message = f"sink.options.dictionary: the result has no column {missing[0]!r}"
            raise JobFileError(message, hint=f"It has {', '.join(schema.names)}.")
    elif not isinstance(dictionary, bool):
        raise JobFileError(f"sink.options.dictionary: must be true, false or a list of columns, not {dictionary!r}")
    settings["use_dictionary"] = dictionary
    return settings


def _probe(schema: pa.Schema, sink: io.BytesIO) -> None:
    with pq.ParquetWriter(sink, schema) as writer:
        writer.write_table(schema.empty_table())
