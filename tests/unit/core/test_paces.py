"""How fast workers are, as far as what they report tells."""

from __future__ import annotations

import pytest

from antinfer.core.paces import Pace


def test_a_worker_that_stands_still_keeps_the_speed_it_had() -> None:
    """Else the time that the rest of its range should take would grow for as long as it hangs, and its deadline with it."""
    pace = Pace()
    pace.begin(0)
    pace.note(500, 1_000)
    for at in range(2_000, 600_000, 1_000):
        pace.note(0, at)
    assert pace.rate == pytest.approx(0.5)


def test_rows_that_come_in_bursts_are_spread_over_the_time_between() -> None:
    pace = Pace()
    pace.begin(0)
    for at in range(1_000, 121_000, 1_000):
        pace.note(300 if at % 30_000 == 0 else 0, at)
    assert pace.rate == pytest.approx(0.01)
