"""Times and budgets of a worker."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """Budgets for deaths of the stage host."""

    deaths_per_lease: int = 2
    """Deaths with the same lease first in line after which that lease is failed; one alone may be anybody's fault."""
    deaths: int = 6
    """Deaths in a row and within `window_ms`, without any work done between, after which the worker gives up."""
    window_ms: int = 300_000
    first_pause_ms: int = 500
    """Pause before the second restart in a row; doubles."""
    longest_pause_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """Times of a worker, in ms."""

    heartbeat_ms: int = 2_000
    """Longest silence until the master names its own."""
    repeat_ms: int = 10_000
    """After this long an unanswered message is sent again, in case the stream lives but lost it."""
    idle_ms: int = 200
    """Pause before asking again when fewer leases were granted than wished for, and the master named no pause."""
    backoff_ms: int = 100
    """Pause before the second attempt to connect; doubles up to `longest_backoff_ms`."""
    longest_backoff_ms: int = 1_000
    free_breaks: int = 3
    """Streams in a row that may break before they have carried an answer at no more cost than a master that cannot be reached: one that
    starts breaks some."""
    break_ms: int = 100
    """Pause after the next of them; doubles up to `longest_break_ms`. Each costs the master a look at what it cannot read."""
    longest_break_ms: int = 1_500
    held_ms: int = 1_000
    """A stream that held for so long was well, whether or not there was anything to answer."""
    grace_ms: int = 25_000
    """Time to drain; after three quarters of it unfinished rows are returned without waiting for the host."""
    host: HostPolicy = field(default_factory=HostPolicy)
