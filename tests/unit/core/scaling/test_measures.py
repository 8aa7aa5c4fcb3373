"""Rates, start-up times and losses, as they are reckoned with."""

from __future__ import annotations

import random
from statistics import mean, stdev

import pytest

from antinfer.core.scaling.measures import Meter


def test_nothing_is_told_before_there_is_something_to_tell() -> None:
    meter = Meter()
    assert meter.measures() == {}
    meter.note_start("preemptible", 30_000)
    meter.note_work("preemptible", worker_ms=4_000, rows=400, ms=1_000)
    assert meter.measures() == {}, "batches come in bursts"
    meter.note_work("preemptible", worker_ms=4_000, rows=0, ms=1_000)
    (measure,) = meter.measures().values()
    assert measure.rate == pytest.approx(0.05, rel=0.01)
    assert measure.startup_ms == 30_000
    assert measure.loss == 0


def test_loss_is_the_share_of_time_that_being_taken_away_costs() -> None:
    """Each worker works for 9 min, loses 30 s of work, and the next one takes 30 s to start: a tenth of ten minutes."""
    meter = Meter()
    meter.note_start("preemptible", 30_000)
    for second in range(1, 54_001):
        meter.note_work("preemptible", worker_ms=10_000, rows=500, ms=1_000)
        if second % 54 == 0:
            meter.note_taken("preemptible", 1_500)
    assert meter.measures()["preemptible"].loss == pytest.approx(0.1, rel=0.1)


def test_who_is_taken_away_at_once_shows_little_of_what_will_be() -> None:
    meter = Meter()
    meter.note_start("preemptible", 30_000)
    meter.note_work("preemptible", worker_ms=6_000, rows=300, ms=2_000)
    meter.note_taken("preemptible", 100)
    assert 0 < meter.measures()["preemptible"].loss < 0.06
    for second in range(1, 3_601):
        meter.note_work("preemptible", worker_ms=3_000, rows=150, ms=1_000)
        if second % 20 == 0:
            meter.note_taken("preemptible", 1_500)
    assert meter.measures()["preemptible"].loss == pytest.approx(0.5, rel=0.1), "as soon as there is more to go by, it counts in full"


@pytest.mark.parametrize(("startup_s", "life_s", "loss"), [(30, 600, 0.05), (120, 300, 0.28), (600, 120, 0.82)])
def test_a_loss_is_told_with_the_error_that_chance_gives_it(startup_s: int, life_s: int, loss: float) -> None:
    """Half an hour of work, over and over: deaths that come by chance make the loss differ as much as it says itself."""
    rng, seen, told = random.Random(7), [], []
    for _ in range(200):
        meter, dies_at = Meter(), rng.expovariate(1 / life_s)
        meter.note_start("preemptible", 1_000 * startup_s)
        for at in range(10, 1_810, 10):
            meter.note_work("preemptible", worker_ms=10_000, rows=500, ms=10_000)
            while dies_at <= at:
                meter.note_taken("preemptible", 0)
                dies_at += rng.expovariate(1 / life_s)
        measure = meter.measures()["preemptible"]
        seen.append(measure.loss)
        told.append(measure.loss_error)
        (again,) = Meter({"preemptible": measure}).measures().values()
        assert again.loss == pytest.approx(measure.loss) and again.loss_error == pytest.approx(measure.loss_error)
    assert mean(seen) == pytest.approx(loss, abs=0.03)
    assert mean(error**2 for error in told) ** 0.5 == pytest.approx(stdev(seen), rel=0.2)


def test_days_without_a_row_are_reckoned_with_as_well() -> None:
    meter = Meter()
    meter.note_start("preemptible", 30_000)
    meter.note_work("preemptible", worker_ms=1_000_000, rows=100_000, ms=1)
    for _ in range(120):
        meter.note_work("preemptible", worker_ms=3_600_000, rows=0, ms=3_600_000)
        meter.note_taken("preemptible", 100)
    assert 0 < meter.measures()["preemptible"].loss < 1


def test_what_is_long_ago_counts_less() -> None:
    meter = Meter()
    for _ in range(3_600):
        meter.note_work("protected", worker_ms=1_000, rows=10, ms=1_000)
    for _ in range(1_800):
        meter.note_work("protected", worker_ms=1_000, rows=20, ms=1_000)
    assert 0.0185 < meter.measures()["protected"].rate < 0.02


def test_classes_are_measured_apart() -> None:
    meter = Meter()
    meter.note_work("protected", worker_ms=10_000, rows=1_000, ms=10_000)
    meter.note_work("preemptible", worker_ms=10_000, rows=500, ms=10_000)
    assert {name: round(measure.rate, 3) for name, measure in meter.measures().items()} == {"protected": 0.1, "preemptible": 0.05}
