"""Scenarios drawn from a seed: other faults, other jobs and another cast each time, so that troubles meet that nobody thought to combine.

Most faults are left out of most scenarios: what happens all the time hides what happens rarely.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Final

from antinfer.core.budgets import RangeBudget
from antinfer.testing.sim.scenario import ENGINE, SESSION, Scenario, Weather

_PATIENT: Final = RangeBudget(split_after=50, quarantine_after=100, losses_after=100)
"""Where good rows see many workers die."""
_STEPS: Final = {"master": 0.008, "worker": 0.004, "host": 0.02, "store": 0.06}
_PAUSES: Final = {"master": 0.004, "worker": 0.004, "host": 0.01}
_SHARE: Final = 0.3
"""Probability of each kind of fault to be in a scenario at all."""


def draw(seed: int) -> Scenario:
    """Return the scenario of this seed: a job, a cast, an output place, a store, weather and policy."""
    rng = random.Random(f"scenario {seed}")
    masters = rng.choice((1, 1, 2, 2, 3))
    poison = rng.random() < 0.1
    job = _job(rng, poison=poison)
    store, sync = _store(rng)
    weather = _weather(rng, store, masters)
    return Scenario(
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
