"""The first step of every job under test: slows it down to a known speed, and counts the rows that are computed, again and again too."""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import time
from pathlib import Path

import pyarrow as pa

_COUNT = struct.Struct("<Q")


class Pace:
    """Lets at most so many rows a second pass in one process, and counts them where no death of the process undoes it."""

    def __init__(self, folder: str, rows_per_second: float) -> None:
        """
        Args:
            folder: where the counts of all processes lie; empty: nothing is counted.
            rows_per_second: 0: as many as come.
        """
        self._second_per_row = 1 / rows_per_second if rows_per_second else 0.0
        self._due = 0.0
        self._page = _page_in(Path(folder)) if folder else None
        self._rows = 0

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._second_per_row:
            now = time.monotonic()
            self._due = max(self._due, now) + batch.num_rows * self._second_per_row
            time.sleep(max(0.0, self._due - now))
        self._rows += batch.num_rows
        if self._page is not None:
            self._page[:] = _COUNT.pack(self._rows)
        return batch


def _page_in(folder: Path) -> mmap.mmap:
    path = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
    path.write_bytes(_COUNT.pack(0))
    with path.open("r+b") as file:
        # A shared page: what is written there stays when the process is killed.
        return mmap.mmap(file.fileno(), _COUNT.size)


def rows_passed(folder: Path, pid: int | None = None) -> int:
    """Add up what all processes have counted so far, or what the one of this id has."""
    pages = folder.glob("*" if pid is None else f"{pid}-*")
    return sum(_COUNT.unpack(data)[0] for path in pages if len(data := path.read_bytes()) == _COUNT.size)
