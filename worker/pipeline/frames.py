"""Frames: pieces cut and joined at fixed positions of their scope, so that batches come out the same however the rows came in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from antinfer.worker.pipeline import unify
from antinfer.worker.pipeline.pieces import Group, Piece, Root, row_positions


class Frames:
    """Collects the pieces of each frame ``[k * rows, (k + 1) * rows)`` of each scope until it is covered."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._open: dict[Root | Group, dict[int, _Frame]] = {}

    @property
    def is_empty(self) -> bool:
        """True when no frame of a lease that somebody wants is half covered."""
        self._sweep()
        return not self._open

    def put(self, piece: Piece) -> list[Piece]:
        """Take a piece in; return the frames that it completes, each as one piece."""
        if piece.begin == piece.stop:
            return [piece]
        if piece.scope not in self._open:
            self._sweep()
        frames = self._open.setdefault(piece.scope, {})
        for number in range(piece.begin // self._rows, (piece.stop - 1) // self._rows + 1):
            part = piece.until((number + 1) * self._rows).since(number * self._rows)
            frames.setdefault(number, _Frame()).add(part)
        return self.complete(piece.scope)

    def complete(self, scope: Root | Group) -> list[Piece]:
        """Return the frames of `scope` that are covered, each as one piece: also those that its end, known meanwhile, has cut short."""
        frames = self._open.get(scope, {})
        end = len(scope.links) if isinstance(scope, Group) else scope.end
        done = [number for number, frame in frames.items() if frame.covered == self._rows or frame.covered == self._last(number, end)]
        made = [frames.pop(number).join() for number in done]
        if not frames:
            self._open.pop(scope, None)
        return made

    def _last(self, number: int, end: int | None) -> int | None:
        """Return the positions of frame `number` that lie before `end`."""
        return None if end is None else end - number * self._rows

    def _sweep(self) -> None:
        for scope in [scope for scope in self._open if _root(scope).dropped]:
            del self._open[scope]


class _Frame:
    def __init__(self) -> None:
        self._parts: list[Piece] = []
        self.covered = 0

    def add(self, part: Piece) -> None:
        self._parts.append(part)
        self.covered += part.stop - part.begin

    def join(self) -> Piece:
        parts = sorted(self._parts, key=lambda part: part.begin)
        first, last = parts[0], parts[-1]
        if first is last:
            return first
        filled = [part for part in parts if part.batch is not None]
        if not filled:
            return Piece(first.scope, first.begin, last.stop, None)
        batch = unify.concat([part.batch for part in filled])
        return Piece(first.scope, first.begin, last.stop, batch, np.concatenate([row_positions(part) for part in filled]))


def reach(start: int, stop: int, frames: Sequence[int]) -> tuple[int, int]:
    """Return what must be read so that each frame which any of the rows ``[start, stop)`` goes through is whole.

    Args:
        start: First row that is wanted.
        stop: Row behind the last.
        frames: Sizes of the frames that cut the lease, in the order of the pipeline.
    """
    for rows in reversed(frames):
        start -= start % rows
        stop += -stop % rows
    return start, stop


def _root(scope: Root | Group) -> Root:
    while isinstance(scope, Group):
        scope = scope.parent.scope
    return scope
