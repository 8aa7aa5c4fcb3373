"""How fast leases and workers get on, measured from what they report. Times are in ms, rates in rows per ms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from antinfer.core.ledger import Lease

_WINDOW_MS: Final = 1_000
"""Shortest span that a rate is measured over: batches come in bursts."""


@dataclass(slots=True)
class Pace:
    """The speed of one worker."""

    rate: float = 0.0
    """0 until something was measured."""
    _rows: int = 0
    _since: int = 0

    def begin(self, at: int) -> None:
        """The worker has something to do again: the time it had nothing does not count."""
        self._rows, self._since = 0, at

    def note(self, rows: int, at: int) -> None:
        """So many more rows are computed."""
        self._rows += rows
        elapsed = at - self._since
        # Nothing for a long while is no speed: it would make every deadline of a worker that hangs recede for ever.
        if self._rows and elapsed >= _WINDOW_MS:
            sample = self._rows / elapsed
            # The latest counts most: rows of one shard may be twenty times as dear as those of another.
            self.rate = (self.rate + sample) / 2 if self.rate else sample
            self._rows, self._since = 0, at


def advance(lease: Lease, row: int, at: int, *, is_old: bool = False) -> int:
    """Note that the rows of `lease` before `row` are computed; return how many of them are news. `is_old`: nobody knows since when."""
    row = min(row, lease.rows.stop)
    if is_old:
        lease.reached = lease.base = max(row, lease.reached)
        lease.begun_at = lease.moved_at = at
        return 0
    if row <= lease.reached:
        if lease.reached == lease.base:
            lease.begun_at = at
        return 0
    news = row - lease.reached
    lease.reached, lease.moved_at = row, at
    return news


def rate_of(lease: Lease, worker: Pace) -> float:
    """Return the speed of a lease: its own once that can be told, else its worker's, else 0."""
    span = lease.moved_at - lease.begun_at
    return (lease.reached - lease.base) / span if span >= _WINDOW_MS // 2 and lease.reached > lease.base else worker.rate


def rest_ms(lease: Lease, worker: Pace, at: int) -> float:
    """Return how long the rest of a lease will take.

    Where nothing is known it is as long again as the lease has taken so far, which is the best guess about anything of unknown length.
    """
    if lease.is_unsized or not (rate := rate_of(lease, worker)):
        return at - lease.granted_at
    return (lease.rows.stop - max(lease.reached, lease.rows.start)) / rate
