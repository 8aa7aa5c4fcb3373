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

    def __str__(self) -> str:
        stop = "end" if self.rows.stop >= UNSIZED else self.rows.stop
        return f"{self.at / 1000:10.3f} s  shard {self.shard} [{self.rows.start}, {stop}) {self.what} lease {self.lease} by {self.who}"


class Story:
    """The last `capacity` entries, oldest first."""

    def __init__(self, capacity: int = 20_000) -> None:
        # Plain tuples until somebody asks, which is rare: every request tells two.
        self._told: deque[tuple[int, str, int, Rows, LeaseId, str]] = deque(maxlen=capacity)

    def tell(self, at: int, what: str, lease: Lease, who: str, rows: Rows | None = None) -> None:
        """Remember that `what` happened to the rows of `lease`, or to `rows` of it alone."""
        self._told.append((at, what, lease.shard, rows or lease.rows, lease.id, who))

    def of(self, shard: int, row: int | None = None) -> list[Entry]:
        """Return what is remembered about a shard, or about one row of it."""
        entries = (Entry(*told) for told in self._told)
        return [entry for entry in entries if entry.shard == shard and (row is None or entry.rows.start <= row < entry.rows.stop)]
