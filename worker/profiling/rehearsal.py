"""The rehearsal: the sample goes once through the whole pipeline, one copy of each stage, and what every stage was given is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.graph import Call, Frame, Join, Node
from antinfer.worker.pipeline.pieces import Piece, Root, without_bad
from antinfer.worker.pipeline.splitter import Outcome, cut
from antinfer.worker.profiling.crew import working

_FIRST_ROWS = 32
"""Rows of the first wave; each one after it is twice as large."""
_MOST_BYTES = 256 << 20
"""More than this is not kept for one stage."""
_SHORTEST_SECONDS = 10.0
"""After so long no further wave begins, where the size of the sample is ours to choose."""


@dataclass(slots=True)
class Given:
    """What a stage was given and what it made of it."""

    pieces: list[Piece] = field(default_factory=list)
    rows: int = 0
    size_bytes: int = 0
    bytes_out: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What one pass left."""

    rows: int
    """Input rows that went through."""
    bad_rows: int
    given: dict[int, Given]
    """By node."""
    results: list[Piece]
    """What came out at the end, in order."""


def rehearse(nodes: Sequence[Node], batch: pa.RecordBatch, *, all_rows: bool, cpus: int, gpus: Sequence[str]) -> Rehearsed:
    """Send `batch` through `nodes`, in waves; unless `all_rows`, only as many as do not take long.

    Raises:
        UserError: GPUs that are asked for are not there.
        UserCodeError: The user code is at fault for good.
    """
    single = [_single(node) for node in nodes]
    root = Root(0)
    recorder = _Recorder(single, root)
    reached = 0
    with working(single, recorder, cpus, gpus):
        began, size = time.monotonic(), _FIRST_ROWS if _comes_in_waves(nodes) else batch.num_rows
        while reached < batch.num_rows:
            rows = batch.slice(reached, size)
            piece = Piece(root, reached, reached + rows.num_rows, rows)
            recorder.send(piece, is_last=piece.stop == batch.num_rows)
            reached += rows.num_rows
            size = min(2 * size, batch.num_rows)
            if not all_rows and (time.monotonic() - began > _SHORTEST_SECONDS or recorder.largest() > _MOST_BYTES):
                break
    return Rehearsed(reached, len(root.bad), _without_bad(recorder.given), root.order.take())


def _single(node: Node) -> Node:
    if not isinstance(node, Call):
        return node
    spec = None if node.spec is None else node.spec.model_copy(update={"concurrency": 1})
    # Rows of a hybrid stage take the way of the CPU: so both ways are known to what they lead.
    return replace(node, degree=1, spec=spec, gpu_share=None if node.hybrid is None else 0.0)


def _comes_in_waves(nodes: Sequence[Node]) -> bool:
    """Tell whether all that went in comes out before more follows: frames wait for the end, and some joins for a row that tells them."""
    return not any(isinstance(node, Frame) or (isinstance(node, Join) and node.when and node.adds is None) for node in nodes)


def _without_bad(given: dict[int, Given]) -> dict[int, Given]:
    """Leave rows out that were given up: in a batch that is run again and again, one of them would cost more than all the others."""
    for each in given.values():
        each.pieces = [piece for piece in map(without_bad, each.pieces) if piece.rows]
    return given


class _Recorder:
    """A flow that remembers what it has handed out."""

    def __init__(self, nodes: Sequence[Node], root: Root) -> None:
        self._root = root
        self._flow = Flow(nodes, self._collect)
        self._news = threading.Condition()
        self._error: BaseException | None = None
        self.given: dict[int, Given] = {at: Given() for at, node in enumerate(nodes) if isinstance(node, Call)}

    def send(self, piece: Piece, *, is_last: bool) -> None:
        """Let a piece into the pipeline and wait until it has come out. Raises what a stage failed with."""
        with self._flow.reading():
            self._flow.put(piece)
            if is_last:
                self._flow.end(self._root, piece.stop)
        self._wait(piece.stop)

    def largest(self) -> int:
        return max((given.size_bytes for given in self.given.values()), default=0)

    def stop(self) -> None:
        self._flow.stop()

    def fail(self, error: BaseException) -> None:
        with self._news:
            self._error = self._error or error
            self._news.notify_all()

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    # -- what copies call --------------------------------------------------------------------------------------------------------------
    def take(self, node: int, *, want: bool = True, owed: int = 0, wake: Callable[[], bool] = lambda: False) -> Assembled | None:
        return self._flow.take(node, want=want, owed=owed, wake=wake)

    def wake_up(self, node: int) -> None:
        self._flow.wake_up(node)

    def hold(self, node: int) -> None:
        self._flow.hold(node)

    def finish(self, node: int, call: Assembled, outcome: Outcome, seconds: float) -> None:
        given = self.given[node]
        with self._news:
            ran, _ = cut(call, outcome)
            given.pieces += ran.parts
            given.rows += ran.rows
            given.size_bytes += sum(piece.batch.nbytes for piece in ran.parts if piece.batch is not None)
            given.bytes_out += 0 if outcome.batch is None else outcome.batch.nbytes
            given.seconds += seconds
        self._flow.finish(node, call, outcome, seconds)

    def batch_rows(self, node: int) -> int:
        return self._flow.batch_rows(node)

    def set_batch_rows(self, node: int, rows: int) -> bool:
        return self._flow.set_batch_rows(node, rows)

    # -- inside ------------------------------------------------------------------------------------------------------------------------
    def _collect(self, piece: Piece) -> None:
        with self._news:
            self._root.order.add(piece)
            self._news.notify_all()

    def _wait(self, stop: int) -> None:
        with self._news:
            while self._root.order.cursor < stop:
                self.check()
                self._news.wait(0.05)
            self.check()
