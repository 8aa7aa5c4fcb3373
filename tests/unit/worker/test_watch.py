"""What counts as a sign of life of a process that owes several batches. Time is virtual."""

from __future__ import annotations

import pyarrow as pa
import pytest

from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.predictors import watch
from antinfer.worker.predictors.watch import LOOK_SECONDS, Patience, Watch


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    return clock


def started() -> Watch:
    """Return what watches a process that has done its first batch, which may take longer."""
    it = Watch(Patience(timeout=8.0))
    it.is_ready(1.0)
    it.handed(0, Assembled([]))
    it.spoke(0)
    return it


def suspected_after(it: Watch, clock: Clock, seconds: float) -> Assembled | None:
    """Look as often as a listener does for so long; return the batch that is overdue."""
    until = clock.now + seconds
    while clock.now < until:
        clock.now += LOOK_SECONDS
        if (overdue := it.overdue()) is not None:
            return overdue.call
    return None


def test_what_others_do_is_no_sign_that_the_stage_in_front_lives(clock: Clock) -> None:
    it, hanging = started(), Assembled([])
    it.handed(0, hanging)
    it.put_aside(0)
    for slot in (1, 2, 1, 2):
        it.handed(slot, Assembled([]))
        it.spoke()
        assert suspected_after(it, clock, 1.75) is None
        it.spoke(slot)
    assert suspected_after(it, clock, 1.5) is hanging


def test_what_the_stage_in_front_does_is_no_sign_that_the_model_lives(clock: Clock) -> None:
    it, hanging = started(), Assembled([])
    it.handed(0, hanging)
    for slot in (1, 2):
        it.handed(slot, Assembled([]))
        it.put_aside(slot)
        assert suspected_after(it, clock, 3.5) is None
        it.made(slot)
    assert suspected_after(it, clock, 1.5) is hanging


def test_a_batch_that_the_front_has_done_is_the_oldest_again(clock: Clock) -> None:
    it, oldest = started(), Assembled([])
    it.handed(0, oldest)
    it.put_aside(0)
    it.handed(1, Assembled([]))
    it.made(0)
    assert suspected_after(it, clock, 9.0) is oldest


def test_the_next_one_has_its_own_time_from_the_answer_of_the_one_before_on(clock: Clock) -> None:
    it, younger = started(), Assembled([])
    it.handed(0, Assembled([]))
    it.handed(1, younger)
    assert suspected_after(it, clock, 7.75) is None
    it.spoke(0)
    assert suspected_after(it, clock, 7.75) is None
    assert suspected_after(it, clock, 0.75) is younger


def test_a_batch_of_which_little_was_run_says_little_about_large_ones(clock: Clock) -> None:
    rows = pa.record_batch({"x": range(100)})
    large, it = Assembled([Piece(Root(0), 0, 100, rows)]), Watch(Patience())
    it.is_ready(0.0)
    for _ in range(4):
        it.handed(0, large)
        clock.now += 0.5
        it.spoke(0, 5)
    it.handed(0, large)
    # Five rows have taken half a second, so a hundred may take ten, and many times that.
    assert suspected_after(it, clock, 95.0) is None
    assert suspected_after(it, clock, 10.0) is large
