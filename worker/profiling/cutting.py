"""Batches for a measurement, cut as a run cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from antinfer.worker.pipeline.assembler import Assembled, Assembler, BatchLimits
from antinfer.worker.pipeline.buckets import BucketQueue, Buckets
from antinfer.worker.pipeline.pieces import Piece

_BATCHES = 4
"""Different batches, where the rows reach: what is cached of one must not help the next."""
_PIECES = 1 << 14


def cut(pieces: Sequence[Piece], limits: BatchLimits, buckets: Buckets | None, where: str) -> list[Assembled]:
    """Return full batches of the rows of `pieces`, which are repeated when they are too few for one."""
    queue = Assembler(limits) if buckets is None else BucketQueue(limits, buckets, where)
    rows = sum(piece.rows for piece in pieces)
    wanted = max(rows, limits.rows if buckets is None else _BATCHES * limits.rows)
    for number, piece in enumerate(cycle(pieces)):
        if (queue.rows >= wanted or (limits.max_bytes is not None and queue.size_bytes >= _BATCHES * limits.max_bytes)) or number > _PIECES:
            break
        if isinstance(queue, BucketQueue):
            queue.put(piece, queue.measure(piece))
        else:
            queue.put(piece)
    batches = []
    while queue.rows and (call := queue.take()) is not None:
        batches.append(call)
    # What is left at the end is smaller than a batch in the middle of a run.
    full = [call for call in batches if call.rows >= limits.rows]
    return batches if buckets is not None else full or batches[:-1] or batches
