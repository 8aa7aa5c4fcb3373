"""Pieces: rows on their way through the pipeline, together with who they are.

A scope is a space of row positions: the root scope is one lease, whose positions are row offsets in the shard; every call of a flat_map
opens a group, whose positions count the child rows. A piece covers ``[begin, stop)`` of one scope *completely*: each position in it has its
row here, or was dropped (filtered, quarantined) for good. So whatever happens to rows, pieces that touch prove that nothing is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from antinfer.worker.pipeline import arrays

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BadRow:
    """Why an input row was given up."""

    error: str
    traceback: str = ""
    stage: str = ""


class Root:
    """Scope of one lease. Subclassed by the host, which knows the rest about it."""

    def __init__(self, start: int) -> None:
        self.order = Order(start)
        """Finished pieces, put back into input order."""
        self.bad: dict[int, BadRow] = {}
        """Offset -> why that row goes to quarantine."""
        self.end: int | None = None
        """Where the input itself ends, as soon as that is known."""
        self.turn = 0
        """Of several that have rows waiting the lowest goes first: what is finished is committed, and lost with nobody."""
        self.dropped = False
        """True when nobody wants the results any more; its pieces are thrown away wherever they are met."""


@dataclass(eq=False, slots=True)
class Piece:
    """Rows of one scope, in order."""

    scope: Root | Group
    begin: int
    stop: int
    batch: pa.RecordBatch | None
    """None when no row is left."""
    positions: Positions | None = None
    """Position of every row, ascending; None: row i is at ``begin + i``."""

    @property
    def rows(self) -> int:
        return 0 if self.batch is None else int(self.batch.num_rows)

    @property
    def origin(self) -> Piece:
        """The piece of the lease itself that these rows were made of."""
        piece = self
        while isinstance(piece.scope, Group):
            piece = piece.scope.parent
        return piece

    @property
    def root(self) -> Root:
        scope = self.scope
        while isinstance(scope, Group):
            scope = scope.parent.scope
        return scope

    def position(self, row: int) -> int:
        return self.begin + row if self.positions is None else int(self.positions[row])

    def cut(self, row: int) -> tuple[Piece, Piece]:
        """Split before `row` (0 < row < rows) without copying. Positions dropped between the two halves are covered by the first."""
        assert self.batch is not None
        border = self.position(row)
        first, second = (None, None) if self.positions is None else (self.positions[:row], self.positions[row:])
        return (
            Piece(self.scope, self.begin, border, self.batch.slice(0, row), first),
            Piece(self.scope, border, self.stop, self.batch.slice(row), second),
        )

    def until(self, stop: int) -> Piece:
        """Return what of the piece lies before position `stop`, without copying."""
        if stop >= self.stop:
            return self
        rows = stop - self.begin if self.positions is None else int(np.searchsorted(self.positions, stop))
        positions = None if self.positions is None else self.positions[:rows]
        return Piece(self.scope, self.begin, stop, self.batch.slice(0, rows) if self.batch is not None and rows else None, positions)

    def since(self, begin: int) -> Piece:
        """Return what of the piece lies at position `begin` and behind it, without copying."""
        if begin <= self.begin:
            return self
        row = begin - self.begin if self.positions is None else int(np.searchsorted(self.positions, begin))
        rest = self.batch.slice(row) if self.batch is not None and row < self.rows else None
        return Piece(self.scope, begin, self.stop, rest, None if self.positions is None else self.positions[row:])

    def with_rows(self, batch: pa.RecordBatch | None, rows: Positions | None) -> Piece:
        """Return a piece that covers the same positions with other contents.

        Args:
            batch: The new rows.
            rows: For each of them the row of this piece that it came from, ascending; None: one for one.
        """
        if rows is None:
            positions = self.positions
        elif self.positions is None:
            positions = rows + self.begin
        else:
            positions = self.positions[rows]
        return Piece(self.scope, self.begin, self.stop, batch, positions)


@dataclass(eq=False, slots=True)
class Group:
    """Scope of the children that one call of a flat_map made of one piece, or of its rows on their way through a branch or sorted."""

    parent: Piece
    """The piece they came from, without its rows."""
    parents: int
    """Rows of that piece that entered the flat_map and were not given up by it."""
    links: Positions
    """For each child the row of the parent piece that it came from; ascending, but for rows that were sorted."""
    order: Order = field(default_factory=lambda: Order(0))
    given_up: set[int] = field(default_factory=set)
    """Rows of the parent piece that were given up for something made of them in this group."""
    meeting: Meeting | None = None
    """For a branch: where it meets the others."""

    @property
    def complete(self) -> bool:
        return self.order.cursor == len(self.links)


@dataclass(eq=False, slots=True)
class Meeting:
    """Where the branches that one piece went into come together again."""

    parent: Piece
    """The piece; with its rows where they are needed again."""
    groups: list[Group]
    """One for each branch."""
    missing: int
    """Branches that are not complete."""


class Order:
    """Puts finished pieces of one scope back into order, whatever order they come in."""

    __slots__ = ("_waiting", "cursor", "ready")

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        """Everything before this position is in `ready`, or was taken from there."""
        self.ready: list[Piece] = []
        self._waiting: dict[int, Piece] = {}

    def add(self, piece: Piece) -> bool:
        """Take a piece in; tell whether the finished prefix grew. Raises ValueError for positions that are already there."""
        if piece.begin < self.cursor or piece.begin in self._waiting:
            raise ValueError(f"positions [{piece.begin}, {piece.stop}) came back twice")
        self._waiting[piece.begin] = piece
        before = self.cursor
        while self.cursor in self._waiting:
            found = self._waiting.pop(self.cursor)
            self.ready.append(found)
            if found.stop == self.cursor:
                break
            self.cursor = found.stop
        return self.cursor > before

    def take(self) -> list[Piece]:
        """Return and forget the ready pieces, in order."""
        ready, self.ready = self.ready, []
        return ready


def root_offsets(scope: Root | Group, positions: Positions) -> Positions:
    """Return the offset of the input row behind each of `positions` of `scope`."""
    while isinstance(scope, Group):
        rows = scope.links[positions]
        parent = scope.parent
        positions = rows + parent.begin if parent.positions is None else parent.positions[rows]
        scope = parent.scope
    return positions


def give_up(piece: Piece, row: int, reason: BadRow) -> None:
    """Send the input row behind `row` of `piece` to quarantine, with everything that was made of it. The first reason stays."""
    scope, position = piece.scope, piece.position(row)
    while isinstance(scope, Group):
        parent_row = int(scope.links[position])
        scope.given_up.add(parent_row)
        parent = scope.parent
        scope, position = parent.scope, parent.position(parent_row)
    scope.bad.setdefault(position, reason)


def row_positions(piece: Piece) -> Positions:
    """Return the position of every row of `piece`."""
    return np.arange(piece.begin, piece.begin + piece.rows, dtype=np.int64) if piece.positions is None else piece.positions


def without_bad(piece: Piece) -> Piece:
    """Drop the rows of a root piece, or of a group's piece, whose input row was given up."""
    bad = piece.root.bad
    if not bad or piece.batch is None:
        return piece
    offsets = root_offsets(piece.scope, row_positions(piece))
    keep = np.flatnonzero(~np.isin(offsets, np.fromiter(list(bad), dtype=np.int64)))
    if len(keep) == piece.rows:
        return piece
    return piece.with_rows(take(piece.batch, keep), keep)


def take(batch: pa.RecordBatch, rows: NDArray[Any]) -> pa.RecordBatch | None:
    """Return the given rows of `batch`, None when there are none; without a copy when they are neighbours and most of it.

    A few rows that are not copied would keep the memory of the whole batch alive, which nobody counts.
    """
    if not len(rows):
        return None
    if 2 * len(rows) >= batch.num_rows and int(rows[-1]) - int(rows[0]) + 1 == len(rows) and bool(np.all(np.diff(rows) == 1)):
        return batch.slice(int(rows[0]), len(rows))
    try:
        return batch.take(arrays.from_plain(rows))
    except pa.ArrowNotImplementedError:
        # Arrow cannot pick rows of every type (string views, run-end encoding), but it can put any together.
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        return pa.concat_batches([batch.slice(int(run[0]), len(run)) for run in runs])
