"""The flow: pieces move from the readers through the nodes of the pipeline to their leases.

One lock guards all queues; nothing slow happens under it. Executors take batches (`take`) and bring outcomes back (`finish`). What a node
does is in `worker.pipeline`; when it may do it is here:

- a full batch runs at once, unless the next queue holds too many bytes;
- a smaller one runs when nothing upstream has added to it for a moment and nothing can (end of the work at hand, readers out of credit), or
  when its queue holds too many bytes. So every row that was read comes out, and its credit comes back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from antinfer.worker.pipeline import closing
from antinfer.worker.pipeline.assembler import Assembled, Assembler
from antinfer.worker.pipeline.graph import Call, Close, Node
from antinfer.worker.pipeline.pieces import Group, Piece
from antinfer.worker.pipeline.splitter import Outcome, select, split
from antinfer.worker.pipeline.statistics import NodeStats
from antinfer.worker.schemas import SchemaGate

_QUEUE_BYTES = 64 << 20
_BATCHES_BYTES = 512 << 20
"""A queue may hold more than the above for the sake of two batches of a size that the user chose, but not more than this."""
_LINGER_SECONDS = 0.02


class Flow:
    """Queues, counters and the rules between them. All methods may be called from several threads."""

    def __init__(self, nodes: Sequence[Node], collect: Callable[[Piece], None]) -> None:
        """`collect` takes finished pieces of root scopes; it is called without the lock."""
        self.nodes = nodes
        self._collect = collect
        self._lock = threading.Lock()
        self._wakers = [threading.Condition(self._lock) for _ in nodes]
        self._bells = [threading.Condition(self._lock) for _ in nodes]
        """For those who want no batch now: waking one of them when a batch is there would leave it to nobody."""
        self._queues = [Assembler(node.limits) if isinstance(node, Call) else None for node in nodes]
        self._gates = [SchemaGate(node.stage.where if isinstance(node, Call) else f"gather {node.name!r}") for node in nodes]
        self._busy = [0] * len(nodes)
        self._readers = 0
        self._quiet_since = time.monotonic()
        self._stopped = False
        self._stats = [NodeStats(node.name) for node in nodes]

    # -- readers ---------------------------------------------------------------------------------------------------------------------
    @contextmanager
    def reading(self) -> Iterator[None]:
        """Tell that more rows are on their way for as long as the block runs."""
        with self._lock:
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                self._settle()

    def put(self, piece: Piece) -> None:
        """Let a piece into the pipeline."""
        self._forward(0, piece)

    # -- executors -------------------------------------------------------------------------------------------------------------------
    def take(self, node: int, *, want: bool = True, wake: Callable[[], bool] = lambda: False) -> Assembled | None:
        """Wait for a batch for `node`; None when the flow has stopped, or as soon as `wake` is true after `wake_up`.

        With `want` false it only waits for those two. The caller owes `finish` or `forget` for every batch.
        """
        with self._lock:
            while not self._stopped and not wake():
                if not want:
                    self._bells[node].wait()
                    continue
                timeout = self._delay(node)
                if timeout is None or timeout > 0:
                    self._wait(node, timeout)
                elif (call := self._take(node)) is not None:
                    return call
            return None

    def wake_up(self, node: int) -> None:
        """Have every `take` of `node` look at its `wake` again."""
        with self._lock:
            self._wakers[node].notify_all()
            self._bells[node].notify_all()

    def finish(self, node: int, call: Assembled, outcome: Outcome, seconds: float) -> None:
        """Send what became of `call` on. Raises UserCodeError when the schema differs from that of earlier batches."""
        at = self.nodes[node]
        assert isinstance(at, Call)
        if at.stage.kind == "filter":
            pieces = select(call, outcome)
        else:
            if outcome.batch is not None:
                outcome.batch = self._gates[node].fit(outcome.batch)
            pieces = split(call, outcome, fans_out=at.stage.kind == "flat_map")
        for piece in pieces:
            self._forward(node + 1, piece)
        stats = self._stats[node]
        stats.batches += 1
        stats.rows_out += sum(piece.rows for piece in pieces)
        self.forget(node, seconds)

    def hold(self, node: int) -> None:
        """Count one more batch of `node` as under way: a batch that was taken is finished in two halves."""
        with self._lock:
            self._busy[node] += 1

    def forget(self, node: int, seconds: float = 0.0) -> None:
        """Count one batch of `node` as done with."""
        with self._lock:
            self._busy[node] -= 1
            self._stats[node].busy_seconds += seconds
            self._settle()

    def statistics(self) -> list[NodeStats]:
        """Return what was counted so far, one entry for each node."""
        with self._lock:
            for stats, queue in zip(self._stats, self._queues, strict=True):
                if queue is not None:
                    stats.queue_rows, stats.queue_bytes = queue.rows, queue.size_bytes
            return [replace(stats) for stats in self._stats]

    def batch_rows(self, node: int) -> int:
        """Return how many rows a batch of `node` has at most."""
        queue = self._queues[node]
        assert queue is not None
        return queue.limits.rows

    def set_batch_rows(self, node: int, rows: int) -> bool:
        """Change how many rows a batch of `node` has at most; False when they are fixed, since the job is to be reproducible."""
        queue = self._queues[node]
        assert queue is not None
        with self._lock:
            queue.limits = replace(queue.limits, rows=rows)
            self._wakers[node].notify_all()
        return True

    def stop(self) -> None:
        """End every `take`, now and later."""
        with self._lock:
            self._stopped = True
            for waker in (*self._wakers, *self._bells):
                waker.notify_all()

    # -- inside ----------------------------------------------------------------------------------------------------------------------
    def _forward(self, node: int, piece: Piece) -> None:
        todo = deque([(node, piece)])
        while todo:
            at, piece = todo.popleft()
            if piece.root.dropped:
                continue
            if at == len(self.nodes):
                self._collect(piece)
                continue
            here = self.nodes[at]
            if isinstance(here, Close):
                group = self._close(piece)
                if group is not None:
                    todo.append((at + 1, self._closed(at, here, group)))
            elif piece.rows == 0:
                todo.append((at + 1, self._empty_group(piece) if here.stage.kind == "flat_map" else piece))
            else:
                self._enqueue(at, piece)

    def _enqueue(self, node: int, piece: Piece) -> None:
        queue = self._queues[node]
        assert queue is not None
        with self._lock:
            queue.put(piece)
            self._quiet_since = time.monotonic()
            self._wakers[node].notify()

    def _close(self, piece: Piece) -> Group | None:
        group = piece.scope
        assert isinstance(group, Group)
        with self._lock:
            group.order.add(piece)
            return group if group.complete else None

    def _closed(self, node: int, close: Close, group: Group) -> Piece:
        if not close.into:
            return closing.flatten(group)
        child = self._gates[node - 1].schema
        piece = closing.gather(group, close.into, child)
        if piece.batch is not None:
            piece.batch = self._gates[node].fit(piece.batch)
        return piece

    @staticmethod
    def _empty_group(piece: Piece) -> Piece:
        return split(Assembled([piece]), Outcome(None), fans_out=True)[0]

    def _wait(self, node: int, timeout: float | None) -> None:
        """Wait for news, and count for what."""
        queue, stats = self._queues[node], self._stats[node]
        is_blocked = bool(queue and queue.rows) and not self._room_after(node)
        began = time.monotonic()
        self._wakers[node].wait(timeout)
        if is_blocked:
            stats.blocked_seconds += time.monotonic() - began
        else:
            stats.starved_seconds += time.monotonic() - began

    def _delay(self, node: int) -> float | None:
        """Return in how many seconds `node` may run a batch, as things stand; None: not before something happens."""
        queue = self._queues[node]
        assert queue is not None
        if not queue.rows or not self._room_after(node):
            return None
        if queue.full() or _is_heavy(queue):
            return 0.0
        if not self._quiet_before(node):
            return None
        return self._quiet_since + _LINGER_SECONDS - time.monotonic()

    def _room_after(self, node: int) -> bool:
        following = next((queue for queue in self._queues[node + 1 :] if queue is not None), None)
        return following is None or not _is_heavy(following)

    def _quiet_before(self, node: int) -> bool:
        return not self._readers and not any(self._busy[:node]) and all(queue is None or not queue.rows for queue in self._queues[:node])

    def _take(self, node: int) -> Assembled | None:
        queue = self._queues[node]
        assert queue is not None
        call = queue.take()
        if call is not None:
            self._busy[node] += 1
            self._stats[node].rows_in += call.rows
        else:
            # Nothing but dropped leases was there: whoever waits for this queue to be empty hears it from nobody else.
            self._settle()
        if queue.rows:
            self._wakers[node].notify()
        for earlier in range(node):
            # The queue behind them has room again.
            self._wakers[earlier].notify_all()
        return call

    def _settle(self) -> None:
        self._quiet_since = time.monotonic()
        for waker, queue in zip(self._wakers, self._queues, strict=True):
            if queue is not None and queue.rows:
                waker.notify_all()


def _is_heavy(queue: Assembler) -> bool:
    """Tell whether a queue holds so many bytes that rows must leave it before more come."""
    size, limits = queue.size_bytes, queue.limits
    if size < _QUEUE_BYTES:
        return False
    return limits.max_bytes is not None or queue.rows >= 2 * limits.rows or size >= _BATCHES_BYTES
