"""Batches of rows of like length: the rows of each piece are sorted into buckets, and a batch is filled from one bucket, across pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from antinfer.errors import UserCodeError
from antinfer.worker.pipeline import arrays, closing
from antinfer.worker.pipeline.assembler import Assembled, BatchLimits, size_of
from antinfer.worker.pipeline.pieces import Group, Piece, Positions, take

_PATIENCE_BATCHES = 64
"""A bucket whose oldest row has seen so many batches leave is emptied although it fills none: it holds back whatever the row belongs to."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """How rows are sorted."""

    column: str
    edges: tuple[int, ...] = ()
    """Longest rows of all buckets but the last; empty: powers of two."""
    max_tokens: int | None = None
    """Rows of a batch times its longest row stay below or at this; a longer row goes alone."""

    def lengths(self, batch: pa.RecordBatch, where: str) -> Positions:
        """Return the length of every row; 0 for nulls. Raises UserCodeError when the column is missing or has none."""
        if self.column not in batch.schema.names:
            raise UserCodeError(
                f"{where}: there is no column {self.column!r} for its bucket_by; there are {', '.join(batch.schema.names)}",
                hint="The step before must return it.",
            )
        # Imported here: it takes as long as numpy, and few jobs sort their rows.
        import pyarrow.compute as pc

        column = batch.column(self.column)
        kind = column.type
        if pa.types.is_null(kind):
            return np.zeros(len(column), dtype=np.int64)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = pc.utf8_length(column)
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            column = pc.binary_length(column)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            column = pc.list_value_length(column)
        elif not pa.types.is_integer(kind):
            raise UserCodeError(
                f"{where}: its bucket_by names the column {self.column!r}, which is {kind}",
                hint="Whole numbers count as they are; of text, bytes and lists it is their length.",
            )
        lengths = arrays.to_plain(pc.fill_null(column, 0) if column.null_count else column)
        assert lengths is not None
        return lengths.astype(np.int64)

    def of(self, lengths: Positions) -> NDArray[np.int64]:
        """Return the bucket of each length, counted from 0 for the shortest."""
        if self.edges:
            return np.searchsorted(np.array(self.edges, dtype=np.int64), lengths, side="left")
        return np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64)


def sort(piece: Piece, buckets: Buckets, where: str) -> list[Piece]:
    """Return the rows of `piece`, which has some, as the pieces of a new group, one for each bucket that is not empty."""
    assert piece.batch is not None
    lengths = buckets.of(buckets.lengths(piece.batch, where))
    links = np.argsort(lengths, kind="stable")
    borders = np.flatnonzero(np.diff(lengths[links])) + 1
    group = Group(Piece(piece.scope, piece.begin, piece.stop, None, piece.positions), piece.rows, links)
    starts, stops = [0, *borders.tolist()], [*borders.tolist(), piece.rows]
    return [Piece(group, start, stop, take(piece.batch, links[start:stop])) for start, stop in zip(starts, stops, strict=True)]


def unsort(group: Group) -> Piece:
    """Return the parent's piece with the rows of a complete `group` in the order they had before they were sorted."""
    batch, positions = closing.children(group)
    if batch is None:
        return Piece(group.parent.scope, group.parent.begin, group.parent.stop, None)
    rows = group.links[positions]
    order = np.argsort(rows)
    return group.parent.with_rows(take(batch, order), rows[order])


