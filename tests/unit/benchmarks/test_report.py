"""The table, the verdicts and the JSON of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import machine, report
from benchmarks.contest import by_turns, times_faster
from benchmarks.report import Result


@pytest.mark.parametrize(
    ("samples", "at_least", "verdict"),
    [((1.0, 9.0, 3.0), True, "met"), ((1.0, 2.0, 9.0), True, "missed"), ((1.0, 2.0, 9.0), False, "met"), ((9.0,), False, "missed")],
)
def test_the_median_is_held_against_the_target(samples: tuple[float, ...], at_least: bool, verdict: str) -> None:
    assert Result("b", "speed", samples, "x", 2.5, at_least=at_least).verdict == verdict


def test_a_number_without_a_target_has_no_verdict() -> None:
    assert Result("b", "speed", (1.0,), "x").verdict == "-"


def test_the_table_shows_value_target_and_verdict() -> None:
    lines = report.table(
        [Result("alpha", "speed", (4321.0,), "rows/s", 4_000), Result("be", "delay", (0.5,), "s", 0.25, at_least=False)]
    ).splitlines()
    assert lines[2].split() == ["alpha", "speed", "4,321", "rows/s", ">=", "4,000", "met"]
    assert lines[3].split() == ["be", "delay", "0.5", "s", "<=", "0.25", "missed"]


def test_what_is_written_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.json"
    described = machine.describe()
    report.write(path, described, [Result("b", "speed", (1.0, 3.0), "x", 1.5, details={"rows": 3})], quick=True)
    data = json.loads(path.read_text())
    assert data["machine"] == described
    assert data["quick"] is True
    (written,) = data["results"]
    assert (written["value"], written["samples"], written["verdict"], written["details"]) == (2.0, [1.0, 3.0], "met", {"rows": 3})


def test_the_machine_is_described() -> None:
    described = machine.describe()
    assert described["cores"] >= 1
    assert described["packages"]["pyarrow"]


def test_contestants_take_turns_in_turning_order() -> None:
    order: list[str] = []

    def contestant(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    seconds = by_turns({"a": lambda: contestant("a", 2.0), "b": lambda: contestant("b", 8.0)}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert times_faster(seconds, "a", "b") == (4.0, 4.0, 4.0)
