"""The story of a range: why did it get where it is? A bounded memory of what the engine did, for messages, `antinfer` and failing tests."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from antinfer.core.ids import LeaseId
from antinfer.core.ledger import Lease
from antinfer.core.ranges import UNSIZED, Rows


class Entry(NamedTuple):
    """One thing that happened to a range."""

    at: int
    what: str
    shard: int
    rows: Rows
    lease: LeaseId
    who: str
    cause: int = 0
    """Number of the event, from 1 in each reign, that brought it about; 0: the reign began with it."""

    def __str__(self) -> str:
        return f"{self.at / 1000:10.3f} s  shard {self.shard} {rows_text(self.rows)} {self.what} lease {self.lease} by {self.who}"


def rows_text(rows: Rows) -> str:
    """Return ``[start, stop)``, ``end`` for the stop of a shard that is not sized yet."""
    return f"[{rows.start}, {'end' if rows.stop >= UNSIZED else rows.stop})"


class Story:
    """The last `capacity` entries, oldest first."""

    def __init__(self, capacity: int = 20_000) -> None:
        # Plain tuples until somebody asks, which is rare: every request tells two.
        self._told: deque[tuple[int, str, int, Rows, LeaseId, str, int]] = deque(maxlen=capacity)
        self._fresh: list[Entry] | None = None
        self.cause = 0
        """Number of the event under way; its teller counts it up."""

    def tell(self, at: int, what: str, lease: Lease, who: str, rows: Rows | None = None) -> None:
        """Remember that `what` happened to the rows of `lease`, or to `rows` of it alone."""
        self.tell_of(at, what, lease.shard, rows or lease.rows, lease.id, who)

    def tell_of(self, at: int, what: str, shard: int, rows: Rows, lease: LeaseId, who: str) -> None:
        """The same of a lease that is known by its id alone."""
        told = (at, what, shard, rows, lease, who, self.cause)
        self._told.append(told)
        if self._fresh is not None:
            self._fresh.append(told)  # type: ignore[arg-type]  # an entry but for its name

    def keep_fresh(self) -> None:
        """From now on, keep what is told for `take_fresh`."""
        self._fresh = []

    def take_fresh(self) -> list[Entry]:
        """Return what was told since the last call; nothing unless `keep_fresh` was called. Fields have places here, and no names."""
        if not self._fresh:
            return []
        taken, self._fresh = self._fresh, []
        return taken

    def of(self, shard: int, row: int | None = None) -> list[Entry]:
        """Return what is remembered about a shard, or about one row of it."""
        entries = (Entry(*told) for told in self._told)
        return [entry for entry in entries if entry.shard == shard and (row is None or entry.rows.start <= row < entry.rows.stop)]
