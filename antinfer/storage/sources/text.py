"""Plain text: one row a line, in the column ``text``."""

from __future__ import annotations

from typing import ClassVar, Final

import pyarrow as pa
import pyarrow.compute as pc

from antinfer.errors import SourceError
from antinfer.storage.sources import schemas
from antinfer.storage.sources.base import InputFile
from antinfer.storage.sources.lines import Skip
from antinfer.storage.sources.textual import LineSource

TEXT: Final = "text"
_SCHEMA: Final = pa.schema([(TEXT, pa.string())])


class TextSource(LineSource):
    """Every line is a row, empty ones too; the line end (LF or CRLF) is no part of the value. UTF-8."""

    type_name = "text"
    skip: ClassVar[Skip] = Skip.NONE

    def schema(self, file: InputFile) -> pa.Schema:
        return schemas.prune(_SCHEMA, self._spec.columns, file.path)

    def _empty_schema(self) -> pa.Schema:
        return _SCHEMA

    def _parse(self, path: str, data: bytes, parse_bytes: int) -> pa.Table:
        try:
            whole = pa.array([data.removesuffix(b"\n")], pa.large_binary()).cast(pa.large_string())
        except pa.ArrowInvalid as cause:
            raise SourceError("not valid UTF-8") from cause
        values = pc.split_pattern(whole, "\n").flatten()
        if b"\r" in data:
            values = pc.replace_substring_regex(values, r"\r\z", "")
        return pa.table([values.cast(pa.string())], schema=_SCHEMA)

    def _hint(self) -> str:
        return "Convert the file to UTF-8, or read it with type: files."
