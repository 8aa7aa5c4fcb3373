"""The leases a host works on: what is to be read, what is to be written, and what the agent said about them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from antinfer.core.ids import LeaseId
from antinfer.core.ranges import Rows
from antinfer.worker.host.credits import Credits
from antinfer.worker.host.runs import Chunk, Run
from antinfer.worker.hostlink import Failed, FromHost, Kept, Released, Sized, Work
from antinfer.worker.pipeline.pieces import Piece


class Leases:
    """All methods may be called from several threads."""

    def __init__(self, credits: Credits, send: Callable[[FromHost], None], commit_interval: float) -> None:
        """`commit_interval`: seconds after which an open part is staged although its lease goes on."""
        self._credits = credits
        self._send = send
        self._interval = commit_interval
        self._lock = threading.Lock()
        self._readable = threading.Condition(self._lock)
        self._writable = threading.Condition(self._lock)
        self._runs: dict[LeaseId, Run] = {}
        self._to_read: deque[Run] = deque()
        self._to_write: deque[Run] = deque()
        self._turns = 0
        self._stopped = False
        self.rows_done = 0
        """Input rows written since the host started."""

    # -- the agent's words -----------------------------------------------------------------------------------------------------------
    def start(self, work: Work) -> None:
        with self._lock:
            self._start(Run(work), first=False)

    def cut(self, lease: LeaseId, rows: Rows) -> None:
        """Shrink a lease. What does not fit what was done so far begins anew: this is rare, and recomputing is always right."""
        with self._lock:
            run = self._runs.get(lease)
            if run is None:
                return
            if rows.stop <= rows.start:
                self._drop(run)
            elif rows.start <= run.staged and rows.stop >= run.order.cursor and (rows.stop <= run.stop):
                run.stop = rows.stop
                self._check(run)
            else:
                self._drop(run)
                self._start(Run(Work(run.lease, run.shard, rows, run.attempt, run.quarantine, run.alone)), first=True)

    def rename(self, old: LeaseId, new: LeaseId, attempt: int) -> None:
        with self._lock:
            run = self._runs.pop(old, None)
            if run is not None:
                run.lease, run.attempt = new, attempt
                self._runs[new] = run

    def yield_rest(self, lease: LeaseId, keep: int | None = None) -> None:
        """Let go of a lease, or with `keep` of its rows from there on that are not finished."""
        with self._lock:
            run = self._runs.get(lease)
            if run is None:
                self._send(Released(lease))
            elif keep is None or not run.sized:
                self._end(run, Released(lease))
            elif run.ending is None:
                run.stop = min(run.stop, max(keep, run.order.cursor, run.start + 1))
                self._send(Kept(lease, run.stop))
                self._check(run)

    def commit_every(self, seconds: float) -> None:
        """Change the commit interval."""
        with self._lock:
            self._interval = seconds
            self._writable.notify_all()

    def reached(self) -> tuple[tuple[LeaseId, int], ...]:
        """Return for each lease the first row that is not finished."""
        with self._lock:
            return tuple((run.lease, run.order.cursor) for run in self._runs.values())

    def stop(self) -> None:
        """End every wait, now and later, and drop all leases."""
        with self._lock:
            self._stopped = True
            for run in list(self._runs.values()):
                self._drop(run)
            self._readable.notify_all()
            self._writable.notify_all()
        self._credits.wake_up()

    # -- readers ---------------------------------------------------------------------------------------------------------------------
    def next_to_read(self) -> Run | None:
        """Wait for a lease nobody has begun to read, in the order they came; None when stopped. One that is to be computed alone begins
        when all before it are over, and those behind it when it is."""
        with self._lock:
            while not self._stopped:
                if self._to_read and (self._to_read[0].dropped or self._to_read[0].ending is not None):
                    self._to_read.popleft()
                elif self._to_read and self._may_begin(self._to_read[0]):
                    run = self._to_read.popleft()
                    run.begun = True
                    self._turns += 1
                    run.turn = self._turns
                    return run
                else:
                    self._readable.wait()
            return None

    def add_chunk(self, run: Run, chunk: Chunk) -> bool:
        """Take note of what was read, for which credit was taken; False when the lease does not want it any more."""
        with self._lock:
            if not run.dropped:
                run.chunks.append(chunk)
                return True
        self._credits.give_back(chunk.size_bytes)
        return False

    def size(self, run: Run, rows: int) -> None:
        """Take note that the shard of `run` has `rows` rows."""
        with self._lock:
            if run.dropped:
                return
            self._send(Sized(run.lease, rows))
            run.stop = min(run.stop, max(rows, run.start))
            if run.stop == run.start:
                self._drop(run)
            else:
                self._check(run)

    def fail(self, run: Run, failure: Callable[[LeaseId], Failed]) -> None:
        """Stage what is finished of `run`, then give the rest up."""
        with self._lock:
            if not run.dropped:
                self._end(run, failure(run.lease))

    def is_idle(self) -> bool:
        """Tell whether nothing waits to be written, so that no credit is about to come back."""
        with self._lock:
            return not any(run.claimed for run in self._runs.values())

    # -- the pipeline's end ----------------------------------------------------------------------------------------------------------
    def collect(self, piece: Piece) -> None:
        """Take in a finished piece."""
        run = piece.root
        assert isinstance(run, Run)
        with self._lock:
            # Rows beside the lease were read for the sake of whole frames.
            if run.dropped or run.ending is not None or piece.begin >= run.stop or piece.stop <= run.start:
                return
            if run.order.add(piece.since(run.start).until(run.stop)):
                self._claim(run)

    # -- writers ---------------------------------------------------------------------------------------------------------------------
    def next_to_write(self) -> Run | None:
        """Wait for a lease with something to write, stage or say; None when stopped. The caller owes `written` for it."""
        with self._lock:
            while not self._stopped:
                if self._to_write:
                    return self._to_write.popleft()
                self._writable.wait(self._claim_due())
            return None

    def ready(self, run: Run) -> tuple[list[Piece], bool]:
        """Return the pieces to be written now, and whether the part must be closed behind them."""
        with self._lock:
            # A cut may have come while they waited for the ones before them.
            whole = [piece.until(run.stop) for piece in run.order.take() if piece.begin < run.stop]
            pieces = [part for piece in whole for part in _by_chunks(piece, run.chunks)]
            return pieces, run.finished or run.ending is not None or run.crowds or self._due(run, time.monotonic())

    def chunk_of(self, run: Run, piece: Piece) -> Chunk | None:
        """Return the chunk that `piece`, which is not written yet, was read in; None once nobody wants it any more."""
        with self._lock:
            return next((chunk for chunk in run.chunks if chunk.stop > piece.begin), None)

    def wrote(self, run: Run, piece: Piece, held_bytes: int) -> None:
        """Take note that `piece` is in the open part, which holds so many bytes in memory now.

        The credit of chunks that are there whole goes back but for that; the rest of it when the part is staged.
        """
        with self._lock:
            run.written = piece.stop
            self.rows_done += piece.stop - piece.begin
            if run.part_since is None:
                run.part_since = time.monotonic()
            if run.dropped:
                return
            # First of all, so that nobody is let in for room that there is not.
            self._hold(run, held_bytes)
            while run.chunks and run.chunks[0].stop <= piece.stop:
                self._credits.give_back(run.chunks.popleft().size_bytes)
            self._relieve()

    def give_up(self, run: Run, failure: Callable[[LeaseId], Failed]) -> None:
        """Give the lease up at once: what was written cannot be staged."""
        with self._lock:
            if not run.dropped:
                self._send(failure(run.lease))
                self._drop(run)

    def staged(self, run: Run) -> None:
        """Take note that everything written is staged."""
        with self._lock:
            run.staged = run.written
            run.part_since = None
            run.crowds = False
            self._hold(run, 0)

    def written(self, run: Run) -> None:
        """End of a writer's turn."""
        with self._lock:
            run.claimed = False
            if run.dropped:
                if run.part is not None:
                    # It was dropped in the middle of the turn; the part is to be thrown away in another.
                    self._claim(run)
                return
            if run.staged >= run.stop:
                if isinstance(run.ending, Released):
                    self._send(Released(run.lease))
                self._drop(run)
            elif run.ending is not None and run.staged == run.order.cursor:
                self._send(replace(run.ending, lease=run.lease))
                self._drop(run)
            else:
                self._check(run)

    # -- inside ----------------------------------------------------------------------------------------------------------------------
    def _may_begin(self, run: Run) -> bool:
        return not any(other.begun and (run.alone or other.alone) for other in self._runs.values())

    def _start(self, run: Run, *, first: bool) -> None:
        self._runs[run.lease] = run
        (self._to_read.appendleft if first else self._to_read.append)(run)
        self._readable.notify()

    def _end(self, run: Run, last: Released | Failed) -> None:
        if run.ending is None:
            run.ending = last
            self._claim(run)
            self._credits.wake_up()

    def _drop(self, run: Run) -> None:
        run.dropped = True
        if self._runs.get(run.lease) is run:
            del self._runs[run.lease]
        while run.chunks:
            self._credits.give_back(run.chunks.popleft().size_bytes)
        self._hold(run, 0)
        self._credits.wake_up()
        self._readable.notify_all()
        # A writer has to throw its open part away.
        self._claim(run)

    def _check(self, run: Run) -> None:
        if run.order.ready or run.ending is not None or run.finished or run.crowds:
            self._claim(run)

    def _claim(self, run: Run) -> None:
        if not run.claimed:
            run.claimed = True
            self._to_write.append(run)
            self._writable.notify()

    def _hold(self, run: Run, size_bytes: int) -> None:
        self._credits.hold(size_bytes - run.held_bytes)
        run.held_bytes = size_bytes

    def _relieve(self) -> None:
        """Have the part that holds the most committed early when together they hold too much."""
        # Of the others, which end anyway, the writers have been told.
        roomy = [run for run in self._runs.values() if not (run.crowds or run.finished or run.ending is not None)]
        if sum(run.held_bytes for run in roomy) > self._credits.most_held:
            largest = max(roomy, key=lambda run: run.held_bytes)
            largest.crowds = True
            self._claim(largest)

    def _due(self, run: Run, now: float) -> bool:
        return run.part_since is not None and now - run.part_since >= self._interval

    def _claim_due(self) -> float | None:
        """Claim every lease whose part has been open for long enough; return the seconds until the next one is."""
        now = time.monotonic()
        waits = []
        for run in self._runs.values():
            if run.part_since is not None and not run.claimed:
                if self._due(run, now):
                    self._claim(run)
                    return 0.0
                waits.append(run.part_since + self._interval - now)
        return min(waits, default=None)


def _by_chunks(piece: Piece, chunks: Iterable[Chunk]) -> Iterator[Piece]:
    """Cut a piece that rows of several chunks were put together for where these touch."""
    for chunk in chunks:
        if chunk.stop >= piece.stop:
            break
        if chunk.stop > piece.begin:
            yield piece.until(chunk.stop)
            piece = piece.since(chunk.stop)
    yield piece
