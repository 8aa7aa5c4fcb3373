"""Branches: one piece goes into several, or some of its rows into one, and what they made of it is put together by identity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from antinfer.errors import UserCodeError
from antinfer.worker.pipeline import arrays, closing, unify
from antinfer.worker.pipeline.closing import NOTHING
from antinfer.worker.pipeline.pieces import Group, Meeting, Piece, Positions, take


class UnknownColumnsError(Exception):
    """No row has gone through a branch so far, so nobody knows which columns it adds."""


def fork(piece: Piece, branches: int, when: str, where: str) -> list[Piece] | None:
    """Return one piece for each branch, with the rows of `piece` (which has some) that go into it; None when none does.

    Raises UserCodeError when the column `when` is missing or holds no booleans. Rows where it is null do not go.
    """
    assert piece.batch is not None
    rows = None if not when else _chosen(piece.batch, when, where)
    if rows is not None and not len(rows):
        return None
    links = np.arange(piece.rows, dtype=np.int64) if rows is None else rows
    batch = piece.batch if rows is None else take(piece.batch, rows)
    # Only a condition needs the rows again; without one they are free as soon as the branches have done with them.
    parent = piece if when else Piece(piece.scope, piece.begin, piece.stop, None, piece.positions)
    meeting = Meeting(parent, [], branches)
    meeting.groups = [Group(parent, len(links), links, meeting=meeting) for _ in range(branches)]
    return [Piece(group, 0, len(links), batch) for group in meeting.groups]


def unite(meeting: Meeting, names: Sequence[str], where: str) -> Piece:
    """Return the parent's piece with the columns of all branches, for rows that none of them dropped.

    Raises UserCodeError when two branches return a column of the same name.
    """
    made, rows = _united(meeting, names, where)
    return meeting.parent.with_rows(made, rows) if made is not None else _empty(meeting.parent)


def merge(piece: Piece, meeting: Meeting | None, names: Sequence[str], known: pa.Schema | None, where: str) -> Piece:
    """Return `piece` with what the branches added to those of its rows that went into them.

    Args:
        piece: The piece as it was forked, rows included.
        meeting: Where its rows went; None when none did.
        names: The branches, for messages.
        known: What is known of the result's schema; None: nothing.
        where: The stage, for messages.

    Raises:
        UserCodeError: Two branches return a column of the same name, or one replaces a column by another type.
        UnknownColumnsError: No row went, and `known` is None.
    """
    assert piece.batch is not None
    made, rows = (None, NOTHING) if meeting is None else _united(meeting, names, where)
    if made is None and known is None:
        raise UnknownColumnsError
    kept, source = _kept(piece.rows, meeting, rows)
    base = take(piece.batch, kept)
    if base is None:
        return _empty(piece)
    fields: dict[str, pa.Array] = dict(zip(base.schema.names, base.columns, strict=True))
    added = source[kept]
    if made is None:
        assert known is not None
        fields |= {field.name: unify.nulls(len(kept), field.type) for field in known if field.name not in fields}
    else:
        for name, column in zip(made.schema.names, made.columns, strict=True):
            old = fields.get(name)
            fields[name] = unify.pick(column, added) if old is None else _replaced(old, column, added, name, where)
    merged = pa.RecordBatch.from_arrays(list(fields.values()), names=list(fields))
    return piece.with_rows(merged, kept)


def drop(piece: Piece, meeting: Meeting | None) -> Piece:
    """Return `piece` without those of its rows that a branch, which changes none, has dropped."""
    if meeting is None:
        return piece
    assert piece.batch is not None
    (group,) = meeting.groups
    _, rows = closing.children(group)
    kept, _ = _kept(piece.rows, meeting, group.links[rows])
    return piece if len(kept) == piece.rows else piece.with_rows(take(piece.batch, kept), kept)


def _chosen(batch: pa.RecordBatch, when: str, where: str) -> Positions:
    if when not in batch.schema.names:
        raise UserCodeError(
            f"{where}: there is no column {when!r} for its when; there are {', '.join(batch.schema.names)}",
            hint="The step before must return it.",
        )
    column = batch.column(when)
    if pa.types.is_null(column.type):
        return NOTHING
    if not pa.types.is_boolean(column.type):
        raise UserCodeError(
            f"{where}: its when names the column {when!r}, which is {column.type} and not boolean", hint="Compare it: score < 0.5."
        )
    mask = arrays.to_plain(column.fill_null(False) if column.null_count else column)
    assert mask is not None
    return np.flatnonzero(mask)


def _united(meeting: Meeting, names: Sequence[str], where: str) -> tuple[pa.RecordBatch | None, Positions]:
    """Return the columns of all branches, and for each row the row of the parent; None when no row is left."""
    found = [(batch, group.links[rows]) for group in meeting.groups for batch, rows in [closing.children(group)]]
    common = found[0][1]
    for _, rows in found[1:]:
        if len(rows) != len(common) or not np.array_equal(rows, common):
            common = np.intersect1d(common, rows, assume_unique=True)
    if not len(common):
        return None, common
    columns: dict[str, pa.Array] = {}
    owner: dict[str, str] = {}
    for branch, (batch, rows) in zip(names, found, strict=True):
        assert batch is not None
        fitting = batch if len(rows) == len(common) else take(batch, np.searchsorted(rows, common))
        assert fitting is not None
        for name, column in zip(fitting.schema.names, fitting.columns, strict=True):
            if name in columns:
                raise UserCodeError(
                    f"{where}: the branches {owner[name]!r} and {branch!r} both return a column {name!r}",
                    hint="Rename it in one of them, or do not return it.",
                )
            columns[name], owner[name] = column, branch
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), common


def _kept(total: int, meeting: Meeting | None, rows: Positions) -> tuple[Positions, Positions]:
    """Return the rows that are left, and for each of `total` its place in the branches' result, -1 where it has none."""
    source = np.full(total, -1, dtype=np.int64)
    source[rows] = np.arange(len(rows))
    if meeting is None:
        return np.arange(total, dtype=np.int64), source
    gone = source < 0
    gone[np.setdiff1d(np.arange(total), meeting.groups[0].links, assume_unique=True)] = False
    return np.flatnonzero(~gone), source


def _replaced(old: pa.Array, new: pa.Array, source: Positions, name: str, where: str) -> pa.Array:
    kind = unify.common(old.type, new.type)
    if kind is None:
        raise UserCodeError(
            f"{where} returns a column {name!r} of type {new.type}; the rows that skip it have {old.type} there",
            hint="Return the same type, or name the column otherwise.",
        )
    both = pa.concat_arrays([unify.fit(old, kind), unify.fit(new, kind)])
    return unify.pick(both, np.where(source < 0, np.arange(len(old)), source + len(old)))


def _empty(piece: Piece) -> Piece:
    return Piece(piece.scope, piece.begin, piece.stop, None)
