"""Patience with a stage host that dies: when to start another, when to blame a lease, when to give up."""

from __future__ import annotations

from antinfer.worker.policy import HostPolicy


class HostWatch:
    """Counts deaths in a row."""

    def __init__(self, policy: HostPolicy) -> None:
        self._policy = policy
        self._deaths: list[int] = []

    def note_progress(self) -> None:
        """Work was done, or a lease was found guilty: deaths so far were not in vain."""
        self._deaths.clear()

    def is_culprit(self, deaths: int) -> bool:
        """Tell whether a lease that was first in line at `deaths` deaths must be failed."""
        return deaths >= self._policy.deaths_per_lease

    def note_death(self, at: int) -> int | None:
        """Return the pause (ms) before the next start, or None when it is time to give up."""
        self._deaths = [death for death in self._deaths if at - death < self._policy.window_ms]
        self._deaths.append(at)
        count = len(self._deaths)
        if count >= self._policy.deaths:
            return None
        return 0 if count == 1 else min(self._policy.first_pause_ms << (count - 2), self._policy.longest_pause_ms)
