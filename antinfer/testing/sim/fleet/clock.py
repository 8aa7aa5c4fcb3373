"""Virtual time for thousands of workers: an event is a function and one argument; who planned it finds out whether it still matters."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """A queue of events, in order of time and then of planning."""

    __slots__ = ("_queue", "_serial", "events", "now")

    def __init__(self) -> None:
        self.now = 0
        """Milliseconds since the job began."""
        self.events = 0
        self._serial = 0
        self._queue: list[tuple[int, int, Callable[[Any], None], Any]] = []

    def after(self, ms: int, call: Callable[[Any], None], argument: Any = None) -> None:
        """Call with `argument` in `ms` of virtual time."""
        self._serial += 1
        heapq.heappush(self._queue, (self.now + ms, self._serial, call, argument))

    def turn(self) -> bool:
        """Let the next event happen; False when there is none."""
        if not self._queue:
            return False
        self.now, _, call, argument = heapq.heappop(self._queue)
        self.events += 1
        call(argument)
        return True
