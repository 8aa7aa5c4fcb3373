"""Parts as JSON Lines, in UTF-8. The commit record lies in an object beside the part: lines hold rows and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from antinfer.errors import UserCodeError
from antinfer.storage import failures
from antinfer.storage.sinks import json_text
from antinfer.storage.sinks.base import PartWriter, choice, take_options, unsupported

_CHUNK_ROWS: Final = 8192
_CHUNK_BYTES: Final = 16 << 20
"""Rows turned into text at once: their text must stay far below the 2 GiB that one Arrow string column holds."""
_FILE_BUFFER: Final = 1 << 20


class JsonlPartWriter(PartWriter):
    """Writes every batch at once; see `json_text` for the form of each type."""

    def __init__(self, path: str, schema: pa.Schema, options: Mapping[str, Any]) -> None:
        super().__init__(path, schema)
        take_options("jsonl", options, ("nan",))
        self._strict = choice("jsonl", options, "nan", ("null", "error"), "null") == "error"
        field = json_text.unsupported_field(schema)
        if field is not None:
            raise unsupported("jsonl", field)
        with failures.wrapped(path, "creating a part"):
            self._file = open(path, "wb", buffering=_FILE_BUFFER)  # noqa: SIM115 - lives as long as the writer

    def _write(self, data: pa.RecordBatch | pa.Table) -> None:
        for batch in data.to_batches() if isinstance(data, pa.Table) else (data,):
            chunks = max(1, -(-batch.num_rows // _CHUNK_ROWS), -(-batch.nbytes // _CHUNK_BYTES))
            length = max(1, -(-batch.num_rows // chunks))
            for at in range(0, batch.num_rows, length):
                self._write_chunk(batch.slice(at, length))

    def _close(self, metadata: dict[str, str]) -> None:
        with failures.wrapped(self.path, "writing a part"):
            self._file.close()

    def _abort(self) -> None:
        with failures.wrapped(self.path, "giving up a part"):
            self._file.close()

    def _write_chunk(self, chunk: pa.RecordBatch) -> None:
        try:
            text = json_text.lines(chunk, nan_is_error=self._strict)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserCodeError(f"a result cannot be written as jsonl: {error}") from error
        with failures.wrapped(self.path, "writing a part"):
            self._file.write(text)
