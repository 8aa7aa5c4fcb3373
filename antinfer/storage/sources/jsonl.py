"""JSON Lines: one object a line."""

from __future__ import annotations

import re
from typing import ClassVar, Final

import pyarrow as pa
import pyarrow.json as pj

from antinfer.errors import InternalError, SourceError
from antinfer.storage.sources import lines, schemas
from antinfer.storage.sources.base import InputFile
from antinfer.storage.sources.common import SourceSpec, option
from antinfer.storage.sources.lines import Skip
from antinfer.storage.sources.textual import LineSource, attempt

_NO_OBJECT: Final = re.compile(rb"\n[ \t\r]*(?![ \t\r\n{]|\Z)")


class JsonlSource(LineSource):
    """Types come from the first block of the first file and from the option ``schema`` (column -> type); they hold for every line.

    A field outside the schema is an error unless `columns` says what is wanted. A missing field is null. Blank lines are no rows.
    """

    type_name = "jsonl"
    allowed_options = ("schema",)
    skip: ClassVar[Skip] = Skip.WHITE

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        self._declared = schemas.declared(option(spec.options, "schema", dict, None))

    def schema(self, file: InputFile) -> pa.Schema:
        block = self._first_block(file.path)
        if not block.data and not self._declared:
            return pa.schema([])
        return schemas.prune(attempt(file.path, block, self._infer, self._hint()), self._spec.columns, file.path)

    def _empty_schema(self) -> pa.Schema:
        return pa.schema(list(self._declared.items()))

    def _infer(self, data: bytes) -> pa.Schema:
        if not data:
            return self._empty_schema()
        _check_lines(data)
        return schemas.without_null_types(_read(data, self._empty_schema(), "infer", len(data) + 1).schema)

    def _parse(self, path: str, data: bytes, parse_bytes: int) -> pa.Table:
        if self._frozen is None:
            raise InternalError("a JSON Lines source is read before its schema is frozen")
        if not lines.has_rows(data, self.skip):
            return self._frozen.empty_table()
        _check_lines(data)
        unexpected = "error" if self._spec.columns is None else "ignore"
        return _read(data, self._frozen, unexpected, parse_bytes)

    def _hint(self) -> str:
        return "One JSON object a line; give types of fields that vary or come late in `schema:`, or the wanted fields in `columns:`."


def _read(data: bytes, explicit: pa.Schema, unexpected: str, parse_bytes: int) -> pa.Table:
    return pj.read_json(
        pa.BufferReader(data),
        read_options=pj.ReadOptions(block_size=parse_bytes),
        parse_options=pj.ParseOptions(explicit_schema=explicit, unexpected_field_behavior=unexpected),
    )


def _check_lines(data: bytes) -> None:
    """Refuse what pyarrow's parser takes silently, or dies of: a line that is no object (``null`` is fatal to it), and broken UTF-8."""
    if not data.lstrip().startswith(b"{") or _NO_OBJECT.search(data):
        raise SourceError("a line is not a JSON object")
    if not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as cause:
            raise SourceError("not valid UTF-8") from cause
