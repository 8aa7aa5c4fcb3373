"""Junctions: nodes that call no user code. Pieces are forked, joined, sorted, framed and gathered here, on the way from queue to queue."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pyarrow as pa

from antinfer.errors import UserCodeError
from antinfer.worker.pipeline import branches, buckets, closing
from antinfer.worker.pipeline.branches import UnknownColumnsError
from antinfer.worker.pipeline.frames import Frames
from antinfer.worker.pipeline.graph import Call, Close, Fork, Frame, Join, Node, Routes, Sort, Unsort
from antinfer.worker.pipeline.pieces import Group, Meeting, Piece, Root
from antinfer.worker.schemas import SchemaGate

Stop = tuple[int, Piece]
"""A piece, and the node that it has to go to."""


class Junctions:
    """May be used from several threads. Shares the lock of the flow, under which only counters and lists change."""

    def __init__(self, nodes: Sequence[Node], routes: Routes, lock: threading.Lock) -> None:
        self._nodes = nodes
        self._after = routes.after
        self._lock = lock
        self.gates = [SchemaGate(_where(node)) for node in nodes]
        """What the results of each node look like."""
        self._frames = {at: Frames(node.rows) for at, node in enumerate(nodes) if isinstance(node, Frame)}
        self._held: dict[int, list[tuple[Piece, Meeting | None]]] = {}
        """By join: pieces that wait until somebody knows which columns the branches add."""

    def arrive(self, at: int, piece: Piece) -> list[Stop]:
        """Pass `piece` through node `at`, which is no call; return what goes on, and where to. Raises UserCodeError."""
        node = self._nodes[at]
        match node:
            case Frame():
                with self._lock:
                    made = self._frames[at].put(piece)
            case Fork():
                return self._fork(at, node, piece)
            case Join():
                return self._join(at, node, piece)
            case Sort():
                made = buckets.sort(piece, node.buckets, self._where(at)) if piece.rows else [_unsorted(piece)]
            case _:
                assert isinstance(node, (Close, Unsort))
                group = self._complete(piece)
                if group is None:
                    return []
                made = [self._close(at, node, group) if isinstance(node, Close) else buckets.unsort(group)]
        return [(self._after[at], each) for each in made]

    def end(self, root: Root, end: int) -> list[Stop]:
        """Take note of where the input of `root` ends; return what that completes."""
        with self._lock:
            root.end = end
            return [(self._after[at], piece) for at, frames in self._frames.items() for piece in frames.complete(root)]

    def are_framing(self) -> bool:
        """Tell whether rows wait for others that come behind them in their scope. The caller has the lock."""
        return not all(frames.is_empty for frames in self._frames.values())

    def held_at(self, joins: Sequence[int]) -> int | None:
        """Return which of `joins` holds pieces back that somebody wants; None without. The caller has the lock."""
        for at, held in self._held.items():
            if at in joins and not all(piece.root.dropped for piece, _ in held):
                return at
        return None

    @property
    def is_holding(self) -> bool:
        """True when a join holds pieces back."""
        return bool(self._held)

    def unknown(self, at: int) -> UserCodeError:
        """Return what to raise when join `at` holds pieces and no row will ever tell which columns the branches add."""
        return UserCodeError(
            f"{self._where(at)}: none of the rows at hand goes through it, so nobody knows which columns it adds",
            hint="Name them: adds: [column, ...] beside its when.",
        )

    # -- inside ----------------------------------------------------------------------------------------------------------------------
    def _fork(self, at: int, node: Fork, piece: Piece) -> list[Stop]:
        if not piece.rows:
            return [(self._after[at], piece)]
        made = branches.fork(piece, len(node.branches), node.when, self._where(at))
        if made is None:
            return self._merge(node.join, piece, None)
        return list(zip(node.branches, made, strict=True))

    def _join(self, at: int, node: Join, piece: Piece) -> list[Stop]:
        group = piece.scope
        assert isinstance(group, Group) and group.meeting is not None
        meeting = group.meeting
        with self._lock:
            group.order.add(piece)
            meeting.missing -= group.complete
            if meeting.missing:
                return []
        if node.when:
            return self._merge(at, meeting.parent, meeting)
        united = branches.unite(meeting, node.branches, self._where(at))
        return [(self._after[at], self._fitted(at, united))]

    def _merge(self, at: int, piece: Piece, meeting: Meeting | None) -> list[Stop]:
        node = self._nodes[at]
        assert isinstance(node, Join)
        if node.drops_only:
            return [(self._after[at], branches.drop(piece, meeting))]
        was_known = self.gates[at].schema is not None
        try:
            merged = self._merged(at, node, piece, meeting)
        except UnknownColumnsError:
            with self._lock:
                if self.gates[at].schema is None:
                    self._held.setdefault(at, []).append((piece, meeting))
                    return []
            merged = self._merged(at, node, piece, meeting)
        made = [merged]
        if not was_known and self.gates[at].schema is not None:
            with self._lock:
                held = self._held.pop(at, [])
            made += [self._merged(at, node, *one) for one in held]
        return [(self._after[at], each) for each in made]

    def _merged(self, at: int, node: Join, piece: Piece, meeting: Meeting | None) -> Piece:
        known = self.gates[at].schema
        if known is None and node.adds is not None:
            known = pa.schema([(name, pa.null()) for name in node.adds])
        return self._fitted(at, branches.merge(piece, meeting, node.branches, known, self._where(at)))

    def _close(self, at: int, node: Close, group: Group) -> Piece:
        if not node.into:
            return closing.flatten(group)
        return self._fitted(at, closing.gather(group, node.into, self.gates[at - 1].schema))

    def _fitted(self, at: int, piece: Piece) -> Piece:
        if piece.batch is not None:
            piece.batch = self.gates[at].fit(piece.batch)
        return piece

    def _complete(self, piece: Piece) -> Group | None:
        group = piece.scope
        assert isinstance(group, Group)
        with self._lock:
            group.order.add(piece)
            return group if group.complete else None

    def _where(self, at: int) -> str:
        return _where(self._nodes[at])


def _unsorted(piece: Piece) -> Piece:
    """Return the piece of a new group without rows: what has none need not be sorted, but is looked for behind the sorting."""
    group = Group(Piece(piece.scope, piece.begin, piece.stop, None), 0, closing.NOTHING)
    return Piece(group, 0, 0, None)


def _where(node: Node) -> str:
    match node:
        case Call():
            return node.stage.where
        case Close():
            return f"gather {node.name!r}"
        case _:
            return f"stage {node.name!r}"
