"""Failure budgets: who pays for a failure, and when patience ends (DESIGN section 7)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from antinfer.errors import UserError


def backoff_ms(first_ms: int, longest_ms: int, failures: int, *key: object) -> int:
    """Return the pause after so many failures (1, 2, ...): doubling, and spread by up to a quarter either way.

    The spread depends on `key` alone, so that those who failed together do not come back together, and a replay decides the same.
    """
    pause = min(longest_ms, first_ms << min(failures - 1, 16))
    return pause * (768 + zlib.crc32(repr((failures, *key)).encode()) % 513) // 1024


@dataclass(frozen=True, slots=True)
class BadRowBudget:
    """How many input rows a job may put in quarantine."""

    max_fraction: float = 0.0
    """Share of them; 0: none; 1: any number."""
    max_rows: int | None = None
    """Number of them beside the share; None: no limit of its own."""
    probation_rows: int = 1_000
    """A share is judged only after this many rows, so that one bad row at the very start does not look like 100 %."""

    def is_exceeded(self, quarantined: int, done: int, *, final: bool) -> bool:
        """Tell whether `quarantined` of `done` rows are too many; `final`: the job is over, there is no probation left to wait for."""
        if self.max_rows is not None and quarantined > self.max_rows:
            return True
        if quarantined == 0 or (done < self.probation_rows and not final):
            return False
        return quarantined > self.max_fraction * done

    def reason(self, quarantined: int, done: int) -> str:
        """Say which limit `quarantined` of `done` rows exceed, and the way out."""
        allowed = f"the share of {self.max_fraction:g} that quarantine.max_fraction allows"
        if self.max_rows is not None and quarantined > self.max_rows:
            allowed = f"the {self.max_rows} that quarantine.max_rows allows"
        hint = (
            "`antinfer quarantine ls OUTPUT` shows them. Allow more and run the job on, with --force if the code is fixed by then; "
            "`antinfer quarantine retry OUTPUT` does these rows again."
        )
        return UserError(f"{quarantined} of {done} rows are in quarantine, more than {allowed}", hint=hint).text


@dataclass(frozen=True, slots=True)
class RangeBudget:
    """How a range that fails again and again is cornered: split until the row is alone, then quarantined unseen."""

    split_after: int = 2
    """Strikes after which the range is split in two; each half may then fail once less before it is split again."""
    quarantine_after: int = 3
    """Strikes after which a single row is given up on."""
    losses_after: int = 8
    """Workers that a single row may be lost with, those of the range that it was cut from included, before it is given up on. More than
    `quarantine_after`: nodes that are taken away look like this too, and are nobody's fault."""
    free: int = 1
    """Strikes after which the same worker may try again at once, if there is no other."""
    first_ms: int = 200
    longest_ms: int = 10_000

    def delay_ms(self, strikes: int, shard: int, start: int) -> int:
        """Return how long a range that has struck out so many times (1, 2, ...) is kept from the worker that had it last, if there is no
        other; another one may have it at once."""
        return 0 if strikes <= self.free else backoff_ms(self.first_ms, self.longest_ms, strikes - self.free, shard, start)

    def strike(self, strikes: int, rows: int) -> tuple[int, bool]:
        """Return the strikes of a range (or of each of its halves) after one more, and whether to split it.

        The halves do not inherit the last strike: one of them is innocent, and a single row must fail alone before it is given up on.
        """
        split = rows > 1 and strikes + 1 >= self.split_after
        return (strikes if split else strikes + 1), split

    def lose(self, losses: int, rows: int) -> tuple[int, bool]:
        """The same for a worker that was lost with the range first in line; its halves stay suspect."""
        split = rows > 1 and losses + 1 >= self.split_after
        return (self.split_after if split else losses + 1), split

    def is_suspect(self, strikes: int, losses: int) -> bool:
        """Tell whether a range must be computed alone: batches are filled across borders, so of what is computed together the first in
        line may be blamed for a row of another range. Not for one lost worker: that is most likely a node that was taken away."""
        return strikes > 0 or losses >= self.split_after

    def should_quarantine(self, strikes: int, losses: int, rows: int) -> bool:
        return rows == 1 and (strikes >= self.quarantine_after or losses >= self.losses_after)


@dataclass(frozen=True, slots=True)
class StorageBudget:
    """Back-off for ranges whose input or output could not be reached."""

    first_ms: int = 1_000
    longest_ms: int = 60_000

    def delay_ms(self, troubles: int, shard: int, start: int) -> int:
        """Return how long a range rests when storage has failed it so many times (1, 2, ...)."""
        return backoff_ms(self.first_ms, self.longest_ms, troubles, shard, start)


@dataclass(frozen=True, slots=True)
class WorkerBudget:
    """Patience with a worker that is lost again and again before it has committed anything: it gets work after pauses that grow."""

    free: int = 1
    """Such losses in a row that cost it nothing."""
    first_ms: int = 1_000
    longest_ms: int = 60_000

    def delay_ms(self, losses: int, worker: str) -> int:
        """Return how long `worker` waits for work when it comes back after so many losses."""
        return 0 if losses <= self.free else backoff_ms(self.first_ms, self.longest_ms, losses - self.free, worker)


@dataclass(frozen=True, slots=True)
class StartBudget:
    """When workers that cannot set the pipeline up mean that nobody can."""

    workers: int = 2
    """Workers with the same error, while none is ready, that prove it."""
    tries: int = 3
    """The same, for one worker that tries again and again, and for code that has worked before."""
