"""The plan: the immutable list of shards, and the compact index of it that the ledger works on."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import groupby

from antinfer.core.ids import ShardId
from antinfer.core.ranges import Rows
from antinfer.core.values import value

UNKNOWN_ROWS = -1
"""Stands in a `PlanIndex` for the row count of a shard that has not been opened yet."""


@value
class Piece:
    """A part of one file that can be read alone.

    `start` and `stop` count row groups (parquet), bytes (csv, jsonl, text; aligned to line ends by the reader), record batches (arrow) or
    nothing (0, 0: the whole file, for compressed text and for binary files).
    """

    path: str
    start: int
    stop: int
    rows: int | None
    """Rows in this piece, or None when only opening it can tell."""


@value
class Retry:
    """What a retry round takes of a shard: only the rows that are in quarantine."""

    round: int
    runs: tuple[int, ...]
    """Start and stop of every run of such rows in turn, rising."""

    def rows(self) -> Iterator[Rows]:
        return map(Rows, self.runs[::2], self.runs[1::2])


@value
class Shard:
    """One entry of the plan: pieces read one after the other. A row's identity is (shard, offset)."""

    index: ShardId
    pieces: tuple[Piece, ...]
    rows: int | None
    """Sum of the pieces' rows, or None when any of them is unknown."""
    size_bytes: int
    """Bytes of input behind the shard as stored; drives progress and size targets only."""
    retry: Retry | None = None
    """Set by the master of a retry round where it hands the shard out; no part of the plan."""

    def path_of(self, offset: int) -> str:
        """Return the file that the row at `offset` is in; empty when only reading the files before it could tell."""
        for piece in self.pieces:
            if piece is self.pieces[-1] or (piece.rows is not None and offset < piece.rows):
                return piece.path
            if piece.rows is None:
                break
            offset -= piece.rows
        return ""


class PlanIndex:
    """Row counts of all planned shards, 8 bytes a shard; what the engine needs to know of the plan.

    Grows while the plan streams in. Shards without a known row count hold `UNKNOWN_ROWS` for ever: what opening them found out is ledger
    state, not plan.
    """

    __slots__ = ("_rows", "complete")

    def __init__(self, rows: Iterable[int | None] = (), *, complete: bool = False) -> None:
        self._rows = array("q")
        self.complete = complete
        """True when no shard will be added."""
        self.extend(rows)

    def extend(self, rows: Iterable[int | None]) -> None:
        self._rows.extend(UNKNOWN_ROWS if count is None else count for count in rows)

    def rows(self, shard: int) -> int | None:
        """Return the planned row count of `shard`, None when the plan does not know it. Raises IndexError beyond the plan."""
        count = self._rows[shard]
        return None if count == UNKNOWN_ROWS else count

    def sized_rows(self, start: int, stop: int) -> tuple[int, int]:
        """Return the planned rows of the shards ``[start, stop)`` whose count is known, and how many shards have none."""
        part = self._rows[start:stop]
        unsized = part.count(UNKNOWN_ROWS)
        return sum(part) - unsized * UNKNOWN_ROWS, unsized

    def runs(self, shards: int) -> list[tuple[int | None, int]]:
        """Return the row counts of the first `shards` shards as runs of equal ones: (row count, how many shards)."""
        groups = groupby(self._rows[:shards])
        return [(None if count == UNKNOWN_ROWS else count, len(list(group))) for count, group in groups]

    def __len__(self) -> int:
        return len(self._rows)
