"""How many leases a host needs to be kept busy: those in its pipeline, and enough to read for as long as a new master takes to come."""

from __future__ import annotations

from collections import deque
from typing import Final

USUAL_SLOTS: Final = 4
"""One for each reader, and two to go on with: enough where leases are long."""
_AHEAD_S: Final = 2.0
_MOST_AHEAD: Final = 32
"""What waits in one worker is missing elsewhere at the end, and comes back when the worker is lost."""


class Ahead:
    """Counts the leases that are begun; those of a batch that is not full yet are many when they are short, and none of them is over."""

    def __init__(self) -> None:
        self._begun: deque[float] = deque()

    def note_begun(self, live: int, now: float) -> int:
        """Return how many leases the host should hold.

        Args:
            live: leases that are begun and not over, with the one that has begun just now.
            now: time in seconds.
        """
        self._begun.append(now)
        while self._begun[0] < now - _AHEAD_S:
            self._begun.popleft()
        return max(USUAL_SLOTS, live + min(_MOST_AHEAD, max(USUAL_SLOTS // 2, len(self._begun))))
