"""What keeps every worker from writing output: a full disk, a read-only or forbidden output place.

While it lasts all work is in vain, so that no more of it is leased, but for one range every now and then: whether the hindrance has passed
shows when one is committed. Nobody is to blame, and nothing but the job's patience is used up.
"""

from __future__ import annotations

from dataclasses import dataclass

from antinfer.core.budgets import backoff_ms

_LONGEST_WAIT_MS = 5_000
"""Workers are not told when a hindrance has passed, so they ask now and then."""


@dataclass(frozen=True, slots=True)
class HindrancePolicy:
    """How often it is looked whether a hindrance has passed; times in milliseconds."""

    first_ms: int = 1_000
    longest_ms: int = 30_000
    patience_ms: int = 1_800_000
    """How long it may last before the job is stopped."""


class Hindrance:
    """At most one: the first that was met, told in the words of the last."""

    def __init__(self, policy: HindrancePolicy) -> None:
        self._policy = policy
        self._since: int | None = None
        self._tries = 0
        self._next = 0
        self.reason = ""
        """What it is; empty when there is none."""

    @property
    def since(self) -> int | None:
        """When it was met first (ms); None when there is none."""
        return self._since

    def meet(self, reason: str, at: int) -> None:
        """A worker could not write."""
        if self._since is None:
            self._since, self._tries, self._next = at, 0, at
        self.reason = reason
        if at >= self._next:
            self._put_off(at)

    def note_commit(self, granted_at: int, committed_at: int | None, at: int) -> None:
        """Some of a lease was committed: what may have been written before the hindrance was met proves nothing.

        Args:
            granted_at: when the lease was granted (ms).
            committed_at: when some of it was committed before, with an earlier request; None: never.
            at: time in ms.
        """
        if self._since is None:
            return
        if granted_at > self._since or (committed_at is not None and self._since < committed_at < at):
            self._since, self.reason = None, ""

    def allows(self, wanted: int, at: int) -> int:
        """Return how many of `wanted` leases may be granted now."""
        if self._since is None:
            return wanted
        return min(wanted, 1) if at >= self._next else 0

    def wait_ms(self, usual_ms: int, at: int) -> int:
        """Return how long a worker that got nothing waits before it asks again."""
        return usual_ms if self._since is None else max(usual_ms, min(self._next - at, _LONGEST_WAIT_MS))

    def note_grant(self, at: int) -> None:
        """A lease was granted: while there is a hindrance, it is the one that shows whether it has passed."""
        if self._since is not None:
            self._put_off(at)

    def has_lasted(self, at: int) -> bool:
        """Tell whether the job's patience is over."""
        return self._since is not None and at - self._since > self._policy.patience_ms

    def text(self, at: int) -> str:
        """Say it for people; empty when there is none."""
        if self._since is None:
            return ""
        return f"no work is handed out for {(at - self._since) // 1000} s: {self.reason}"

    def _put_off(self, at: int) -> None:
        self._tries += 1
        self._next = at + backoff_ms(self._policy.first_ms, self._policy.longest_ms, self._tries, "hindrance")
