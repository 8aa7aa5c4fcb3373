"""Counts of what happens between a master and its workers besides the work itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """What became of leases, commits and workers during this reign; for display."""

    leases_returned: int = 0
    """Given back by their worker, or left with it when it ended in order."""
    leases_expired: int = 0
    """Of workers that fell silent."""
    leases_dropped: int = 0
    """Not held any more by the worker they were granted to: an answer was lost, or the worker started again."""
    leases_failed: int = 0
    """Ended by a process that died, or by trouble with the storage."""
    leases_taken: int = 0
    """Stuck on a worker that lives, and taken away from it."""
    leases_retried: int = 0
    """Granted for rows that an earlier lease had covered."""
    second_copies: int = 0
    """Granted beside a lease that took long."""
    commits_refused: int = 0
    workers_expired: int = 0
