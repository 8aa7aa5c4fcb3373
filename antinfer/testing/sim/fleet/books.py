"""The output place of a whole job, as accounts: which rows are staged, published and in the manifest, without keeping a name for each.

A range that comes twice is found at once, by the row. What is whole takes one byte a shard, so that a million shards fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from antinfer.core.ranges import RowSet
from antinfer.core.records import CommitRecord
from antinfer.testing.sim.fleet.conditions import Conditions

_WHOLE: Final = 1


class Coverage:
    """Which rows of the job are there, each at most once."""

    def __init__(self, shards: int, rows: int) -> None:
        self._rows = rows
        self._whole = bytearray(shards)
        self._partial: dict[int, RowSet] = {}

    def add(self, shard: int, start: int, stop: int) -> None:
        """Add rows. Raises ValueError when any of them is there already."""
        if self._whole[shard]:
            raise ValueError(f"shard {shard} is whole, and [{start}, {stop}) of it comes again")
        if start == 0 and stop == self._rows and shard not in self._partial:
            self._whole[shard] = _WHOLE
            return
        runs = self._partial.setdefault(shard, RowSet())
        try:
            runs.add(start, stop)
        except ValueError as error:
            raise ValueError(f"shard {shard}: {error}") from error
        if not runs.gaps(0, self._rows):
            del self._partial[shard]
            self._whole[shard] = _WHOLE

    def missing(self) -> list[int]:
        """Return the shards that are not whole."""
        return [shard for shard, is_whole in enumerate(self._whole) if not is_whole]


class Books:
    """Everything that was written to the output place."""

    def __init__(self, conditions: Conditions, poison: dict[int, list[int]]) -> None:
        self._conditions = conditions
        self._poison = poison
        self.staged: dict[str, CommitRecord] = {}
        """Staged and neither published nor collected."""
        self._fresh: set[str] = set()
        """Staged names that were published and may be commanded again: their record is not flushed yet."""
        self.published = Coverage(conditions.shards, conditions.rows)
        self.manifest = Coverage(conditions.shards, conditions.rows)
        self._flushed: set[str] = set()
        self.rows_out = 0
        self.rows_quarantined = 0
        self.accumulated = 0
        """Sum over the numbers of all rows with a result, as the accumulators have it."""
        self.quarantined: int = 0
        """Sum over the numbers of all rows in quarantine."""
        self.staged_objects = 0
        self.most_staged = 0
        self.is_sealed = False
        self.problems: list[str] = []

    # -- what is written ---------------------------------------------------------------------------------------------------------
    def stage(self, record: CommitRecord) -> None:
        self.staged[record.staged] = record
        self.staged_objects += 1
        self.most_staged = max(self.most_staged, len(self.staged))

    def publish(self, records: Iterable[CommitRecord]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Give staged objects their final names; return the staged names of those that have one now, and of those that are nowhere."""
        done: list[str] = []
        missing: list[str] = []
        for record in records:
            staged = self.staged.pop(record.staged, None)
            if staged is not None:
                self._enter(self.published, record, "is visible twice")
                self._fresh.add(record.staged)
            (done if record.staged in self._fresh else missing).append(str(record.staged))
        return tuple(done), tuple(missing)

    def flush(self, records: Sequence[CommitRecord]) -> None:
        """Append to the manifest. A chunk that is written again counts once (rule 7)."""
        for record in records:
            if record.staged in self._flushed:
                continue
            self._flushed.add(record.staged)
            self._enter(self.manifest, record, "is in the manifest twice")
            good, bad = record.accumulators.split()
            self.accumulated += int(good)
            self.quarantined += int(bad)
            self.rows_out += record.rows_out
            self.rows_quarantined += record.rows_quarantined

    def forget(self, staged: Iterable[str]) -> None:
        """The master has dropped these records: nobody will ask about them again."""
        for name in staged:
            self._fresh.discard(name)
            self._flushed.discard(name)

    def collect(self, staged: Iterable[str]) -> None:
        for name in staged:
            self.staged.pop(name, None)

    def sweep(self, before: int, keep: Iterable[str]) -> None:
        kept = set(keep)
        for name in list(self.staged):
            if int(name.split("-", 1)[0]) < before and name not in kept:
                del self.staged[name]

    def _enter(self, coverage: Coverage, record: CommitRecord, what: str) -> None:
        try:
            coverage.add(record.shard, record.start, record.stop)
        except ValueError as error:
            self.problems.append(f"doubled: a row {what}: {error}")

    # -- what rows are like ------------------------------------------------------------------------------------------------------
    def first_poison(self, shard: int, start: int, stop: int) -> int | None:
        """Return the first row of a range that kills its process."""
        for offset in self._poison.get(shard, ()):
            if start <= offset < stop:
                return offset
        return None

    def sums(self, shard: int, start: int, stop: int, *, is_given_up: bool) -> tuple[int, int, int]:
        """Return how many rows of a range are bad, and the sums over the numbers of its good and of its bad rows."""
        first = shard * self._conditions.rows
        low, high = first + start, first + stop
        total = (low + high - 1) * (high - low) // 2
        if is_given_up:
            return stop - start, 0, total
        every = self._conditions.bad_every
        if not every:
            return 0, total, 0
        begin, end = -(-low // every), -(-high // every)
        bad = every * (begin + end - 1) * (end - begin) // 2
        return end - begin, total - bad, bad

    # -- the end -----------------------------------------------------------------------------------------------------------------
    def audit(self, rows_done: int) -> list[str]:
        """Return what is wrong with a finished job: rows that are missing or doubled anywhere, sums that do not add up."""
        problems = list(self.problems)
        for name, coverage in (("visible", self.published), ("in the manifest", self.manifest)):
            if missing := coverage.missing():
                problems.append(f"lost: {len(missing)} shards are not whole as far as they are {name}, the first are {missing[:5]}")
        total = self._conditions.total_rows
        if self.rows_out != (total - self.rows_quarantined) * self._conditions.fan_out or rows_done != total:
            problems.append(
                f"lost: {self.rows_out} results and {self.rows_quarantined} rows in quarantine of {total}; the core counts {rows_done}"
            )
        if self.accumulated + self.quarantined != total * (total - 1) // 2:
            problems.append("lost: the accumulators do not add up to the rows of the input")
        return problems
