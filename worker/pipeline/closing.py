"""Closing a group: its children come home, as one list a parent (`gather`) or as they are (the end of a pipeline that fans out)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from antinfer.worker.pipeline import arrays, unify
from antinfer.worker.pipeline.pieces import Group, Piece, Positions, row_positions, take

NOTHING: Positions = np.empty(0, dtype=np.int64)


def flatten(group: Group) -> Piece:
    """Return the parent's piece with the children of a complete `group` as its rows: several may share a position."""
    batch, positions = children(group)
    return group.parent.with_rows(batch, group.links[positions])


def gather(group: Group, into: str, child: pa.Schema | None) -> Piece:
    """Return the parent's piece: one row a parent, whose column `into` lists its children as structs.

    Args:
        group: A complete group.
        into: Name of the column.
        child: Schema of the children where it is known, so that a group without any has the same type as its siblings.
    """
    batch, positions = children(group)
    if group.parents == 0:
        return group.parent
    schema = batch.schema if batch is not None else child
    counts = np.bincount(group.links[positions], minlength=group.parents)
    offsets = arrays.from_plain(np.concatenate(([0], np.cumsum(counts))).astype(np.int32))
    if schema is None:
        values: pa.Array = pa.nulls(0)
    elif batch is None:
        values = pa.nulls(0, pa.struct(list(schema)))
    else:
        values = pa.StructArray.from_arrays(batch.columns, fields=list(schema))
    lists = pa.ListArray.from_arrays(offsets, values)
    made = pa.RecordBatch.from_arrays([lists], names=[into])
    if not group.given_up:
        return group.parent.with_rows(made, None)
    kept = np.flatnonzero(~_are_given_up(group, np.arange(group.parents, dtype=np.int64)))
    return group.parent.with_rows(take(made, kept), kept)


def children(group: Group) -> tuple[pa.RecordBatch | None, Positions]:
    """Return the children of a complete `group` in order, and their positions, without those whose parent row was given up.

    What was given up elsewhere meanwhile does not count, so that the result depends on nothing but the group.
    """
    pieces = [piece for piece in group.order.take() if piece.batch is not None]
    if not pieces:
        return None, NOTHING
    batch = unify.concat([piece.batch for piece in pieces])
    positions = np.concatenate([row_positions(piece) for piece in pieces])
    if group.given_up:
        kept = np.flatnonzero(~_are_given_up(group, group.links[positions]))
        batch, positions = take(batch, kept), positions[kept]
    return batch, positions


def _are_given_up(group: Group, rows: Positions) -> NDArray[np.bool_]:
    return np.isin(rows, np.fromiter(group.given_up, dtype=np.int64))
