"""The arithmetic behind the numbers of the GPU benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu import ticks
from benchmarks.gpu.suites.ceilings import together
from benchmarks.gpu.ticks import Tick, Ticks


def evenly(batches: int, rows: int, every: float, start: float = 100.0) -> list[Tick]:
    return [Tick(start + n * every, rows) for n in range(batches)]


def test_an_even_stream_has_one_rate() -> None:
    rates = ticks.rates(evenly(101, 10, 0.1))
    assert rates is not None
    assert rates.rows == 1_010
    assert rates.first == 100.0
    assert rates.after_first == pytest.approx(100.0)
    assert rates.steady == pytest.approx(100.0)
    assert rates.window == (pytest.approx(102.5), pytest.approx(108.9))


def test_a_slow_start_and_a_slow_end_do_not_count_as_steady() -> None:
    slow, quick = evenly(20, 10, 1.0), evenly(200, 10, 0.1, start=120.0)
    tail = evenly(10, 10, 1.0, start=141.0)
    rates = ticks.rates([*slow, *quick, *tail])
    assert rates is not None
    assert rates.steady == pytest.approx(100.0)
    assert rates.tuned == pytest.approx(100.0)
    assert rates.after_first is not None
    assert rates.after_first < 50.0


@pytest.mark.parametrize("found", [[], [Tick(1.0, 5)], [Tick(1.0, 5), Tick(1.0, 5)]])
def test_too_little_has_no_steady_rate(found: list[Tick]) -> None:
    rates = ticks.rates(found)
    assert rates is None or (rates.steady is None and rates.after_first is None)


def test_what_several_processes_wrote_is_read_in_order(tmp_path: Path) -> None:
    writers = [Ticks(str(tmp_path)), Ticks(str(tmp_path))]
    for n in range(6):
        writers[n % 2].add(n)
    (tmp_path / "half").write_text("123.4", encoding="ascii")
    assert [tick.rows for tick in ticks.read(tmp_path)] == [0, 1, 2, 3, 4, 5]


def test_the_series_has_gaps_where_nothing_came() -> None:
    assert ticks.series([Tick(1.0, 4), Tick(1.2, 1), Tick(2.6, 2)], step=0.5) == [5, 0, 0, 2]
    assert ticks.series([]) == []


def test_cores_and_device_together_are_better_than_either() -> None:
    rate, share = together(9_178, 16_145, 20_786)
    assert rate == pytest.approx(14_000, rel=0.02)
    assert share == pytest.approx(0.65, abs=0.02)
    only_device = 1 / (1 / 20_786 + 1 / 16_145)
    assert rate > max(9_178, only_device)


def test_cores_that_are_faster_than_the_model_decode_everything() -> None:
    assert together(50_000, 16_000, 12_000) == (12_000, 1.0)
