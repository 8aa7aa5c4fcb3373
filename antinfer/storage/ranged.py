"""An object of a remote store as a file: ranges of it are fetched as they are read."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO, Final, cast

_READ_BYTES: Final = 1 << 20
Fetch = Callable[[int, int], bytes]
"""Returns the bytes of an object from one position up to another."""


def open_ranged(size: int, fetch: Fetch, tail: bytes = b"") -> BinaryIO:
    """Return a file to be read at any position.

    Args:
        size: of the object, in bytes.
        fetch: reads it; raises what the reader of the file is to see.
        tail: its last bytes, where footers lie, if they are known already.
    """
    return cast(BinaryIO, io.BufferedReader(_Ranged(size, fetch, tail), _READ_BYTES))


class _Ranged(io.RawIOBase):
    def __init__(self, size: int, fetch: Fetch, tail: bytes) -> None:
        super().__init__()
        self._size = size
        self._fetch = fetch
        self._tail = tail
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._size)
        if self._at >= stop:
            return 0
        data = self._range(self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _range(self, start: int, stop: int) -> bytes:
        tail_at = self._size - len(self._tail)
        if start >= tail_at:
            return self._tail[start - tail_at : stop - tail_at]
        return self._fetch(start, stop)
