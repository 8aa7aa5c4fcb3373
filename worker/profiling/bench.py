"""The bench: copies of one stage, fed with the same batches over and over, and what they did meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.splitter import Outcome, cut
from antinfer.worker.profiling.gauges import GilProbe, cpu_seconds

_WARM_SHARE = 0.25
"""Of a measurement's time, so much is spent on batches before it that do not count."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What all copies together did in one measurement."""

    rows: int
    rows_per_second: float
    cpu_seconds: float
    bytes_out: int = 0
    gil_share: float | None = None


@dataclass(slots=True)
class _Seat:
    """One copy; it is known by its thread."""

    under_way: int = 0
    warm: int = 0
    """Batches that were finished before the clock started."""
    taken: int = 0
    """Batches since then."""
    rows: int = 0
    last: float = 0.0
    """When the last of them was finished."""


@dataclass(slots=True)
class _Round:
    """One measurement."""

    batches: cycle[Assembled]
    rows: int
    until: float
    is_timed: bool = False
    bytes_out: int = 0
    seats: dict[int, _Seat] = field(default_factory=dict)


class Bench:
    """Takes the place of the flow (`predictors.feed.Feed`) for the copies of one stage. `measure` is for one thread, the rest for any."""

    def __init__(self, copies: int) -> None:
        self._copies = copies
        self._news = threading.Condition()
        self._round: _Round | None = None
        self._rows = 1
        self._stopped = False
        self._error: BaseException | None = None
        self.ran_short = False
        """A batch had to be run in two halves."""

    def measure(self, batches: Sequence[Assembled], seconds: float, *, probes_gil: bool = False) -> Tally:
        """Have all copies work on `batches`, again and again, for about `seconds`; each does at least one before and one while it counts.

        Raises what a copy failed with.
        """
        with self._news:
            self._rows = max(call.rows for call in batches)
            self._round = now = _Round(cycle(batches), self._rows, time.monotonic() + _WARM_SHARE * seconds)
            self._news.notify_all()
            self._wait(lambda: time.monotonic() >= now.until and self._are_done(now, lambda seat: seat.warm))
            cpu, began = cpu_seconds(), time.monotonic()
            now.is_timed, now.until = True, began + seconds
            probe = GilProbe() if probes_gil else None
            self._news.notify_all()
            try:
                self._wait(lambda: time.monotonic() >= now.until and self._are_done(now, lambda seat: seat.taken))
            finally:
                gil_share = None if probe is None else probe.stop()
            self._round = None
        seats = now.seats.values()
        # Each by its own clock: those that end before the others are not to blame for the rest of the time.
        rate = sum(seat.rows / (seat.last - began) for seat in seats)
        return Tally(sum(seat.rows for seat in seats), rate, cpu_seconds() - cpu, now.bytes_out, gil_share)

    def stop(self) -> None:
        """End every `take`, now and later."""
        with self._news:
            self._stopped = True
            self._news.notify_all()

    def fail(self, error: BaseException) -> None:
        """Take note that a copy has failed for good."""
        with self._news:
            self._error = self._error or error
            self._news.notify_all()

    def check(self) -> None:
        """Raise what a copy has failed with, if one has."""
        if self._error is not None:
            raise self._error

    # -- what copies call --------------------------------------------------------------------------------------------------------------
    def take(self, node: int, *, want: bool = True, owed: int = 0, wake: Callable[[], bool] = lambda: False) -> Assembled | None:
        with self._news:
            while not self._stopped and not wake():
                call = self._next() if want else None
                if call is not None:
                    return call
                self._news.wait()
            return None

    def wake_up(self, node: int) -> None:
        with self._news:
            self._news.notify_all()

    def hold(self, node: int) -> None:
        # A batch is only ever halved since it did not fit, or killed its process.
        with self._news:
            self.ran_short = True
            self._seat().under_way += 1

    def finish(self, node: int, call: Assembled, outcome: Outcome, seconds: float) -> None:
        with self._news:
            seat, now = self._seat(), self._round
            assert now is not None
            seat.under_way -= 1
            if now.is_timed:
                seat.rows += cut(call, outcome)[0].rows
                seat.last = time.monotonic()
                now.bytes_out += 0 if outcome.batch is None else outcome.batch.nbytes
            else:
                seat.warm += 1
            self._news.notify_all()

    def batch_rows(self, node: int) -> int:
        return self._rows

    def set_batch_rows(self, node: int, rows: int) -> bool:
        # What is measured is the size that was asked for.
        return False

    # -- inside ------------------------------------------------------------------------------------------------------------------------
    def _seat(self) -> _Seat:
        assert self._round is not None
        return self._round.seats.setdefault(threading.get_ident(), _Seat())

    def _next(self) -> Assembled | None:
        now = self._round
        if now is None:
            return None
        seat = self._seat()
        has_none = not (seat.taken if now.is_timed else seat.warm or seat.under_way)
        if time.monotonic() >= now.until and not has_none:
            return None
        seat.under_way += 1
        seat.taken += now.is_timed
        parts = next(now.batches)
        return Assembled(list(parts.parts), fused=parts.fused)

    def _are_done(self, now: _Round, did: Callable[[_Seat], int]) -> bool:
        seats = now.seats.values()
        return len(seats) == self._copies and all(did(seat) and not seat.under_way for seat in seats)

    def _wait(self, over: Callable[[], bool]) -> None:
        while not over():
            self.check()
            self._news.wait(0.02)
        self.check()
