"""Watching one process: what it owes, how long ago its last sign of life was, and whether that is too long.

The thread that hands batches over and the one that listens both tell; the listener, who looks several times a second, asks.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

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


class Watch:
    """One process, or one thread that calls user code. All methods may be called from several threads."""

    def __init__(self, patience: Patience, *, least_seconds: float = 0.0) -> None:
        """The process sets up from now on; nothing in it is suspected before `least_seconds`, unless the user says so."""
        self._patience = patience
        self._least = 0.0 if patience.is_given else least_seconds
        self._guard = threading.Lock()
        self._clock = Stopwatch(time.monotonic(), LOOK_SECONDS)
        self._owed: dict[int, Assembled] = {}
        """Slot -> batch; the first one is being computed."""
        self._is_ready = False
        self._is_first = True

    def is_ready(self, seconds: float) -> None:
        """Take note that it is set up, which took it `seconds`."""
        self._patience.was_set_up(seconds)
        with self._guard:
            self._is_ready = True

    def handed(self, slot: int, call: Assembled) -> None:
        """Take note that it is about to be given a batch."""
        with self._guard:
            if not self._owed:
                self._clock.restart(time.monotonic())
            self._owed[slot] = call

    def spoke(self, slot: int | None = None) -> None:
        """Take note of a sign of life; with `slot` it answered the batch there."""
        with self._guard:
            if slot is not None and slot != next(iter(self._owed), slot):
                # It has overtaken the oldest one, of whose life that is no sign.
                self._owed.pop(slot, None)
                return
            seconds = self._clock.restart(time.monotonic())
            call = next(iter(self._owed.values()), None)
            if slot is not None:
                self._owed.pop(slot, None)
            if call is not None:
                self._patience.came_back(call.rows, seconds, first=self._is_first)
                self._is_first = self._is_first and slot is None

    def overdue(self) -> Overdue | None:
        """Return what did not come back in time. To be asked every `LOOK_SECONDS` or sooner."""
        with self._guard:
            seconds = self._clock.look(time.monotonic())
            call = next(iter(self._owed.values()), None)
            if call is not None:
                limit = self._patience.limit(call.rows, first=self._is_first, suspect=bool(call.deaths))
            elif self._is_ready:
                return None
            else:
                limit = self._patience.setup_limit
            return Overdue(call, seconds, limit) if seconds > max(limit.seconds, self._least) else None
