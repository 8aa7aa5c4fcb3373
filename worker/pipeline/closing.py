"""Closing a group: its children come home, as one list a parent (`gather`) or as they are (the end of a pipeline that fans out)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from antinfer.worker.pipeline import arrays, unify
from antinfer.worker.pipeline.pieces import Group, Piece, Positions, row_positions, without_bad


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
    return without_bad(group.parent.with_rows(pa.RecordBatch.from_arrays([lists], names=[into]), None))


def children(group: Group) -> tuple[pa.RecordBatch | None, Positions]:
    """Return the surviving children of `group` in order, and their positions."""
    pieces = [without_bad(piece) for piece in group.order.take()]
    pieces = [piece for piece in pieces if piece.batch is not None]
    if not pieces:
        return None, np.empty(0, dtype=np.int64)
    return unify.concat([piece.batch for piece in pieces]), np.concatenate([row_positions(piece) for piece in pieces])
