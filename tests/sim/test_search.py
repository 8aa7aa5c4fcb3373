"""Random search for violations of the commit protocol, over every scenario of the catalogue.

A few seeds run always, drawn from the run's own seed; seeds that once failed run always (``failing_seeds.txt``); thousands run under
``-m soak``. A failure prints the whole transcript, and ``(scenario, seed)`` repeats it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from antinfer.testing import sim

CORPUS = Path(__file__).with_name("failing_seeds.txt")
SEEDS = 10
SOAK_SEEDS = 4_000


def corpus() -> list[tuple[str, int]]:
    lines = (line.partition("#")[0].rpartition(":") for line in CORPUS.read_text().splitlines())
    return [(name.strip(), int(seed)) for name, _, seed in lines if name.strip()]


def play(name: str, seed: int) -> sim.Outcome:
    return sim.run(sim.SCENARIOS[name], seed)


@pytest.mark.parametrize("name", sim.SCENARIOS)
def test_no_row_is_lost_doubled_or_stuck(name: str, seed: int) -> None:
    for number in range(SEEDS):
        outcome = play(name, seed + number)
        assert outcome.ok, outcome.transcript()


@pytest.mark.parametrize(("name", "number"), corpus())
def test_what_once_failed_does_not_fail_again(name: str, number: int) -> None:
    outcome = play(name, number)
    assert outcome.ok, outcome.transcript()


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", sim.SCENARIOS)
def test_soak(name: str, seed: int) -> None:
    for number in range(SOAK_SEEDS):
        outcome = play(name, seed + number)
        assert outcome.ok, outcome.transcript()


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", sim.SCENARIOS)
def test_soak_in_harsher_weather_and_longer_jobs(name: str, seed: int) -> None:
    calm = sim.SCENARIOS[name]
    bad, flaky = frozenset({(0, 0), (1, 2)}), frozenset({(2, 1), (0, 1)})
    for number in range(seed, seed + SOAK_SEEDS // 4):
        scenario = calm.but(weather=calm.weather.times(2 + number % 4), rows=calm.rows * 2, calm_ms=6_000)
        if number % 2:
            scenario = scenario.but(planned_at_once=False, unsized=frozenset({0, 2}))
        if number % 3 == 0:
            scenario = scenario.but(suffix="jsonl", bad=calm.bad | bad, flaky=flaky)
        outcome = sim.run(scenario, number)
        assert outcome.ok, outcome.transcript()


@pytest.mark.parametrize("name", ["everything", "multipart uploads"])
def test_a_run_is_decided_by_its_seed_alone(name: str) -> None:
    first, second = play(name, 5), play(name, 5)
    assert first.transcript() == second.transcript()
    assert first.transcript() != play(name, 6).transcript()


def test_every_scenario_shows_the_trouble_it_is_named_for() -> None:
    """A search that meets no trouble proves nothing."""
    signs = {
        "worker crashes": "w1       crashes",
        "zombie workers": "goes on",
        "drain": "is asked to drain",
        "master failover": "m1       crashes",
        "two masters": "fenced",
        "two stores on one output": "fenced",
        "store restarts": "begins a new reign",
        "store with an old file": "comes back with an old file",
        "store wiped": "is wiped",
        "power cuts": "power    is cut",
        "second copies": "Cut",
        "poison": "died of a row",
        "unsized shards": "Sized",
        "batches over leases": "alone=True",
        "sizes found late": "Sized",
        "full disks": "disk_full",
        "patience with a full disk ends": "gives the job up: the output place refuses",
        "storage that fails": "gives the job up: the input cannot be reached (tried 4 times)",
        "broken node": "No module named",
        "hosts that give up": "while nobody got on",
        "wrong code": "gives the job up: the code fails",
        "other columns": "another output schema",
        "input that changes": "gives the job up: the input changed",
        "cancelled": "gives the job up: somebody",
        "too many bad rows": "rows are in quarantine, more than",
        "retry rounds": "retry round 2",
    }
    for name, sign in signs.items():
        assert any(sign in play(name, seed).transcript() for seed in range(40)), f"{name}: nobody {sign}"
