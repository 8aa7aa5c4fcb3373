"""How often to commit when the job leaves it to us: often enough that little is lost with a worker, seldom enough that it costs little.

Young and Daly: with a commit that costs `d` and a loss every `m` on average, about ``sqrt(2 d m)`` between commits wastes least.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Final

_TOLD_CHANGE: Final = 1.25
"""An interval is told again once it has changed by this factor."""


@dataclass(frozen=True, slots=True)
class IntervalPolicy:
    """What the interval is made from; times in ms."""

    cost_ms: int = 250
    """What one more commit costs a worker: a part to close, a file to make durable, a message."""
    expected_ms: int = 10_000
    """Time of one worker in which a loss is expected before anything has been measured; makes 2 s. What all workers together get through
    without a loss soon outweighs it, and until then little is spent: 160 commits for the whole job on the way to half a minute."""
    shortest_ms: int = 1_000
    longest_ms: int = 600_000
    memory_ms: int = 3_600_000
    """After this long what was measured counts half."""


def best_interval_ms(policy: IntervalPolicy, mean_ms: float) -> int:
    """Return the interval (Daly's second order) for workers that are lost every `mean_ms` each, on average."""
    cost = policy.cost_ms
    if cost >= 2 * mean_ms:
        best = mean_ms
    else:
        half = cost / (2 * mean_ms)
        best = sqrt(2 * cost * mean_ms) * (1 + sqrt(half) / 3 + half / 9) - cost
    return round(min(max(best, policy.shortest_ms), policy.longest_ms))


class CommitPace:
    """Measures how often workers are lost without notice, and says how often to commit."""

    def __init__(self, policy: IntervalPolicy) -> None:
        self._policy = policy
        self._losses = 0.0
        self._worker_ms = 0.0
        self._seen_at: int | None = None
        self.told_ms = best_interval_ms(policy, policy.expected_ms)
        """What workers have been told last."""

    def lost(self) -> None:
        """A worker is gone that had not said so before."""
        self._losses += 1

    def note(self, at: int, workers: int) -> int | None:
        """Let time pass for so many workers; return the interval when it has changed enough to be told."""
        policy = self._policy
        if self._seen_at is not None and at > self._seen_at:
            passed = at - self._seen_at
            fading = 0.5 ** (passed / policy.memory_ms)
            self._losses *= fading
            self._worker_ms = self._worker_ms * fading + passed * workers
        self._seen_at = at
        # As if the next loss came now: time survived is all that is known of how long the next worker will live.
        best = best_interval_ms(policy, (self._worker_ms + policy.expected_ms) / (self._losses + 1))
        if max(best, self.told_ms) < _TOLD_CHANGE * min(best, self.told_ms):
            return None
        self.told_ms = best
        return best
