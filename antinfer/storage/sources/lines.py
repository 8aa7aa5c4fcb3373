"""Complete lines out of a byte range: the one place that knows who owns a line.

A range ``[start, stop)`` owns every line that begins inside it. So any cutting of a file into ranges yields each line exactly once,
whatever the cuts hit: the reader of a range skips what began before it and reads on past its end to finish its last line. A line ends
with LF or with the file; the CR of a CRLF belongs to the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

BLOCK_BYTES: Final = 8 << 20
"""Bytes read and parsed at a time; large enough to keep several cores busy, small enough to hold many."""

_FINISH_BYTES: Final = 64 << 10
_BOM: Final = b"\xef\xbb\xbf"
_WHITE: Final = re.compile(rb"\n[ \t\r]*(?=\n)")
_ENDS_ONLY: Final = re.compile(rb"\n\r*(?=\n)")


class Skip(Enum):
    """Which lines are no rows, as the parser of the format has it."""

    NONE = b""
    EMPTY = b"\r"
    """Lines of nothing but their end (CSV)."""
    WHITE = b" \t\r"
    """Lines of nothing but white space (JSON)."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some complete lines."""

    data: bytes
    offset: int
    """Byte in the (decompressed) file at which `data` begins."""


def blocks(file: Any, start: int, stop: int | None, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the lines that begin in ``[start, stop)`` of `file`, in blocks of about `block_bytes` bytes of complete lines.

    Args:
        file: A binary file at its start; it needs to seek only when `start` > 0.
        start: First byte of the range.
        stop: End of the range, None for the end of the file.
        block_bytes: Size of the reads.
    """
    position = _first_line(file, start) if start > 0 else 0
    begin, carry = position, list[bytes]()
    while stop is None or position < stop:
        chunk = file.read(block_bytes if stop is None else min(block_bytes, stop - position))
        if not chunk:
            break
        position += len(chunk)
        cut = chunk.rfind(b"\n") + 1
        if cut:
            data = b"".join((*carry, chunk[:cut]))
            yield from _block(data, begin)
            begin += len(data)
            carry = [chunk[cut:]] if cut < len(chunk) else []
        else:
            carry.append(chunk)
    if carry:
        yield from _block(b"".join((*carry, *_up_to_newline(file))), begin)


def count_rows(data: bytes, skip: Skip) -> int:
    """Count the lines of `data` (complete lines) that are rows."""
    total = _count_lines(data)
    if skip is Skip.NONE:
        return total
    # A pattern that begins with a plain byte runs ten times as fast as one anchored at line starts; the first and the last line stay over.
    blank = sum(1 for _ in (_WHITE if skip is Skip.WHITE else _ENDS_ONLY).finditer(data))
    first, _, _ = data.partition(b"\n")
    blank += bool(data) and not first.strip(skip.value)
    last = data.rpartition(b"\n")
    return total - blank - (bool(last[1]) and bool(last[2]) and not last[2].strip(skip.value))


def one_row_a_line(data: bytes, rows: int, skip: Skip) -> bool:
    """Tell whether a parser that made `rows` rows of `data` took each line for one, in most cases without looking for blank lines."""
    if skip is Skip.EMPTY and rows == _count_lines(data) and b"\r" not in data:
        # Only a bare CR makes two CSV rows of a line, so nothing can make up for an empty line or for a value that spans lines.
        return True
    return rows == count_rows(data, skip)


def has_rows(data: bytes, skip: Skip) -> bool:
    """Tell whether any line of `data` is a row."""
    return bool(data.lstrip(skip.value + b"\n")) if skip is not Skip.NONE else bool(data)


def _count_lines(data: bytes) -> int:
    return data.count(b"\n") + (bool(data) and not data.endswith(b"\n"))


def split_lines(data: bytes) -> list[bytes]:
    """Split complete lines, each with its line end."""
    return data.splitlines(keepends=True) if b"\r" not in data else re.findall(rb"[^\n]*\n|[^\n]+\Z", data)


def _first_line(file: Any, start: int) -> int:
    """Return where the first line that begins at or after `start` begins (maybe the end of the file), and leave `file` there."""
    # From the byte before: when it ends a line, the line at `start` is the first.
    file.seek(start - 1)
    position = start - 1 + sum(len(part) for part in _up_to_newline(file))
    file.seek(position)
    return position


def _up_to_newline(file: Any) -> Iterator[bytes]:
    while chunk := file.read(_FINISH_BYTES):
        cut = chunk.find(b"\n") + 1
        if cut:
            yield chunk[:cut]
            return
        yield chunk


def _block(data: bytes, begin: int) -> Iterator[Block]:
    if begin == 0 and data.startswith(_BOM):
        data, begin = data[len(_BOM) :], len(_BOM)
    if data:
        yield Block(data, begin)
