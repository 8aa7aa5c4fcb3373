"""The splitter: what a call returned goes back to the pieces its batch was made of, by identity."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import pyarrow as pa

from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.pieces import BadRow, Group, Piece, Positions, give_up, take


@dataclass(eq=False, slots=True)
class Outcome:
    """What one call of user code made of one batch."""

    batch: pa.RecordBatch | None
    """New rows; None when there are none."""
    rows: Positions | None = None
    """For each new row the row of the batch it came from, ascending; None: one for one."""
    bad: list[tuple[int, BadRow]] | None = None
    """Rows of the batch that were given up, and why."""
    ran: int | None = None
    """It is of so many rows, the first ones of the batch, and the others were not run; None: all were."""

    @classmethod
    def nothing(cls, bad: list[tuple[int, BadRow]] | None = None) -> Outcome:
        """Return that of a call without any result."""
        return cls(None, np.empty(0, dtype=np.int64), bad)


def cut(call: Assembled, outcome: Outcome) -> tuple[Assembled, Assembled | None]:
    """Return what of `call` the `outcome` is of, and what is still to be run; None when that is nothing."""
    return (call, None) if outcome.ran is None else call.cut(outcome.ran)


def split(call: Assembled, outcome: Outcome, *, fans_out: bool) -> list[Piece]:
    """Return one piece for each part of `call`, holding its share of `outcome`; with `fans_out` each opens a group.

    Raises ValueError when a one-for-one outcome has another number of rows.
    """
    if outcome.rows is None and outcome.batch is not None and outcome.batch.num_rows != call.rows:
        raise ValueError(f"{call.rows} rows went in, {outcome.batch.num_rows} came out")
    starts = _borders(call)
    _give_up(call, starts, outcome)
    bad = np.array(sorted(row for row, _ in outcome.bad or ()), dtype=np.int64)
    pieces = []
    for part, (start, stop) in zip(call.parts, pairwise(starts), strict=True):
        batch, rows = _share(outcome, start, stop)
        if not fans_out:
            pieces.append(part.with_rows(batch, rows))
            continue
        gone = bad[(bad >= start) & (bad < stop)] - start
        pieces.append(_open_group(part, gone, batch, np.arange(part.rows, dtype=np.int64) if rows is None else rows))
    return pieces


def select(call: Assembled, outcome: Outcome) -> list[Piece]:
    """Return one piece for each part of `call`, holding those of its own rows that `outcome.rows` names: a filter."""
    starts = _borders(call)
    _give_up(call, starts, outcome)
    kept = outcome.rows
    if kept is None:
        return list(call.parts)
    pieces = []
    for part, (start, stop) in zip(call.parts, pairwise(starts), strict=True):
        low, high = np.searchsorted(kept, (start, stop))
        rows = kept[low:high] - start
        assert part.batch is not None
        pieces.append(part if len(rows) == part.rows else part.with_rows(take(part.batch, rows), rows))
    return pieces


def _borders(call: Assembled) -> list[int]:
    """Return the first row of every part of `call`, and the end."""
    return list(accumulate((part.rows for part in call.parts), initial=0))


def _share(outcome: Outcome, start: int, stop: int) -> tuple[pa.RecordBatch | None, Positions | None]:
    """Cut the rows that came from ``[start, stop)`` of the batch out of `outcome`, and say which of these they came from."""
    if outcome.rows is None:
        return (None if outcome.batch is None else outcome.batch.slice(start, stop - start)), None
    low, high = (int(at) for at in np.searchsorted(outcome.rows, (start, stop)))
    batch = outcome.batch.slice(low, high - low) if outcome.batch is not None and high > low else None
    return batch, outcome.rows[low:high] - start


def _open_group(part: Piece, gone: Positions, batch: pa.RecordBatch | None, links: Positions) -> Piece:
    parent = Piece(part.scope, part.begin, part.stop, None, part.positions)
    parents = part.rows
    if len(gone):
        stay = np.setdiff1d(np.arange(part.rows, dtype=np.int64), gone)
        parent = part.with_rows(None, stay)
        parents = len(stay)
        links = np.searchsorted(stay, links)
    group = Group(parent, parents, links)
    return Piece(group, 0, len(links), batch)


def _give_up(call: Assembled, starts: Sequence[int], outcome: Outcome) -> None:
    for row, reason in outcome.bad or ():
        at = bisect_right(starts, row) - 1
        give_up(call.parts[at], row - starts[at], reason)
