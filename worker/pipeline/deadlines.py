"""How long a call of user code may take before it counts as hung: learnt from the calls that came back, pure.

A call that is given up too early costs a restart, and in the end a good row; one that is given up too late stands in everybody's way. So a
limit is many times what calls have taken, and never less than what a restart costs: to wait as long as that is at most twice as bad as to
have known. Whoever is suspected gets more time each time, and most of it alone: nothing is given up that was merely slow once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FACTOR: Final = 10.0
"""A call may take so many times what the slowest one lately took."""
FLOOR_SECONDS: Final = 5.0
"""No call is suspected sooner: disks, swap and busy neighbours stop everybody for seconds."""
ALONE_SECONDS: Final = 10.0
"""A row on its own, which is given up when it hangs, has at least this."""
ALONE_FACTOR: Final = 2.0
"""And so many times what a whole batch would have."""
FIRST_SECONDS: Final = 600.0
"""The first call of a process compiles, searches for algorithms and pages in: so long while nobody knows how long that takes."""
FIRST_FACTOR: Final = 3.0
"""Once that is known, so many times the slowest one."""
SETUP_SECONDS: Final = 3600.0
"""Setting up may download a model; so long while nobody knows how long it takes."""
SETUP_FACTOR: Final = 10.0
SETUP_FLOOR_SECONDS: Final = 300.0
_KNOWN_CALLS: Final = 3
"""So many calls must have come back before anything is concluded from them."""
_GENERATION: Final = 64
"""Slow calls are forgotten after one to two times as many calls."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What one call is given."""

    seconds: float
    reason: str
    """Where the number comes from, in words for people."""


class Deadlines:
    """The limits of one stage. Tell it of every call that came back; not to be used by two threads at once."""

    def __init__(self, timeout: float | None = None) -> None:
        """`timeout`: seconds that the user gives a call; None: as long as calls are found to take."""
        self._timeout = timeout
        self._slowest = [0.0, 0.0]
        """In this generation of calls and in the one before."""
        self._calls = 0
        self._largest = 0
        """Rows of the largest batch that came back."""
        self._first: float | None = None
        self._setup: float | None = None

    # -- what came back --------------------------------------------------------------------------------------------------------------
    def was_set_up(self, seconds: float) -> None:
        """Learn how long a process took to set user code up."""
        self._setup = max(seconds, self._setup or 0.0)

    def came_back(self, rows: int, seconds: float, *, first: bool = False) -> None:
        """Learn that a call on `rows` rows took `seconds`; `first`: it was the first one of its process."""
        if first:
            self._first = max(seconds, self._first or 0.0)
            return
        self._calls += 1
        if self._calls % _GENERATION == 0:
            self._slowest = [0.0, self._slowest[0]]
        self._slowest[0] = max(seconds, self._slowest[0])
        self._largest = max(rows, self._largest)

    # -- what is given -----------------------------------------------------------------------------------------------------------------
    @property
    def setup_seconds(self) -> float:
        """What setting up may take."""
        if self._setup is None:
            return SETUP_SECONDS
        return max(SETUP_FLOOR_SECONDS, SETUP_FACTOR * self._setup)

    def limit(self, rows: int, *, first: bool = False, suspect: bool = False) -> Limit:
        """Return what a call on `rows` rows is given.

        Args:
            rows: Of the batch.
            first: It is the first one of its process.
            suspect: A process has died over it, or hung.
        """
        limit = self._measured(rows) if self._timeout is None else Limit(self._timeout, "its timeout")
        if self._timeout is None and suspect and rows == 1:
            limit = Limit(max(ALONE_SECONDS, ALONE_FACTOR * limit.seconds), limit.reason)
        if first:
            allowance = FIRST_SECONDS if self._first is None else FIRST_FACTOR * self._first
            if allowance > limit.seconds:
                return Limit(allowance, "what the first call of a process may take")
        return limit

    def _measured(self, rows: int) -> Limit:
        if self._calls < _KNOWN_CALLS:
            if self._first is None or self._setup is None:
                return Limit(FIRST_SECONDS, "what a call may take while none has come back")
            # Whoever did the first call in this time does not need longer for another one.
            slowest = self._first
        else:
            slowest = max(self._slowest)
        slowest *= max(1.0, rows / self._largest) if self._largest else 1.0
        restart = (self._setup or 0.0) + (self._first or 0.0)
        seconds = max(FLOOR_SECONDS, FACTOR * slowest, restart)
        return Limit(seconds, f"calls have taken {slowest:.3g} s at most")


class Stopwatch:
    """Seconds since the last sign of life, as somebody saw them who looks every `step_seconds`.

    Where looks are far apart, the machine stood still, or whoever looks: that is nobody's hanging, and counts as one look.
    """

    def __init__(self, now: float, step_seconds: float) -> None:
        self._most = 2 * step_seconds
        self._seen = now
        self.seconds = 0.0

    def look(self, now: float) -> float:
        """Return the seconds so far."""
        self.seconds += min(now - self._seen, self._most)
        self._seen = now
        return self.seconds

    def restart(self, now: float) -> float:
        """Begin anew; return the seconds until now."""
        seconds = self.look(now)
        self.seconds = 0.0
        return seconds
