"""The assembler: full batches cut across the borders of tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from antinfer.worker.pipeline import unify
from antinfer.worker.pipeline.pieces import Piece

_SMALL_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a batch may be."""

    rows: int
    max_bytes: int | None = None
    """Cut earlier when so many bytes are reached; None: `rows` is exact."""
    whole: bool = False
    """Pieces were cut to batches before (`frames`): each is one, and so their rows cannot be changed."""


@dataclass(eq=False, slots=True)
class Assembled:
    """One batch for one call, and the pieces it was put together from."""

    parts: list[Piece]
    deaths: int = 0
    """How often a process died over it, or over it and others that were under way beside it."""
    fused: bool = False
    """True for rows of a hybrid stage that nobody has run yet, given to the predictor behind it: its process runs both."""
    cut_from: int = 0
    """Rows that batches had when one did not fit into memory that this is, or is a part of, and they were cut smaller for it; 0: none."""
    deaths_at_once: int = 0
    """How often one died over it that had answered nothing before: nobody else can be to blame for that."""

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def batch(self, select: Callable[[pa.RecordBatch], pa.RecordBatch]) -> pa.RecordBatch:
        """Return the rows, of each part what `select` leaves; a copy is made only when they come from several pieces."""
        return unify.concat(self.batches(select))

    def batches(self, select: Callable[[pa.RecordBatch], pa.RecordBatch]) -> list[pa.RecordBatch]:
        """Return the rows as they lie in the pieces, of each part what `select` leaves."""
        return [select(part.batch) for part in self.parts if part.batch is not None]

    @property
    def is_dropped(self) -> bool:
        """True when nobody wants the results of any of it any more."""
        return all(part.root.dropped for part in self.parts)

    def shares(self, count: int) -> list[Assembled]:
        """Split a batch into at most `count` parts of like size, none of them empty."""
        if count < 2 or self.rows < 2:
            return [self]
        left, right = self.halves()
        return [*left.shares(count // 2), *right.shares(count - count // 2)]

    def halves(self) -> tuple[Assembled, Assembled]:
        """Split a batch of at least two rows in the middle."""
        return self.cut(self.rows // 2)

    def cut(self, row: int) -> tuple[Assembled, Assembled]:
        """Split a batch before `row` (0 < row < rows)."""
        left: list[Piece] = []
        right = deque(self.parts)
        missing = row
        while missing:
            part = right.popleft()
            if part.rows > missing:
                part, rest = part.cut(missing)
                right.appendleft(rest)
            left.append(part)
            missing -= part.rows
        return replace(self, parts=left), replace(self, parts=list(right))


class Assembler:
    """Queue in front of a stage: pieces go in, batches come out; leases in turn, and of each what came first."""

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self.rows = 0
        self.size_bytes = 0
        self._pieces: deque[Piece] = deque()
        self._sizes: deque[int] = deque()

    def put(self, piece: Piece) -> None:
        """Take in a piece that has rows."""
        assert piece.batch is not None
        size = size_of(piece.batch)
        at, turn = len(self._pieces), piece.root.turn
        while at and self._pieces[at - 1].root.turn > turn:
            at -= 1
        self._pieces.insert(at, piece)
        self._sizes.insert(at, size)
        self.rows += piece.rows
        self.size_bytes += size

    def put_back(self, rest: Assembled) -> None:
        """Take in again what a batch was too large for: it goes before all others, as it did when it was taken."""
        for piece in reversed(rest.parts):
            assert piece.batch is not None
            self._put_back(piece, size_of(piece.batch))

    def full(self, limits: BatchLimits | None = None) -> bool:
        """Tell whether a whole batch is there: of `limits`, or of the queue's own."""
        limits = limits or self.limits
        if limits.whole:
            return bool(self._pieces)
        return self.rows >= limits.rows or (limits.max_bytes is not None and self.size_bytes >= limits.max_bytes)

    def take(self, limits: BatchLimits | None = None) -> Assembled | None:
        """Return the next batch, smaller than the limit when no more rows are there; None when there is none.

        Pieces of dropped leases are thrown away on the way. The limit is that of `limits`, or the queue's own.
        """
        limits = limits or self.limits
        parts: list[Piece] = []
        rows, size_bytes = 0, 0
        while self._pieces and rows < limits.rows:
            piece, size = self._pop()
            if piece.root.dropped:
                continue
            if limits.whole:
                return Assembled([piece])
            room = _room(limits, piece, size, rows=rows, size_bytes=size_bytes)
            if not room:
                self._put_back(piece, size)
                break
            if room < piece.rows:
                taken_bytes = size * room // piece.rows
                piece, rest = piece.cut(room)
                self._put_back(rest, size - taken_bytes)
                size = taken_bytes
            parts.append(piece)
            rows += piece.rows
            size_bytes += size
        return Assembled(parts) if parts else None

    def _pop(self) -> tuple[Piece, int]:
        piece, size = self._pieces.popleft(), self._sizes.popleft()
        self.rows -= piece.rows
        self.size_bytes -= size
        return piece, size

    def _put_back(self, piece: Piece, size: int) -> None:
        self._pieces.appendleft(piece)
        self._sizes.appendleft(size)
        self.rows += piece.rows
        self.size_bytes += size


def size_of(batch: pa.RecordBatch) -> int:
    """Return the bytes of `batch`; for a small one, where measuring takes longer than it is worth, with what it is a slice of."""
    size: int = batch.get_total_buffer_size()
    return size if size < _SMALL_BYTES else int(batch.nbytes)


def _room(limits: BatchLimits, piece: Piece, size: int, *, rows: int, size_bytes: int) -> int:
    room = min(limits.rows - rows, piece.rows)
    if limits.max_bytes is not None and size_bytes + size > limits.max_bytes:
        fits = (limits.max_bytes - size_bytes) * piece.rows // max(1, size)
        # A single row above the limit is admitted alone: nothing may wait for room that never comes.
        room = min(room, max(fits, 0 if rows else 1))
    return room
