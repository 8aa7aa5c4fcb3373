"""How often a process that keeps dying is started again, and after what pause: pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from antinfer.core.budgets import backoff_ms

WINDOW_SECONDS: Final = 600.0
"""Deaths longer ago are forgotten."""
FREE_DEATHS: Final = 2
"""So many are nothing: a batch is tried a second time at once."""
FIRST_PAUSE_MS: Final = 500
"""Doubles with every death behind the free ones."""
LONGEST_PAUSE_MS: Final = 30_000


class Restarts:
    """The budget of one process. Not to be used by two threads at once."""

    def __init__(self, deaths: int, seed: int) -> None:
        """
        Args:
            deaths: so many in a row, within the window and without anything done between, are too many.
            seed: spreads the pauses, so that processes that died together do not come back together.
        """
        self._most = deaths
        self._seed = seed
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
        return backoff_ms(FIRST_PAUSE_MS, LONGEST_PAUSE_MS, count - FREE_DEATHS, self._seed) / 1_000

    @property
    def in_a_row(self) -> int:
        """Deaths that count now."""
        return len(self._deaths)
