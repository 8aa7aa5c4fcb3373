"""How often a process that keeps dying is started again, and after what pause: pure."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_SECONDS: Final = 600.0
"""Deaths longer ago are forgotten."""
FREE_DEATHS: Final = 2
"""So many are nothing: a batch is tried a second time at once."""
FIRST_PAUSE_SECONDS: Final = 0.5
"""Doubles with every death behind the free ones."""
LONGEST_PAUSE_SECONDS: Final = 30.0


class Restarts:
    """The budget of one process. Not to be used by two threads at once."""

    def __init__(self, deaths: int) -> None:
        """`deaths`: so many in a row, within the window and without anything done between, are too many."""
        self._most = deaths
        self._deaths: deque[float] = deque()

    def progressed(self) -> None:
        """Take note that something was done: deaths so far were not in vain."""
        self._deaths.clear()

    def died(self, now: float) -> float | None:
        """Return the pause in seconds before the next start; None when it is time to give up."""
        while self._deaths and now - self._deaths[0] >= WINDOW_SECONDS:
            self._deaths.popleft()
        self._deaths.append(now)
        count = len(self._deaths)
        if count >= self._most:
            return None
        if count <= FREE_DEATHS:
            return 0.0
        return float(min(FIRST_PAUSE_SECONDS * 2 ** (count - FREE_DEATHS - 1), LONGEST_PAUSE_SECONDS))

    @property
    def in_a_row(self) -> int:
        """Deaths that count now."""
        return len(self._deaths)
