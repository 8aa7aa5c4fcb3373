"""How often a launcher starts a process again that ends, and after what pause: pure."""

from __future__ import annotations

import signal
from collections import deque
from typing import Final

from antinfer.core.budgets import backoff_ms
from antinfer.core.scaling import exits

_FIRST_PAUSE_MS: Final = 100
"""Doubles with every end that is charged."""
_LONGEST_PAUSE_MS: Final = 5_000
_TAKEN_AWAY: Final = (exits.TAKEN_AWAY, exits.SIGNALLED + signal.SIGTERM)
"""Exit codes of a process that a SIGTERM made leave; the second, when it could not listen yet."""


class RestartBudget:
    """At most `most` restarts within `window_s` seconds with nothing achieved between; each waits longer than the one before."""

    def __init__(self, most: int, window_s: float, name: str) -> None:
        """`name`: of the process; pauses depend on it, so that those who died together do not come back together."""
        self._most = most
        self._window_s = window_s
        self._name = name
        self._ends: deque[float] = deque()

    def progressed(self) -> None:
        """Take note that something was achieved: ends so far were not in vain."""
        self._ends.clear()

    @property
    def is_charged(self) -> bool:
        """True when ends are charged that may have been in vain."""
        return bool(self._ends)

    def ended(self, now: float, code: int) -> float | None:
        """Take note that the process ended at time `now` (s); return the pause (s) before the next start, None when it is time to give up.

        `code` is its exit code, a signal as 128 and its number.
        Nobody pays for one that was taken away.
        """
        if code in _TAKEN_AWAY:
            return self._pause_s(1)
        while self._ends and now - self._ends[0] > self._window_s:
            self._ends.popleft()
        self._ends.append(now)
        return self._pause_s(len(self._ends)) if len(self._ends) <= self._most else None

    def _pause_s(self, ends: int) -> float:
        return backoff_ms(_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS, ends, self._name) / 1_000