class BucketQueue:
    """Queue in front of a stage as `assembler.Assembler`, whose batches hold rows of one bucket only."""

    def __init__(self, limits: BatchLimits, buckets: Buckets, where: str) -> None:
        self.limits = limits
        self.rows = 0
        self.size_bytes = 0
        self._buckets = buckets
        self._where = where
        self._queues: dict[int, _Bucket] = {}
        self._entered = 0
        self._left = 0

    def measure(self, piece: Piece) -> Positions:
        """Return the lengths that `put` needs: looking at the rows takes its time, and is not for whoever holds a lock."""
        assert piece.batch is not None
        return self._buckets.lengths(piece.batch, self._where)

    def put(self, piece: Piece, lengths: Positions) -> None:
        """Append a piece whose rows, some, belong to one bucket."""
        assert piece.batch is not None
        bucket = int(self._buckets.of(lengths[:1])[0])
        self._entered += 1
        entry = _Entry(piece, lengths, size_of(piece.batch), self._entered, self._left)
        self._queues.setdefault(bucket, _Bucket()).add(entry)
        self.rows += piece.rows
        self.size_bytes += entry.size

    def full(self, limits: BatchLimits | None = None) -> bool:
        """Tell whether some bucket has a whole batch, or one that has waited for too long."""
        return any(True for _ in self._ready(limits or self.limits))

    def take(self, limits: BatchLimits | None = None) -> Assembled | None:
        """Return the next batch: of a bucket that fills one, else of the bucket with the oldest row; None when there is none."""
        limits = limits or self.limits
        while self._queues:
            candidates = list(self._ready(limits)) or list(self._queues)
            bucket = min(candidates, key=lambda one: self._queues[one].entries[0].number)
            parts = self._cut(self._queues[bucket], limits)
            if not self._queues[bucket].entries:
                del self._queues[bucket]
            if parts:
                self._left += 1
                return Assembled(parts)
        return None

    def _ready(self, limits: BatchLimits) -> Iterator[int]:
        for number, bucket in self._queues.items():
            is_long = self._buckets.max_tokens is not None and bucket.rows * bucket.longest >= self._buckets.max_tokens
            is_large = limits.max_bytes is not None and bucket.size >= limits.max_bytes
            has_waited = self._left - bucket.entries[0].left >= _PATIENCE_BATCHES
            if limits.whole or bucket.rows >= limits.rows or is_long or is_large or has_waited:
                yield number

    def _cut(self, bucket: _Bucket, limits: BatchLimits) -> list[Piece]:
        parts: list[Piece] = []
        rows, size, longest = 0, 0, 0
        while bucket.entries and rows < limits.rows:
            entry = bucket.pop()
            self.rows -= entry.piece.rows
            self.size_bytes -= entry.size
            if entry.piece.root.dropped:
                continue
            room = self._room(entry, limits, rows, size, longest)
            if limits.whole and parts and parts[0].scope is not entry.piece.scope:
                # Batches that must come out again are not mixed of rows that met by chance.
                room = 0
            if room < entry.piece.rows:
                rest = entry.rest(room)
                bucket.put_back(rest)
                self.rows += rest.piece.rows
                self.size_bytes += rest.size
                if not room:
                    break
                entry = entry.head(room)
            parts.append(entry.piece)
            rows += entry.piece.rows
            size += entry.size
            longest = max(longest, int(entry.lengths.max()))
        return parts

    def _room(self, entry: _Entry, limits: BatchLimits, rows: int, size: int, longest: int) -> int:
        room = min(limits.rows - rows, entry.piece.rows)
        if limits.max_bytes is not None and size + entry.size > limits.max_bytes:
            room = min(room, (limits.max_bytes - size) * entry.piece.rows // max(1, entry.size))
        if self._buckets.max_tokens is not None:
            reached = np.maximum(np.maximum.accumulate(entry.lengths[:room]), longest) * np.arange(rows + 1, rows + room + 1)
            room = int(np.searchsorted(reached, self._buckets.max_tokens, side="right"))
        # A row above the limits goes alone: nothing may wait for room that never comes.
        return max(room, 0 if rows else 1)


@dataclass(eq=False, slots=True)
class _Entry:
    piece: Piece
    lengths: Positions
    size: int
    number: int
    """Entries count up as they come."""
    left: int
    """Batches that had left the queue when it came."""

    def head(self, rows: int) -> _Entry:
        return _Entry(self.piece.cut(rows)[0], self.lengths[:rows], self.size * rows // self.piece.rows, self.number, self.left)

    def rest(self, rows: int) -> _Entry:
        if not rows:
            return self
        size = self.size - self.size * rows // self.piece.rows
        return _Entry(self.piece.cut(rows)[1], self.lengths[rows:], size, self.number, self.left)


class _Bucket:
    def __init__(self) -> None:
        self.entries: deque[_Entry] = deque()
        self.rows = 0
        self.size = 0
        self.longest = 0
        """No row is longer, though the one that was may have left."""

    def add(self, entry: _Entry) -> None:
        self.entries.append(entry)
        self._count(entry)

    def put_back(self, entry: _Entry) -> None:
        self.entries.appendleft(entry)
        self._count(entry)

    def pop(self) -> _Entry:
        entry = self.entries.popleft()
        self.rows -= entry.piece.rows
        self.size -= entry.size
        if not self.entries:
            self.longest = 0
        return entry

    def _count(self, entry: _Entry) -> None:
        self.rows += entry.piece.rows
        self.size += entry.size
        self.longest = max(self.longest, int(entry.lengths.max()))
