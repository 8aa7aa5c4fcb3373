"""How long calls may take, in virtual time."""

from __future__ import annotations

import random

import pytest

from antinfer.worker.pipeline import deadlines
from antinfer.worker.pipeline.deadlines import Deadlines, Stopwatch


def learnt(seconds: float, *, rows: int = 64, calls: int = 20, setup: float = 0.2, first: float | None = None, **keys: float) -> Deadlines:
    made = Deadlines(**keys)
    made.was_set_up(setup)
    made.came_back(rows, seconds if first is None else first, first=True)
    for _ in range(calls):
        made.came_back(rows, seconds)
    return made


def test_nobody_is_suspected_of_what_has_never_been_seen_to_end() -> None:
    fresh = Deadlines()
    assert fresh.limit(64, first=True).seconds == deadlines.FIRST_SECONDS
    assert fresh.limit(1, suspect=True).seconds >= deadlines.FIRST_SECONDS
    assert fresh.setup_seconds == deadlines.SETUP_SECONDS


def test_short_calls_have_the_floor_and_long_ones_many_times_what_they_take() -> None:
    assert learnt(0.01).limit(64).seconds == deadlines.FLOOR_SECONDS
    assert learnt(3.0).limit(64).seconds == pytest.approx(deadlines.FACTOR * 3.0)
    assert "3 s" in learnt(3.0).limit(64).reason


def test_a_restart_is_worth_waiting_for_as_long_as_it_takes() -> None:
    assert learnt(0.01, setup=40.0, first=10.0).limit(64).seconds == 50.0


def test_a_larger_batch_may_take_longer_and_a_smaller_one_not_less() -> None:
    made = learnt(3.0, rows=64)
    assert made.limit(256).seconds == pytest.approx(4 * made.limit(64).seconds)
    assert made.limit(4).seconds == made.limit(64).seconds


def test_the_first_call_of_a_process_may_compile() -> None:
    made = learnt(0.01, first=30.0)
    assert made.limit(64, first=True).seconds == pytest.approx(90.0)
    # Afterwards one that has another shape, and compiles again, has what a restart costs.
    assert 30.0 < made.limit(64).seconds < 40.0


def test_a_row_alone_has_most_of_all() -> None:
    made = learnt(3.0)
    assert made.limit(1, suspect=True).seconds == pytest.approx(deadlines.ALONE_FACTOR * made.limit(1).seconds)
    assert learnt(0.01).limit(1, suspect=True).seconds == deadlines.ALONE_SECONDS
    assert made.limit(4, suspect=True).seconds == made.limit(4).seconds


def test_what_the_user_says_holds_but_for_first_calls() -> None:
    made = learnt(0.01, timeout=2.0, first=5.0)
    assert made.limit(64).seconds == made.limit(1, suspect=True).seconds == 2.0
    assert made.limit(64, first=True).seconds == pytest.approx(15.0)
    assert made.limit(64).reason == "its timeout"
    assert learnt(30.0, timeout=2.0).limit(64).seconds == 2.0


def test_a_slow_call_is_forgotten_in_the_end() -> None:
    made = learnt(0.1)
    made.came_back(64, 20.0)
    assert made.limit(64).seconds == pytest.approx(200.0)
    for _ in range(200):
        made.came_back(64, 0.1)
    assert made.limit(64).seconds == deadlines.FLOOR_SECONDS


@pytest.mark.parametrize("seed", range(20))
def test_no_healthy_call_is_ever_suspected(seed: int) -> None:
    """Calls of any speed that now and then take seven times as long, and first ones that compile."""
    chance = random.Random(seed)
    usual, compiles = 10 ** chance.uniform(-3, 2), 10 ** chance.uniform(-1, 2)
    made = Deadlines()
    for process in range(4):
        made.was_set_up(chance.uniform(0.5, 2.0))
        for call in range(200):
            rows = chance.choice((64, 64, 64, 17, 1))
            seconds = usual * rows / 64 * chance.uniform(0.8, 1.2) * (7.0 if chance.random() < 0.02 and rows == 64 else 1.0)
            seconds += compiles if not call else 0.0
            assert seconds < made.limit(rows, first=not call).seconds, (seed, process, call, usual, rows)
            made.came_back(rows, seconds, first=not call)


def test_a_machine_that_stood_still_hangs_nobody() -> None:
    watch = Stopwatch(0.0, 0.25)
    for tick in range(1, 9):
        watch.look(tick * 0.25)
    assert watch.seconds == pytest.approx(2.0)
    # Suspended for an hour: one look.
    assert watch.look(3600.0) == pytest.approx(2.5)
    assert watch.restart(3600.25) == pytest.approx(2.75)
    assert watch.look(3600.5) == pytest.approx(0.25)
