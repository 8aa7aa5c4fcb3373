"""Watching one process: what it owes, how long ago its last sign of life was, and whether that is too long.

The thread that hands batches over and the one that listens both tell; the listener, who looks several times a second, asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.deadlines import Deadlines, Limit, Stopwatch

LOOK_SECONDS: Final = 0.25
"""So often the listener looks at least."""


class Patience:
    """The limits of a stage for all of its processes and threads. All methods may be called from several threads."""

    def __init__(self, timeout: float | None = None) -> None:
        """`timeout`: seconds that the user gives a call; None: as long as calls are found to take."""
        self._deadlines = Deadlines(timeout)
        self.is_given = timeout is not None
        """The user has said how long."""
        self._guard = threading.Lock()

    def was_set_up(self, seconds: float) -> None:
        with self._guard:
            self._deadlines.was_set_up(seconds)

    def came_back(self, rows: int, seconds: float, *, first: bool) -> None:
        with self._guard:
            self._deadlines.came_back(rows, seconds, first=first)

    def limit(self, rows: int, *, first: bool, suspect: bool) -> Limit:
        with self._guard:
            return self._deadlines.limit(rows, first=first, suspect=suspect)

    @property
    def setup_limit(self) -> Limit:
        with self._guard:
            return Limit(self._deadlines.setup_seconds, "what setting up may take")


@dataclass(frozen=True, slots=True)
class Overdue:
    """A call that did not come back in time."""

    call: Assembled | None
    """None: setting up did not."""
    seconds: float
    limit: Limit


@dataclass(slots=True)
class _Thread:
    """One thread of a process that calls user code."""

    clock: Stopwatch
    """Since its last sign of life."""
    is_first: bool = True
    """It has not come back from any batch."""


class Watch:
    """One process, or one thread that calls user code. All methods may be called from several threads.

    A process has a second thread, of a stage in front that works aside: each has to live by itself, whatever the other one says.
    """

    def __init__(self, patience: Patience, *, least_seconds: float = 0.0) -> None:
        """The process sets up from now on; nothing in it is suspected before `least_seconds`, unless the user says so."""
        self._patience = patience
        self._least = 0.0 if patience.is_given else least_seconds
        self._guard = threading.Lock()
        now = time.monotonic()
        self._main, self._front = _Thread(Stopwatch(now, LOOK_SECONDS)), _Thread(Stopwatch(now, LOOK_SECONDS))
        self._owed: dict[int, Assembled] = {}
        """Slot -> batch, oldest first: of those that are not aside the first one is held to be the one that is computed."""
        self._aside: set[int] = set()
        """Slots of those on which the stage in front works."""
        self._is_ready = False

    def heard(self, data: Mapping[str, Any]) -> bool:
        """Take note of what the process has said (`wire`); true when that is all there is to it."""
        match data["is"]:
            case "alive":
                self.spoke()
            case "aside":
                self.put_aside(data["slot"])
            case "made":
                self.made(data["slot"])
            case "ready":
                self.is_ready(data["load_seconds"])
                return False
            case "result":
                self.spoke(data["slot"], data["ran"])
                return False
            case "oom":
                self.spoke(data["slot"])
                return False
            case _:
                return False
        return True

    def is_ready(self, seconds: float) -> None:
        """Take note that it is set up, which took it `seconds`."""
        self._patience.was_set_up(seconds)
        with self._guard:
            self._is_ready = True

    def handed(self, slot: int, call: Assembled) -> None:
        """Take note that it is about to be given a batch."""
        with self._guard:
            if self._oldest(self._main) is None:
                self._main.clock.restart(time.monotonic())
            self._owed[slot] = call

    def put_aside(self, slot: int) -> None:
        """Take note that the stage in front has a batch to work on."""
        with self._guard:
            if not self._aside:
                self._front.clock.restart(time.monotonic())
            self._aside.add(slot)

    def made(self, slot: int) -> None:
        """Take note that the stage in front has done its part of a batch."""
        with self._guard:
            self._came_back(self._front, is_done=True)
            if self._oldest(self._main) is None:
                self._main.clock.restart(time.monotonic())
            self._aside.discard(slot)

    def spoke(self, slot: int | None = None, ran: int | None = None) -> None:
        """Take note of a sign of life; with `slot` it answered the batch there, of which it has run `ran` rows, or all."""
        with self._guard:
            self._came_back(self._main, is_done=slot is not None, ran=ran)
            if slot is not None:
                self._owed.pop(slot, None)
                self._aside.discard(slot)

    def overdue(self) -> Overdue | None:
        """Return what did not come back in time. To be asked every `LOOK_SECONDS` or sooner."""
        with self._guard:
            for thread in (self._main, self._front):
                seconds = thread.clock.look(time.monotonic())
                call = self._oldest(thread)
                if call is not None:
                    limit = self._patience.limit(call.rows, first=thread.is_first, suspect=bool(call.deaths))
                elif self._is_ready or thread is self._front:
                    continue
                else:
                    limit = self._patience.setup_limit
                if seconds > max(limit.seconds, self._least):
                    return Overdue(call, seconds, limit)
            return None

    def _oldest(self, thread: _Thread) -> Assembled | None:
        return next((call for slot, call in self._owed.items() if (slot in self._aside) is (thread is self._front)), None)

    def _came_back(self, thread: _Thread, *, is_done: bool, ran: int | None = None) -> None:
        seconds = thread.clock.restart(time.monotonic())
        call = self._oldest(thread)
        if call is not None:
            self._patience.came_back(call.rows if ran is None else ran, seconds, first=thread.is_first)
            thread.is_first = thread.is_first and not is_done
