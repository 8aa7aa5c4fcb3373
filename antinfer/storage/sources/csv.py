"""CSV and its kin: a header line, a delimiter, quotes."""

from __future__ import annotations

import csv as standard_csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Final

import pyarrow as pa
import pyarrow.csv as pc

from antinfer.core.plan import Piece
from antinfer.errors import InternalError, JobFileError, SourceError
from antinfer.storage.sources import lines, schemas
from antinfer.storage.sources.base import InputFile, SizedPiece, Target
from antinfer.storage.sources.common import Rows, SourceSpec, damaged, option, reading
from antinfer.storage.sources.lines import Block, Skip
from antinfer.storage.sources.textual import LineSource, attempt, compression_of

_HEADERS_KEPT: Final = 1024
_HEADER_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class _Header:
    names: list[str]
    """Columns of the file in its order; none for a file without content."""
    rows_start: int
    """First byte after the header line."""
    has_rows: bool


class CsvSource(LineSource):
    """Every file begins with a header line unless the option ``header`` lists the names; columns are found by name.

    Types come from the first block of the first file and from the option ``schema`` (column -> type); they hold for every line. Empty lines
    are no rows. With ``newlines_in_values`` a quoted value may span lines, and a file is one piece.
    """

    type_name = "csv"
    allowed_options = ("delimiter", "quote", "escape", "header", "null_values", "newlines_in_values", "schema")
    opens_to_plan = True
    skip: ClassVar[Skip] = Skip.EMPTY

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        options = spec.options
        self._delimiter = _one_character(options, "delimiter", ",")
        self._quote = _one_character(options, "quote", '"')
        self._escape = _one_character(options, "escape", None)
        header = option(options, "header", (list, tuple), None)
        self._given_names: list[str] | None = None if header is None else [str(name) for name in header]
        nulls = option(options, "null_values", (list, tuple), None)
        self._nulls: list[str] | None = None if nulls is None else [str(value) for value in nulls]
        self._newlines: bool = option(options, "newlines_in_values", bool, False)
        self._declared = schemas.declared(option(options, "schema", dict, None))
        self._header = lru_cache(maxsize=_HEADERS_KEPT)(self._read_header)

    @property
    def whole_files(self) -> bool:
        return self._newlines

    # -- schema ----------------------------------------------------------------------------------------------------------------------
    def schema(self, file: InputFile) -> pa.Schema:
        header = self._header(file.path)
        names = header.names
        if not names:
            return pa.schema([])
        for column in self._declared:
            if column not in names:
                raise SourceError(f"{file.path}: column {column!r} of `schema` not found", hint=schemas.near(column, names))
        if self._newlines and header.has_rows:
            with self._opened_whole(file.path, pc.ConvertOptions(**self._conversion(self._declared))) as reader:
                found = reader.schema
        else:
            found = attempt(file.path, self._first_block(file.path), lambda data: self._infer(names, data), self._hint())
        return schemas.prune(schemas.without_null_types(found), self._spec.columns, file.path)

    def pieces(self, file: InputFile, target: Target) -> list[SizedPiece]:
        if file.size_bytes == 0:
            return []
        header = self._header(file.path)
        self._check_names(file.path, header.names)
        return super().pieces(file, target) if header.has_rows else []

    def _check_names(self, path: str, names: list[str]) -> None:
        if self._frozen is None or not names:
            return
        types = {field.name: field.type for field in self._frozen}
        present = names if self._spec.columns is None else [name for name in names if name in types]
        self._check_schema(path, schemas.prune(pa.schema([(name, types.get(name, pa.null())) for name in present]), None, path))

    def _infer(self, names: list[str], data: bytes) -> pa.Schema:
        if not data:
            return pa.schema([(name, self._declared.get(name, pa.null())) for name in names])
        return self._read_csv(names, data, self._conversion(self._declared), len(data) + 1).schema

    def _has_rows(self, file: InputFile) -> bool:
        return self._header(file.path).has_rows

    # -- header ----------------------------------------------------------------------------------------------------------------------
    def _read_header(self, path: str) -> _Header:
        found: _Header | None = None
        for block in self._raw_blocks(path):
            offset = block.offset
            for line in lines.split_lines(block.data):
                offset += len(line)
                text = line.rstrip(b"\r\n")
                if not text:
                    continue
                if found is not None:
                    return replace(found, has_rows=True)
                if self._given_names is not None:
                    return _Header(self._given_names, block.offset, has_rows=True)
                found = _Header(self._parse_header(path, text), offset, has_rows=False)
        return found or _Header([], 0, has_rows=False)

    def _raw_blocks(self, path: str) -> Iterator[Block]:
        codec = compression_of(path)
        with reading(path), self.open_stream(path, codec) as file:
            yield from lines.blocks(file, 0, None, _HEADER_BYTES)

    def _parse_header(self, path: str, line: bytes) -> list[str]:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as cause:
            raise damaged(path, "the header line is not valid UTF-8") from cause
        if "\r" in text:
            raise damaged(path, "the header line holds a bare carriage return", "Lines must end with LF or CRLF.")
        try:
            [names] = standard_csv.reader([text], delimiter=self._delimiter, quotechar=self._quote, escapechar=self._escape, strict=True)
        except (standard_csv.Error, ValueError) as cause:
            hint = "" if self._newlines else "Does a quoted name span lines? List the names in `header`."
            raise damaged(path, f"the header line cannot be read: {cause}", hint) from cause
        return names

    def _content_start(self, path: str) -> int:
        return self._header(path).rows_start

    # -- rows ------------------------------------------------------------------------------------------------------------------------
    def _piece_rows(self, piece: Piece, skip: int, batch_rows: int) -> Rows:
        self._check_names(piece.path, self._header(piece.path).names)
        if not self._newlines:
            return (yield from super()._piece_rows(piece, skip, batch_rows))
        for whole in self._batches(piece.path, self._require_frozen()):
            if whole.num_rows <= skip:
                skip -= whole.num_rows
                continue
            rest, skip = whole.slice(skip), 0
            for start in range(0, rest.num_rows, batch_rows):
                yield rest.slice(start, batch_rows)
        return skip

    def _count_piece(self, piece: Piece) -> int:
        if not self._newlines:
            return super()._count_piece(piece)
        return sum(batch.num_rows for batch in self._batches(piece.path, self._require_frozen()))

    def _parse(self, path: str, data: bytes, parse_bytes: int) -> pa.Table:
        schema = self._require_frozen()
        if not lines.has_rows(data, self.skip):
            return schema.empty_table()
        return self._read_csv(self._header(path).names, data, self._conversion(schema, only=True), parse_bytes)

    def _read_csv(self, names: list[str], data: bytes, conversion: dict[str, Any], parse_bytes: int) -> pa.Table:
        return pc.read_csv(
            pa.BufferReader(data),
            read_options=pc.ReadOptions(column_names=names, block_size=parse_bytes),
            parse_options=self._parse_options(),
            convert_options=pc.ConvertOptions(**conversion),
        )

    def _batches(self, path: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        if not self._header(path).has_rows:
            return
        with reading(path), self._opened_whole(path, pc.ConvertOptions(**self._conversion(schema, only=True))) as reader:
            yield from reader

    @contextmanager
    def _opened_whole(self, path: str, convert: pc.ConvertOptions) -> Iterator[Any]:
        header = self._header(path)
        with reading(path), self.open_stream(path, compression_of(path)) as file:
            file.read(header.rows_start)
            # One thread: the read-ahead of several would go on after the reader is closed in the middle.
            options = pc.ReadOptions(column_names=header.names, block_size=lines.BLOCK_BYTES, use_threads=False)
            with pc.open_csv(file, read_options=options, parse_options=self._parse_options(), convert_options=convert) as reader:
                yield reader

    def _parse_options(self) -> pc.ParseOptions:
        return pc.ParseOptions(
            delimiter=self._delimiter, quote_char=self._quote, escape_char=self._escape or False, newlines_in_values=self._newlines
        )

    def _conversion(self, types: Any, *, only: bool = False) -> dict[str, Any]:
        fields = {field.name: field.type for field in types} if isinstance(types, pa.Schema) else types
        keywords: dict[str, Any] = {"column_types": fields}
        if only:
            keywords["include_columns"] = list(fields)
        if self._nulls is not None:
            keywords.update(null_values=self._nulls, strings_can_be_null=True)
        return keywords

    def _require_frozen(self) -> pa.Schema:
        if self._frozen is None:
            raise InternalError("a CSV source is read before its schema is frozen")
        return self._frozen

    def _hint(self) -> str:
        return "Values of another type: give the column's type in `schema:`. Quoted values that span lines: newlines_in_values: true."


def _one_character(options: Any, key: str, default: str | None) -> Any:
    value = option(options, key, str, default)
    if value is not None and (len(value) != 1 or not value.isascii()):
        raise JobFileError(f"source.{key}: expected one ASCII character, got {value!r}")
    return value
