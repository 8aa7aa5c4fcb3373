"""Scenarios drawn from a seed: other faults, other jobs and another cast each time, so that troubles meet that nobody thought to combine.

Most faults are left out of most scenarios: what happens all the time hides what happens rarely.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Final

from antinfer.core.budgets import BadRowBudget, RangeBudget
from antinfer.core.config import DeadlinePolicy, EngineConfig
from antinfer.core.hindrance import HindrancePolicy
from antinfer.core.interval import IntervalPolicy
from antinfer.testing.sim.scenario import ENGINE, SESSION, Scenario, Weather

_PATIENT: Final = RangeBudget(split_after=50, quarantine_after=100, losses_after=100)
"""Where good rows see many workers die."""
_STEPS: Final = {"master": 0.008, "worker": 0.004, "host": 0.02, "store": 0.06}
_PAUSES: Final = {"master": 0.004, "worker": 0.004, "host": 0.01}
_SHARE: Final = 0.3
"""Probability of each kind of fault to be in a scenario at all."""
_LOGGED: Final = 25
"""Every so manieth run is written down as an event log and lived again."""


def draw(seed: int) -> Scenario:
    """Return the scenario of this seed: a job, a cast, an output place, a store, weather and policy."""
    rng = random.Random(f"scenario {seed}")
    masters = rng.choice((1, 1, 2, 2, 3))
    poison = rng.random() < 0.1
    job = _job(rng, poison=poison)
    store, sync = _store(rng)
    weather = _weather(rng, store, masters)
    scenario = Scenario(
        f"drawn from {seed}",
        **job,
        workers=rng.randint(1, 4),
        slots=rng.randint(1, 3),
        masters=masters,
        output=rng.choice(("posix", "posix", "uploads")),
        flight_ms=rng.choice((30, 400)),
        store=store,
        sync=sync,
        engine=_engine(rng, poison=poison),
        session=_session(rng),
        weather=weather,
        patience_ms=90_000 if poison else 60_000,
        keeps_worker_names=rng.random() < 0.2,
        is_logged=seed % _LOGGED == 0,
    )
    return _widened(random.Random(f"wider scenario {seed}"), scenario)


def _widened(rng: random.Random, scenario: Scenario) -> Scenario:
    """Return a scenario with what a later version of this search added: drawn by itself, so that what it meets is as it was before."""
    weather = _more_weather(rng, scenario.weather)
    engine = _more_policy(rng, scenario.engine)
    rows = [(shard, offset) for shard, count in enumerate(scenario.rows) for offset in range(count)]

    def one(chance: float) -> frozenset[tuple[int, int]]:
        return frozenset({rng.choice(rows)}) if rows and rng.random() < chance else frozenset()

    poison = scenario.poison | one(0.1)
    if poison and not scenario.poison:
        engine = replace(engine, ranges=rng.choice((ENGINE.ranges, RangeBudget())))
    has_failing = bool(poison or scenario.bad)
    wider = scenario.but(
        weather=weather,
        engine=engine,
        poison=poison,
        batch=rng.choice((1, 1, 2, 3, 8)),
        sizes_late=bool(scenario.unsized) and rng.random() < 0.6,
        broken=frozenset({rng.randint(1, scenario.workers)}) if scenario.workers > 1 and rng.random() < 0.1 else frozenset(),
        session=replace(scenario.session, host=replace(scenario.session.host, deaths=rng.choice((3, 6)))),
        restart_ms=rng.choice((60, 60, 600)),
        fatal=one(0.03),
        odd=one(0.03),
        retries=rng.choice((1, 1, 2)) if has_failing and rng.random() < 0.2 else 0,
        patience_ms=90_000 if poison else scenario.patience_ms,
    )
    return _without_wrong_blame(wider) if poison and rng.random() < 0.5 else wider


def _without_wrong_blame(scenario: Scenario) -> Scenario:
    """Return a scenario in which nothing but rows that kill can kill a stage host: so no other row may end in quarantine.

    A good row is struck for its neighbour once before it is computed alone, and perhaps once more for rows that were given back while they
    were computed: too little to give it up. Workers may be lost at any time, which is why nothing is given up for that here.
    """
    weather, engine = scenario.weather, scenario.engine
    quiet = replace(
        weather,
        crash={kind: chance for kind, chance in weather.crash.items() if kind != "host"},
        pause={kind: chance for kind, chance in weather.pause.items() if kind != "host"},
        breakdown=0.0,
    )
    ranges = RangeBudget(losses_after=1_000)
    return scenario.but(weather=quiet, engine=replace(engine, ranges=ranges, deadlines=ENGINE.deadlines), blames_rows=False)


def _more_weather(rng: random.Random, weather: Weather) -> Weather:
    return replace(
        weather,
        full=_some(rng, 0.06),
        forbidden=_some(rng, 0.03),
        unread=_some(rng, 0.05),
        no_start=_some(rng, 0.3),
        wrong_start=_some(rng, 0.1),
        breakdown=_some(rng, 0.02),
        cancel=_some(rng, 0.02) if rng.random() < 0.2 else 0.0,
    )


def _more_policy(rng: random.Random, engine: EngineConfig) -> EngineConfig:
    deadlines = DeadlinePolicy(
        factor=2, shortest_ms=rng.choice((80, 200, 600)), first_ms=rng.choice((100, 300, 1_000)), answer_ms=rng.choice((20, 100, 400))
    )
    interval = IntervalPolicy(cost_ms=rng.choice((5, 50)), expected_ms=2_000, shortest_ms=10, longest_ms=3_000, memory_ms=3_000)
    wider = replace(
        engine,
        tail_ms=rng.choice((None, 5, 60, 60, 200)),
        elsewhere_ms=rng.choice((20, 100, 1_000)),
        deadlines=replace(deadlines, looks_ms=20) if rng.random() < 0.4 else engine.deadlines,
        interval=interval if rng.random() < 0.3 else None,
        hindrance=HindrancePolicy(first_ms=rng.choice((20, 100)), longest_ms=300, patience_ms=rng.choice((300, 1_000, 1_000_000))),
    )
    if rng.random() < 0.5:
        return wider
    return replace(
        wider,
        worker_failures=rng.randint(2, 5),
        storage_attempts=rng.randint(3, 20),
        bad_rows=BadRowBudget(
            max_fraction=rng.choice((0.0, 0.3, 1.0, 1.0)), max_rows=rng.choice((None, None, 2)), probation_rows=rng.choice((1, 5, 1_000))
        ),
    )


def _some(rng: random.Random, most: float) -> float:
    """Return a probability up to `most`, for most scenarios 0."""
    return most * rng.uniform(0.2, 1.5) if rng.random() < _SHARE else 0.0


def _job(rng: random.Random, *, poison: bool) -> dict[str, Any]:
    shards = rng.randint(1, 5)
    rows = tuple(rng.choice((0, 1, 2, 3, 4, 6)) for _ in range(shards))
    every = [(shard, offset) for shard, count in enumerate(rows) for offset in range(count)]

    def pick(share: float) -> frozenset[tuple[int, int]]:
        return frozenset(row for row in every if rng.random() < share)

    with_bad = rng.random() < 0.4
    return {
        "rows": rows,
        "unsized": frozenset(shard for shard in range(shards) if rng.random() < 0.5) if rng.random() < 0.4 else frozenset(),
        "planned_at_once": rng.random() < 0.6,
        "suffix": rng.choice(("parquet", "parquet", "jsonl")),
        "row_ms": rng.choice(((5, 60), (1, 5), (50, 300), (5, 400))),
        "prefix": rng.choice((0.0, 0.2, 0.5, 1.0)),
        "bad": pick(rng.choice((0.1, 0.5, 1.0))) if with_bad else frozenset(),
        "flaky": pick(0.2) if with_bad else frozenset(),
        "poison": frozenset(rng.sample(every, min(len(every), rng.randint(1, 2)))) if poison else frozenset(),
        "fan_out": rng.choice((1, 1, 4)),
    }


def _store(rng: random.Random) -> tuple[Any, Any]:
    store = rng.choice(("shared", "shared", "shared", "embedded", "separate"))
    return store, rng.choice(("always", "waitaof", "publish")) if store == "shared" else "always"


def _weather(rng: random.Random, store: str, masters: int) -> Weather:
    return Weather(
        crash={kind: chance for kind, most in _STEPS.items() if (chance := _some(rng, most))},
        pause={kind: chance for kind, most in _PAUSES.items() if (chance := _some(rng, most))},
        pause_ms=rng.choice(((50, 2_500), (10, 100), (600, 1_500))),
        slow=_some(rng, 0.05),
        lost=_some(rng, 0.03),
        double=_some(rng, 0.05),
        late=_some(rng, 0.1),
        late_ms=rng.choice((50, 400, 1_000)),
        broken=_some(rng, 0.03),
        drain=_some(rng, 0.05),
        partition=_some(rng, 0.05),
        silence=_some(rng, 0.05),
        outage=_some(rng, 0.03),
        # A server of the master's own, on the file that it has locked, can die but not forget.
        old_file=_some(rng, 0.04) if store == "shared" else 0.0,
        wipe=_some(rng, 0.04) if store == "shared" else 0.0,
        power_cut=_some(rng, 0.04) if store == "embedded" else 0.0,
        standby=rng.uniform(0.02, 0.1) if masters > 1 else 0.0,
    )


def _engine(rng: random.Random, *, poison: bool) -> Any:
    return replace(
        ENGINE,
        ranges=ENGINE.ranges if poison or rng.random() < 0.2 else _PATIENT,
        task_rows=rng.choice((None, None, 1, 2)),
        copy_after_ms=rng.choice((None, 120, 500)),
        collect_ms=rng.choice((40, 300, 1_000)),
        flush_records=rng.choice((1, 3, 1_000)),
        flush_ms=rng.choice((20, 120, 1_000)),
        ttl_ms=rng.choice((300, 600, 1_500)),
        grace_ms=rng.choice((20, 150)),
        worker_failures=1_000,
        storage_attempts=1_000,
    )


def _session(rng: random.Random) -> Any:
    return replace(SESSION, repeat_ms=rng.choice((80, 300, 1_000)), grace_ms=rng.choice((50, 600)))
