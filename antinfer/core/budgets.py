"""Failure budgets: who pays for a failure, and when patience ends (DESIGN section 7)."""

from __future__ import annotations

from dataclasses import dataclass


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
        """Say which limit `quarantined` of `done` rows exceed."""
        said = f"{quarantined} of {done} rows are in quarantine, more than"
        if self.max_rows is not None and quarantined > self.max_rows:
            return f"{said} the {self.max_rows} that quarantine.max_rows allows"
        return f"{said} the share of {self.max_fraction:g} that quarantine.max_fraction allows"


@dataclass(frozen=True, slots=True)
class RangeBudget:
    """How a range that fails again and again is cornered: split until the row is alone, then quarantined unseen."""

    split_after: int = 2
    """Strikes after which the range is split in two; each half may then fail once less before it is split again."""
    quarantine_after: int = 3
    """Strikes after which a single row is given up on."""

    def strike(self, strikes: int, rows: int) -> tuple[int, bool]:
        """Return the strikes of a range (or of each of its halves) after one more, and whether to split it.

        The halves do not inherit the last strike: one of them is innocent, and a single row must fail alone before it is given up on.
        """
        split = rows > 1 and strikes + 1 >= self.split_after
        return (strikes if split else strikes + 1), split

    def should_quarantine(self, strikes: int, rows: int) -> bool:
        return rows == 1 and strikes >= self.quarantine_after


@dataclass(frozen=True, slots=True)
class StorageBudget:
    """Back-off for ranges whose input or output could not be reached."""

    first_ms: int = 1_000
    longest_ms: int = 60_000

    def delay_ms(self, attempt: int) -> int:
        """Return how long the range rests after its `attempt`-th lease (1, 2, ...) failed on storage."""
        return int(min(self.longest_ms, self.first_ms * 2 ** min(attempt - 1, 16)))
