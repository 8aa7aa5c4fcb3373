"""What the line formats share: cutting files into byte ranges, skipping, and finding the line that cannot be read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import ClassVar, Final, TypeVar

import pyarrow as pa

from antinfer.core.plan import Piece
from antinfer.errors import SourceError
from antinfer.storage.sources import lines
from antinfer.storage.sources.base import InputFile, SizedPiece, Target
from antinfer.storage.sources.common import FileSource, Rows, reading
from antinfer.storage.sources.lines import Block, Skip

COMPRESSIONS: Final = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}
"""Suffix -> pyarrow's name of the codec. A compressed file can only be read from its start, so it is one piece."""

PARSE_BYTES: Final = 1 << 20
"""What one thread of the parser gets of a block."""

Parsed = TypeVar("Parsed")

_SHOWN_CHARACTERS: Final = 100
_ASSUMED_BYTES_PER_ROW: Final = 100


def compression_of(path: str) -> str | None:
    return next((codec for suffix, codec in COMPRESSIONS.items() if path.lower().endswith(suffix)), None)


class LineSource(FileSource):
    """A source whose rows are lines."""

    skip: ClassVar[Skip]

    @property
    def whole_files(self) -> bool:
        """Whether files cannot be cut."""
        return False

    def pieces(self, file: InputFile, target: Target) -> list[SizedPiece]:
        if file.size_bytes == 0:
            return []
        if self.whole_files or compression_of(file.path):
            return [SizedPiece(Piece(file.path, 0, 0, None), file.size_bytes)]
        size = target.size_bytes
        if target.rows is not None:
            size = max(1, min(size, target.rows * _ASSUMED_BYTES_PER_ROW))
        count = -(-file.size_bytes // size)
        cuts = [file.size_bytes * i // count for i in range(count + 1)]
        return [SizedPiece(Piece(file.path, a, b, None), b - a) for a, b in pairwise(cuts)]

    def _piece_rows(self, piece: Piece, skip: int, batch_rows: int) -> Rows:
        for block in self._blocks(piece):
            if skip:
                rows = lines.count_rows(block.data, self.skip)
                if rows <= skip:
                    skip -= rows
                    continue
            table = self._parse_checked(piece.path, block)
            yield from table.slice(skip).to_batches(max_chunksize=batch_rows)
            skip = 0
        return skip

    def _count_piece(self, piece: Piece) -> int:
        return sum(lines.count_rows(block.data, self.skip) for block in self._blocks(piece))

    def _content_start(self, path: str) -> int:
        """Return the byte at which rows begin."""
        return 0

    def _blocks(self, piece: Piece) -> Iterator[Block]:
        """Yield the lines of a piece that are rows, and blank ones."""
        codec = compression_of(piece.path)
        content = self._content_start(piece.path)
        with reading(piece.path):
            if codec:
                with self.open_stream(piece.path, codec) as file:
                    file.read(content)
                    for block in lines.blocks(file, 0, None):
                        yield Block(block.data, block.offset + content)
                return
            start, stop = max(piece.start, content), piece.stop or None
            if stop is not None and start >= stop:
                return
            with self.open_random(piece.path) as file:
                yield from lines.blocks(file, start, stop)

    def _first_block(self, path: str) -> Block:
        """Return the first rows of a file, to infer types from; empty data when it has none."""
        found = (block for block in self._blocks(Piece(path, 0, 0, None)) if lines.has_rows(block.data, self.skip))
        return next(found, Block(b"", 0))

    def _has_rows(self, file: InputFile) -> bool:
        return bool(self._first_block(file.path).data)

    # -- parsing ---------------------------------------------------------------------------------------------------------------------
    @abstractmethod
    def _parse(self, path: str, data: bytes, parse_bytes: int) -> pa.Table:
        """Parse complete lines to a table of the frozen schema, in steps of `parse_bytes`.

        Raises pyarrow's errors, or `SourceError` without a place.
        """

    def _hint(self) -> str:
        """Return what to do about a line that cannot be read."""
        return ""

    def _parse_checked(self, path: str, block: Block) -> pa.Table:
        """Parse a block, and make sure that each line gave one row: ranges are cut by lines."""
        try:
            return self._parse_counted(path, block.data, PARSE_BYTES)
        except (pa.ArrowException, SourceError):
            # A line longer than a parser's step fails too; one step for everything tells the two apart.
            return attempt(path, block, lambda data: self._parse_counted(path, data, len(data) + 1), self._hint())

    def _parse_counted(self, path: str, data: bytes, parse_bytes: int) -> pa.Table:
        table = self._parse(path, data, parse_bytes)
        if not lines.one_row_a_line(data, table.num_rows, self.skip):
            expected = lines.count_rows(data, self.skip)
            raise SourceError(f"a line does not hold exactly one row ({expected} lines gave {table.num_rows} rows)")
        return table


def attempt(path: str, block: Block, parse: Callable[[bytes], Parsed], hint: str) -> Parsed:
    """Return what `parse` makes of the block. Raises `SourceError` naming the first line with which it cannot be parsed."""
    try:
        return parse(block.data)
    except (pa.ArrowException, SourceError) as cause:
        failure: Exception = cause
    split = lines.split_lines(block.data)
    good, bad = 0, len(split)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            parse(b"".join(split[:middle]))
            good = middle
        except (pa.ArrowException, SourceError) as cause:
            bad, failure = middle, cause
    offset = block.offset + sum(map(len, split[: bad - 1]))
    shown = split[bad - 1].rstrip(b"\r\n").decode("utf-8", "backslashreplace")
    shown = shown if len(shown) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS] + "..."
    why = " ".join(str(failure).split())
    raise SourceError(f"{path}: cannot read the line at byte {offset}: {why}; the line is {shown!r}", hint=hint) from failure
