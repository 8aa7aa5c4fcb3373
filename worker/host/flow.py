"""The flow: pieces move from the readers through the nodes of the pipeline to their leases.

One lock guards all queues; nothing slow happens under it. Executors take batches (`take`) and bring outcomes back (`finish`). What a node
does is in `worker.pipeline` and `host.junctions`; when it may do it is here:

- a full batch runs at once, unless a queue behind it holds too many bytes;
- a smaller one runs when nothing before it has added to it for a moment and nothing can (end of the work at hand, readers out of
  credit), or when its queue holds too many bytes. So every row that was read comes out, and its credit comes back.
- a predictor behind a hybrid stage that finds no batch of its own takes one from that stage's queue, and does the work of both. Where both
  are there its aim says which goes first (`aim`); without one its own do, and also when they hold so many bytes that the cores would wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from antinfer.worker.host.junctions import Junctions
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.assembler import Assembled, Assembler
from antinfer.worker.pipeline.buckets import BucketQueue
from antinfer.worker.pipeline.graph import Call, Node
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.splitter import Outcome, cut, select, split
from antinfer.worker.pipeline.statistics import NodeStats
from antinfer.worker.tuning.shares import Turns

_QUEUE_BYTES = 64 << 20
_BATCHES_BYTES = 512 << 20
"""A queue may hold more than the above for the sake of two batches of a size that the user chose, but not more than this."""
_LINGER_SECONDS = 0.02
_ASKING_SECONDS = 3.0
"""So long nothing must have moved before the user is asked which columns a step adds: the next lease may bring a row that tells."""

Queue = Assembler | BucketQueue


class Flow:
    """Queues, counters and the rules between them. All methods may be called from several threads."""

    def __init__(self, nodes: Sequence[Node], collect: Callable[[Piece], None]) -> None:
        """`collect` takes finished pieces of root scopes; it is called without the lock."""
        self.nodes = nodes
        self._collect = collect
        self._routes = graph.routes(nodes)
        self._lock = threading.Lock()
        self._junctions = Junctions(nodes, self._routes, self._lock)
        self._wakers = [threading.Condition(self._lock) for _ in nodes]
        self._bells = [threading.Condition(self._lock) for _ in nodes]
        """For those who want no batch now: waking one of them when a batch is there would leave it to nobody."""
        self._queues = [_queue(node) for node in nodes]
        self._calls = [at for at, node in enumerate(nodes) if isinstance(node, Call)]
        self._before = [[at for at in sorted(ancestors) if self._queues[at] is not None] for ancestors in self._routes.ancestors]
        self._taker: dict[int, int] = {
            node.hybrid: at for at, node in enumerate(nodes) if isinstance(node, Call) and node.hybrid is not None
        }
        """Hybrid stage -> the predictor that may take its rows."""
        self._turns: dict[int, Turns] = {}
        """Predictor that may do so -> who goes first; only for those that have an aim."""
        self._busy = [0] * len(nodes)
        self._readers = 0
        self._read_at = time.monotonic()
        self._changed_at = [self._read_at] * len(nodes)
        """When the queue or the executors of each node last had something to do with rows."""
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
                self._read_at = time.monotonic()
                self._settle()

    def put(self, piece: Piece) -> None:
        """Let a piece into the pipeline."""
        self._forward([(0, piece)])
        with self._lock:
            self._settle()

    def end(self, root: Root, end: int) -> None:
        """Take note that the input of `root` ends at position `end`: all of its rows before that were put."""
        self._forward(self._junctions.end(root, end))

    def is_starving(self) -> bool:
        """Tell whether rows wait for others of their frame, and nothing moves: only more rows can help."""
        with self._lock:
            moves = self._readers or any(self._busy) or any(queue.rows for queue in self._queues if queue is not None)
            return not moves and self._junctions.are_framing()

    # -- executors -------------------------------------------------------------------------------------------------------------------
    def take(self, node: int, *, want: bool = True, owed: int = 0, wake: Callable[[], bool] = lambda: False) -> Assembled | None:
        """Wait for a batch for `node`; None when the flow has stopped, or as soon as `wake` is true after `wake_up`.

        With `want` false it only waits for those two. The caller owes `finish` or `forget` for every batch. For a predictor behind a hybrid
        stage the batch may be `fused`: rows of that stage that nobody has run yet. Where there is an aim, a caller that has many batches to
        compute already (`owed`) may have to wait for one that is not.

        Raises UserCodeError when rows wait for columns that nobody will ever name.
        """
        with self._lock:
            while not self._stopped and not wake():
                if not want:
                    self._bells[node].wait()
                    continue
                timeout, source = self._next(node, owed)
                if timeout is None or timeout > 0:
                    self._wait(node, timeout, owed)
                elif (call := self._take(node, source)) is not None:
                    return call
            queue = self._queues[node]
            if want and queue is not None and queue.rows:
                # The word that a batch is there may have come to this one, who leaves without it.
                self._wakers[node].notify()
            return None

    def wake_up(self, node: int) -> None:
        """Have every `take` of `node` look at its `wake` again."""
        with self._lock:
            self._wakers[node].notify_all()
            self._bells[node].notify_all()

    def finish(self, node: int, call: Assembled, outcome: Outcome, seconds: float) -> None:
        """Send what became of `call` on, and take back what of it was not run.

        Raises UserCodeError when the schema differs from that of earlier batches.
        """
        at = self.nodes[node]
        call, rest = cut(call, outcome)
        assert isinstance(at, Call)
        if at.stage.kind == "filter":
            pieces = select(call, outcome)
        else:
            if outcome.batch is not None:
                outcome.batch = self._junctions.gates[node].fit(outcome.batch)
            pieces = split(call, outcome, fans_out=at.stage.kind == "flat_map")
        after = self._routes.after[node]
        self._forward([(after, piece) for piece in pieces])
        if rest is not None:
            # Behind what was made of the others: there may be no room for more of it yet.
            self._take_back(node, rest)
        self.forget(node, seconds, rows=call.rows, rows_out=sum(piece.rows for piece in pieces), batches=1, fused=call.fused)

    def _take_back(self, node: int, rest: Assembled) -> None:
        queue = self._queues[node]
        # Only rows of a flat_map are left, which has no buckets.
        assert isinstance(queue, Assembler)
        with self._lock:
            queue.put_back(rest)
            self._stats[node].rows_in -= rest.rows
            self._wakers[node].notify()

    def hold(self, node: int) -> None:
        """Count one more batch of `node` as under way: a batch that was taken is finished in two halves."""
        with self._lock:
            self._busy[node] += 1

    def forget(self, node: int, seconds: float = 0.0, *, rows: int = 0, rows_out: int = 0, batches: int = 0, fused: bool = False) -> None:
        """Count one batch of `node` as done with."""
        with self._lock:
            self._busy[node] -= 1
            stats = self._stats[node]
            stats.busy_seconds += seconds
            stats.rows_done += rows
            stats.rows_out += rows_out
            stats.batches += batches
            if fused:
                stats.fused_seconds += seconds
                stats.fused_done += rows
                stats.fused_batches += batches
            self._changed_at[node] = time.monotonic()
            self._settle()

    def stop(self) -> None:
        """End every `take`, now and later."""
        with self._lock:
            self._stopped = True
            for waker in (*self._wakers, *self._bells):
                waker.notify_all()

    # -- measuring and tuning --------------------------------------------------------------------------------------------------------
    def statistics(self) -> list[NodeStats]:
        """Return what was counted so far, one entry for each node."""
        with self._lock:
            for stats, queue in zip(self._stats, self._queues, strict=True):
                if queue is not None:
                    stats.queue_rows, stats.queue_bytes = queue.rows, queue.size_bytes
            return [replace(stats) for stats in self._stats]

    def batch_rows(self, node: int) -> int:
        """Return how many rows a batch of the call `node` has at most."""
        queue = self._queues[node]
        assert queue is not None
        return queue.limits.rows

    def set_batch_rows(self, node: int, rows: int) -> bool:
        """Change how many rows a batch of the call `node` has at most; False when they are fixed, since the job is to be reproducible."""
        queue = self._queues[node]
        assert queue is not None
        with self._lock:
            if queue.limits.whole:
                return False
            queue.limits = replace(queue.limits, rows=rows)
            # A queue is full, and holds too much, by the size of its batches.
            for at in (node, *self._routes.feeders[node]):
                self._wakers[at].notify_all()
        return True

    def aim(self, node: int, share: float) -> None:
        """Have about `share` of the rows of the predictor `node`, which is behind a hybrid stage, go to it raw, as far as no work waits."""
        with self._lock:
            stats, queue = self._stats[node], self._queues[node]
            assert queue is not None
            self._turns[node] = Turns(share, stats.rows_done // stats.batches if stats.batches else queue.limits.rows)
            self._wakers[node].notify_all()

    # -- rows on their way -----------------------------------------------------------------------------------------------------------
    def _forward(self, stops: Sequence[tuple[int, Piece]]) -> None:
        todo = deque(stops)
        while todo:
            at, piece = todo.popleft()
            if piece.root.dropped:
                continue
            if at == len(self.nodes):
                self._collect(piece)
                continue
            node = self.nodes[at]
            if not isinstance(node, Call):
                todo.extend(self._junctions.arrive(at, piece))
            elif piece.rows:
                self._enqueue(at, piece)
            else:
                todo.append((self._routes.after[at], _empty_group(piece) if node.stage.kind == "flat_map" else piece))

    def _enqueue(self, at: int, piece: Piece) -> None:
        queue = self._queues[at]
        lengths = queue.measure(piece) if isinstance(queue, BucketQueue) else None
        taker = self._taker.get(at)
        with self._lock:
            was_batch = taker is not None and self._is_batch(at, taker)
            if isinstance(queue, BucketQueue):
                assert lengths is not None
                queue.put(piece, lengths)
            else:
                assert queue is not None
                queue.put(piece)
            self._changed_at[at] = time.monotonic()
            # Who waits for less than a full batch is told when the rows before it have settled.
            if queue.full() or _is_heavy(queue):
                self._wakers[at].notify()
            if taker is not None:
                # One of them may not want the first batch that is there; of the others they hear when they come back.
                is_first = not was_batch and self._is_batch(at, taker)
                if is_first:
                    self._wakers[taker].notify_all()
                else:
                    self._wakers[taker].notify()

    def _is_batch(self, at: int, taker: int) -> bool:
        """Tell whether the queue of the hybrid stage `at` holds a batch for the predictor behind it."""
        queue, limits = self._queues[at], self._queues[taker].limits  # type: ignore[union-attr]
        return queue is not None and (queue.full(limits) or _is_heavy(queue))

    def _take(self, node: int, source: int) -> Assembled | None:
        queue, own = self._queues[source], self._queues[node]
        assert queue is not None and own is not None
        was_heavy = _is_heavy(queue)
        call = queue.take(own.limits if source != node else None)
        if call is not None:
            self._busy[node] += 1
            self._count(node, call, fused=source != node)
        else:
            # Nothing but dropped leases was there: whoever waits for this queue to be empty hears it from nobody else.
            self._settle()
        if queue.rows:
            self._wakers[source].notify()
        if source != node and own.rows:
            # The word of ready rows may have come to this one.
            self._wakers[node].notify()
        if was_heavy and not _is_heavy(queue):
            # Those before it have room again.
            for feeder in self._routes.feeders[source]:
                self._wakers[feeder].notify_all()
        return call

    def _count(self, node: int, call: Assembled, *, fused: bool) -> None:
        rows, stats = call.rows, self._stats[node]
        stats.rows_in += rows
        if fused:
            call.fused = True
            stats.fused_rows += rows
        if node in self._turns:
            self._turns[node].took(rows, raw=fused)

    # -- when --------------------------------------------------------------------------------------------------------------------------
    def _next(self, node: int, owed: int = 0) -> tuple[float | None, int]:
        """Return in how many seconds `node` may run a batch as things stand (None: not before something happens), and whose rows."""
        at = self.nodes[node]
        delay = self._delay(node)
        if not isinstance(at, Call) or at.hybrid is None:
            return delay, node
        prefers_raw = self._prefers_raw(node)
        if not prefers_raw and delay == 0.0:
            return delay, node
        raw = self._raw_delay(node, at, owed)
        if raw is None or (delay is not None and (delay < raw or (delay == raw and not prefers_raw))):
            return delay, node
        return raw, at.hybrid

    def _prefers_raw(self, node: int) -> bool:
        """Tell whether rows of the hybrid stage before it go before those that are there ready for the predictor `node`."""
        queue, turns = self._queues[node], self._turns.get(node)
        assert queue is not None
        # Ready rows that hold much memory keep the cores waiting.
        return turns is not None and not _is_heavy(queue) and turns.is_raw

    def _has_enough(self, node: int, owed: int) -> bool:
        """Tell whether a predictor that owes so many batches is to leave the raw rows that are there alone."""
        at, turns = self.nodes[node], self._turns.get(node)
        if turns is None:
            return False
        assert isinstance(at, Call) and at.hybrid is not None
        queue = self._queues[at.hybrid]
        assert queue is not None
        return bool(queue.rows) and not turns.may_be_raw(owed)

    def _delay(self, node: int) -> float | None:
        queue = self._queues[node]
        assert queue is not None
        if not queue.rows:
            return self._held_delay(node) if self._junctions.is_holding else None
        if node in self._taker and self._share(self._taker[node]) == 1:
            return None
        if not self._room_after(node):
            return None
        if queue.full() or _is_heavy(queue):
            return 0.0
        return self._quiet_in(node)

    def _raw_delay(self, node: int, at: Call, owed: int) -> float | None:
        """Return as `_next` in how many seconds the predictor `node` may take rows of the hybrid stage before it."""
        assert at.hybrid is not None
        queue, own, share = self._queues[at.hybrid], self._queues[node], self._share(node)
        assert queue is not None and own is not None
        stats = self._stats[node]
        if not queue.rows or share == 0 or (share is not None and stats.fused_rows > share * stats.rows_in) or not self._room_after(node):
            return None
        if self._has_enough(node, owed):
            return None
        return 0.0 if self._is_batch(at.hybrid, node) else self._quiet_in(at.hybrid)

    def _held_delay(self, node: int) -> float | None:
        """Return when it is certain that rows that wait behind `node` wait for nothing; raise UserCodeError once it is."""
        join = self._junctions.held_at(self._routes.joins[node])
        if join is None:
            return None
        quiet_since = self._quiet_since(join)
        if quiet_since is None:
            return None
        delay = quiet_since + _ASKING_SECONDS - time.monotonic()
        if delay <= 0:
            raise self._junctions.unknown(join)
        return delay

    def _share(self, node: int) -> float | None:
        at = self.nodes[node]
        assert isinstance(at, Call)
        return at.gpu_share

    def _room_after(self, node: int) -> bool:
        return not any(_is_heavy(self._queues[at]) for at in self._routes.outlets[node])

    def _quiet_in(self, node: int) -> float | None:
        """Return in how many seconds nothing will have moved before `node` for a moment, 0 if so now; None while something does."""
        since = self._quiet_since(node)
        return None if since is None else max(0.0, since + _LINGER_SECONDS - time.monotonic())

    def _quiet_since(self, node: int) -> float | None:
        before = self._before[node]
        if self._readers or any(self._busy[at] or self._queues[at].rows for at in before):  # type: ignore[union-attr]
            return None
        return max(self._read_at, self._changed_at[node], *(self._changed_at[at] for at in before))

    def _wait(self, node: int, timeout: float | None, owed: int) -> None:
        """Wait for news, and count for what."""
        if self._has_enough(node, owed):
            # It computes meanwhile.
            self._wakers[node].wait(timeout)
            return
        queue, stats = self._queues[node], self._stats[node]
        is_blocked = bool(queue and queue.rows) and not self._room_after(node)
        began = time.monotonic()
        self._wakers[node].wait(timeout)
        seconds = time.monotonic() - began
        if is_blocked:
            stats.blocked_seconds += seconds
        else:
            stats.starved_seconds += seconds

    def _settle(self) -> None:
        """Tell those who may have been waiting for nothing to move before them."""
        if self._readers:
            return
        holding = self._junctions.is_holding
        for at in self._calls:
            queue = self._queues[at]
            assert queue is not None
            if not queue.rows and not holding:
                continue
            if not any(self._busy[one] or self._queues[one].rows for one in self._before[at]):  # type: ignore[union-attr]
                self._wakers[at].notify_all()
                if at in self._taker:
                    self._wakers[self._taker[at]].notify_all()


def _queue(node: Node) -> Queue | None:
    if not isinstance(node, Call):
        return None
    return Assembler(node.limits) if node.buckets is None else BucketQueue(node.limits, node.buckets, node.stage.where)


def _empty_group(piece: Piece) -> Piece:
    return split(Assembled([piece]), Outcome(None), fans_out=True)[0]


def _is_heavy(queue: Queue | None) -> bool:
    """Tell whether a queue holds so many bytes that rows must leave it before more come."""
    assert queue is not None
    size, limits = queue.size_bytes, queue.limits
    if size < _QUEUE_BYTES:
        return False
    return limits.max_bytes is not None or queue.rows >= 2 * limits.rows or size >= _BATCHES_BYTES
