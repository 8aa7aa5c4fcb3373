"""Processes of their own for batches under suspicion: everybody else goes on while the row is searched for that kills or hangs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.predictors.feed import Feed
from antinfer.worker.predictors.predictor import Predictor

_MOST = 2
"""So many processes at most: a crash is searched for in little time, and must not wait for a row that hangs."""
Start = Callable[[str, Callable[[], None]], threading.Thread]
"""Runs a function in a thread of the given name, which ends the host when it raises."""


class Ward:
    """The ward of one stage. Its processes are there only while there are suspects. All methods may be called from several threads."""

    def __init__(self, node: int, feed: Feed, make: Callable[[Feed], Predictor], start: Start, has_room: Callable[[int], bool]) -> None:
        """Nothing runs yet.

        Args:
            node: Number of the stage in `feed`.
            feed: Whose suspects they are, and where their results go.
            make: Makes the predictor, which is fed by this object.
            start: How it gets its thread.
            has_room: Tells whether there is memory for one more process that holds so many bytes.
        """
        self._node = node
        self._feed = feed
        self._make = make
        self._start = start
        self._has_room = has_room
        self._guard = threading.Lock()
        self._queue: deque[Assembled] = deque()
        self._owed = 0
        """Batches that were admitted and are not finished."""
        self._predictors: list[Predictor] = []

    def admit(self, calls: list[Assembled], size_bytes: int) -> bool:
        """Take batches over, of a process that held `size_bytes`; False when there is no room for another one."""
        with self._guard:
            has_room = len(self._predictors) < _MOST and self._has_room(size_bytes)
            if not self._predictors and not has_room:
                return False
            self._queue.extend(calls)
            self._owed += len(calls)
            if has_room:
                self._predictors.append(self._make(self))
                self._start("ward", self._predictors[-1].run)
        self._feed.wake_up(self._node)
        return True

    # -- the feed of its predictors ----------------------------------------------------------------------------------------------------
    def take(self, node: int, *, want: bool = True, owed: int = 0, wake: Callable[[], bool] = lambda: False) -> Assembled | None:
        """Wait for a suspect; None when the feed has stopped, or as soon as `wake` is true after `wake_up`."""

        def is_awake() -> bool:
            return wake() or (want and bool(self._queue))

        while True:
            with self._guard:
                if want and self._queue:
                    return self._queue.popleft()
            self._feed.take(node, want=False, wake=is_awake)
            if not is_awake() or wake():
                return None

    def wake_up(self, node: int) -> None:
        self._feed.wake_up(node)

    def hold(self, node: int) -> None:
        with self._guard:
            self._owed += 1
        self._feed.hold(node)

    def finish(self, node: int, call: Assembled, outcome: Outcome, seconds: float) -> None:
        """Send what became of a suspect on; the processes leave when it was the last one."""
        self._feed.finish(node, call, outcome, seconds)
        with self._guard:
            self._owed -= 1
            if not self._owed:
                for predictor in self._predictors:
                    predictor.retire()
                self._predictors.clear()

    def batch_rows(self, node: int) -> int:
        return self._feed.batch_rows(node)

    def set_batch_rows(self, node: int, rows: int) -> bool:
        return self._feed.set_batch_rows(node, rows)
