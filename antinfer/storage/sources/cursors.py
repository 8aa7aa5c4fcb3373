"""Reads that stopped in the middle of a shard and wait for the next one to go on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator

import pyarrow as pa

from antinfer.core.plan import Piece, Shard

_Key = tuple[int, tuple[Piece, ...], int, int]


class Cursor:
    """An open read of a shard, standing at a row."""

    __slots__ = ("_batches", "_rest", "position")

    def __init__(self, batches: Generator[pa.RecordBatch, None, None], position: int) -> None:
        self._batches = batches
        self._rest: pa.RecordBatch | None = None
        self.position = position
        """Offset in the shard of the next row."""

    def take(self, rows: int) -> pa.RecordBatch | None:
        """Return the next batch, cut to at most `rows` rows (> 0); None at the end of the shard."""
        batch = self._rest
        while batch is None or batch.num_rows == 0:
            batch = next(self._batches, None)
            if batch is None:
                return None
        self._rest = batch.slice(rows) if batch.num_rows > rows else None
        taken = batch.slice(0, rows)
        self.position += taken.num_rows
        return taken

    def close(self) -> None:
        """Release files and buffers."""
        self._rest = None
        self._batches.close()


class ParkedCursors:
    """A few cursors by (shard, next row, batch size); the longest unused one is closed when there are too many. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._cursors: OrderedDict[_Key, Cursor] = OrderedDict()

    def take(self, shard: Shard, start: int, batch_rows: int) -> Cursor | None:
        """Remove and return the cursor that stands at row `start` of `shard`."""
        with self._lock:
            return self._cursors.pop(_key(shard, start, batch_rows), None)

    def park(self, shard: Shard, batch_rows: int, cursor: Cursor) -> None:
        """Keep `cursor` for the read that goes on where it stands."""
        closing: list[Cursor] = []
        with self._lock:
            key = _key(shard, cursor.position, batch_rows)
            replaced = self._cursors.pop(key, None)
            if replaced is not None:
                closing.append(replaced)
            self._cursors[key] = cursor
            while len(self._cursors) > self._limit:
                closing.append(self._cursors.popitem(last=False)[1])
        for old in closing:
            old.close()


def _key(shard: Shard, row: int, batch_rows: int) -> _Key:
    # The ends of the shard stand for all its pieces: hashing thousands of small files for each read would cost more than it tells.
    return shard.index, (shard.pieces[0], shard.pieces[-1]), row, batch_rows
