"""Patience with a stage host that dies: when to start another, when to blame a lease, when to give up."""

from __future__ import annotations

from antinfer.core.budgets import backoff_ms
from antinfer.core.ids import WorkerId
from antinfer.worker.policy import HostPolicy


class HostWatch:
    """Counts deaths in a row."""

    def __init__(self, policy: HostPolicy, worker: WorkerId) -> None:
        self._policy = policy
        self._worker = worker
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
        # Whatever killed them, as a full memory, may have killed the hosts of several workers in the same moment.
        return 0 if count == 1 else backoff_ms(self._policy.first_pause_ms, self._policy.longest_pause_ms, count - 1, self._worker)
