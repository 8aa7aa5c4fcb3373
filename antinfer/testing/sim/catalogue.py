"""The scenarios of the random search: each one kind of trouble, or several at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from antinfer.core.budgets import BadRowBudget, RangeBudget
from antinfer.core.config import DeadlinePolicy
from antinfer.core.hindrance import HindrancePolicy
from antinfer.core.interval import IntervalPolicy
from antinfer.testing.sim.scenario import ENGINE, SESSION, Scenario, Weather

_PATIENT: Final = replace(ENGINE, ranges=replace(ENGINE.ranges, split_after=50, quarantine_after=100, losses_after=100))
"""For scenarios in which good rows see many workers die."""
_SHORT_SPELLS: Final = HindrancePolicy(first_ms=20, longest_ms=200, patience_ms=1_000_000)
_ROUGH: Final = Weather(lost=0.01, double=0.03, late=0.05, broken=0.01)

SCENARIOS: Final[dict[str, Scenario]] = {
    each.name: each
    for each in (
        Scenario("happy path", blames_rows=False),
        Scenario("worker crashes", weather=Weather(crash={"worker": 0.004, "host": 0.02}), engine=_PATIENT),
        Scenario("worker crashes, same names", keeps_worker_names=True, weather=Weather(crash={"worker": 0.006}), engine=_PATIENT),
        Scenario("zombie workers", workers=3, weather=Weather(pause={"worker": 0.004, "host": 0.01}), engine=_PATIENT),
        Scenario("drain", workers=3, weather=Weather(drain=0.15, late=0.05), blames_rows=False),
        Scenario("master failover", weather=Weather(crash={"master": 0.008})),
        Scenario("master failover, embedded store", store="embedded", masters=2, weather=Weather(crash={"master": 0.008, "store": 0.1})),
        Scenario("two masters", masters=2, weather=Weather(pause={"master": 0.004}, standby=0.1, crash={"master": 0.002})),
        Scenario("two stores on one output", masters=2, store="separate", weather=Weather(pause={"master": 0.004}, standby=0.1)),
        Scenario(
            "two stores on one output, crashes",
            masters=2,
            store="separate",
            weather=Weather(crash={"master": 0.006}, pause={"master": 0.003}, standby=0.05),
        ),
        Scenario("store restarts", sync="waitaof", weather=Weather(crash={"store": 0.06, "master": 0.003})),
        Scenario("store that promises nothing", sync="publish", weather=Weather(crash={"store": 0.06, "master": 0.003})),
        Scenario("store with an old file", masters=2, weather=Weather(old_file=0.06, standby=0.05, pause={"master": 0.003})),
        Scenario("store wiped", masters=2, weather=Weather(wipe=0.06, standby=0.05, pause={"master": 0.003})),
        Scenario(
            "store wiped, text output", suffix="jsonl", bad=frozenset({(0, 1), (2, 2)}), weather=Weather(wipe=0.06, crash={"master": 0.004})
        ),
        Scenario(
            "multipart uploads",
            output="uploads",
            flight_ms=400,
            masters=2,
            weather=Weather(wipe=0.05, standby=0.05, pause={"master": 0.003, "worker": 0.003}, crash={"master": 0.004}),
            engine=_PATIENT,
        ),
        Scenario("copies", output="copies", flight_ms=400, masters=2, weather=Weather(standby=0.05, crash={"master": 0.006})),
        Scenario("power cuts", store="embedded", weather=Weather(power_cut=0.06), engine=_PATIENT),
        Scenario("unsized shards", unsized=frozenset({0, 2}), prefix=0.8, planned_at_once=False, weather=_ROUGH),
        Scenario(
            "unsized shards, failover",
            unsized=frozenset({0, 1, 2}),
            planned_at_once=False,
            weather=replace(_ROUGH, crash={"master": 0.005, "host": 0.01}, wipe=0.02),
            engine=_PATIENT,
        ),
        Scenario(
            "second copies",
            workers=3,
            rows=(3, 4),
            row_ms=(20, 300),
            engine=replace(_PATIENT, copy_after_ms=120),
            weather=Weather(pause={"host": 0.02, "worker": 0.005}),
        ),
        Scenario(
            "stuck ranges",
            workers=3,
            rows=(3, 4),
            row_ms=(20, 100),
            engine=replace(
                _PATIENT,
                copy_after_ms=None,
                deadlines=DeadlinePolicy(factor=2, shortest_ms=150, first_ms=300, answer_ms=100, looks_ms=20),
            ),
            weather=Weather(pause={"host": 0.03, "worker": 0.005}),
        ),
        Scenario(
            "quarantine",
            bad=frozenset({(0, 0), (1, 1), (2, 2), (2, 3)}),
            flaky=frozenset({(0, 2), (2, 0)}),
            weather=Weather(crash={"master": 0.006}, wipe=0.04),
            blames_rows=False,
        ),
        Scenario("all rows are bad", rows=(2, 3), bad=frozenset((shard, row) for shard in range(2) for row in range(3)), weather=_ROUGH),
        Scenario("poison", rows=(6, 4), poison=frozenset({(0, 3), (1, 0)}), weather=Weather(broken=0.01), patience_ms=90_000),
        Scenario(
            "batches over leases",
            rows=(6, 2, 5),
            slots=3,
            batch=4,
            poison=frozenset({(0, 3), (2, 0)}),
            engine=replace(ENGINE, task_rows=2, tail_ms=None, ranges=RangeBudget(quarantine_after=2, losses_after=100)),
            weather=Weather(crash={"worker": 0.002}, broken=0.01),
            blames_rows=False,
            patience_ms=90_000,
        ),
        Scenario("sizes found late", unsized=frozenset({0, 2}), sizes_late=True, slots=3, batch=3, prefix=0.3, weather=_ROUGH),
        Scenario(
            "full disks",
            batch=2,
            workers=3,
            weather=Weather(full=0.15, forbidden=0.05, unread=0.02, crash={"master": 0.003}),
            engine=replace(_PATIENT, hindrance=_SHORT_SPELLS),
        ),
        Scenario(
            "patience with a full disk ends",
            rows=(6, 6),
            weather=Weather(full=0.3, outage_ms=(400, 1_500)),
            engine=replace(_PATIENT, hindrance=replace(_SHORT_SPELLS, patience_ms=300)),
        ),
        Scenario(
            "storage that fails", workers=3, batch=2, weather=Weather(unread=0.3, outage=0.1), engine=replace(_PATIENT, storage_attempts=4)
        ),
        Scenario(
            "broken node",
            rows=(6, 4),
            workers=2,
            broken=frozenset({2}),
            row_ms=(50, 300),
            restart_ms=300,
            weather=Weather(crash={"worker": 0.004}, drain=0.1),
            engine=_PATIENT,
        ),
        Scenario(
            "hosts that give up",
            batch=2,
            weather=Weather(breakdown=0.1, no_start=0.6, wrong_start=0.05),
            session=replace(SESSION, host=replace(SESSION.host, deaths=3)),
            engine=replace(_PATIENT, worker_failures=3),
        ),
        Scenario(
            "wrong code", fatal=frozenset({(1, 1)}), odd=frozenset({(2, 4)}), weather=Weather(crash={"master": 0.004}, late=0.05), retries=1
        ),
        Scenario("other columns", odd=frozenset({(0, 2), (2, 0)}), batch=2, weather=Weather(crash={"worker": 0.002}), engine=_PATIENT),
        Scenario(
            "input that changes",
            rows=(6, 4),
            unsized=frozenset({0}),
            changing=frozenset({0}),
            weather=Weather(crash={"host": 0.05}, late=0.05),
            engine=_PATIENT,
        ),
        Scenario("cancelled", weather=Weather(cancel=0.2, late=0.1, crash={"master": 0.004})),
        Scenario(
            "too many bad rows",
            bad=frozenset({(0, 0), (1, 1), (2, 2), (2, 3)}),
            engine=replace(ENGINE, bad_rows=BadRowBudget(max_fraction=0.2, probation_rows=4)),
            weather=Weather(crash={"master": 0.004}),
            blames_rows=False,
        ),
        Scenario(
            "retry rounds",
            masters=2,
            rows=(5, 3),
            unsized=frozenset({1}),
            bad=frozenset({(0, 0), (0, 1), (0, 4), (1, 1)}),
            poison=frozenset({(1, 2)}),
            retries=2,
            weather=Weather(crash={"master": 0.006, "worker": 0.002}, pause={"master": 0.003}, wipe=0.03, standby=0.05, late=0.05),
            engine=replace(ENGINE, ranges=replace(ENGINE.ranges, losses_after=100)),
            patience_ms=90_000,
            is_logged=True,
        ),
        Scenario(
            "commit interval",
            rows=(8, 8),
            batch=2,
            prefix=0.0,
            weather=Weather(crash={"worker": 0.004}),
            engine=replace(
                _PATIENT, interval=IntervalPolicy(cost_ms=5, expected_ms=500, shortest_ms=10, longest_ms=3_000, memory_ms=1_000)
            ),
            is_logged=True,
        ),
        Scenario("bad network", workers=3, weather=replace(_ROUGH, lost=0.05, double=0.1, late=0.2, broken=0.05)),
        Scenario(
            "everything",
            masters=2,
            workers=3,
            unsized=frozenset({1}),
            bad=frozenset({(0, 1)}),
            weather=replace(
                _ROUGH,
                crash={"master": 0.003, "worker": 0.002, "host": 0.005, "store": 0.02},
                pause={"master": 0.002, "worker": 0.002, "host": 0.004},
                drain=0.03,
                wipe=0.02,
                old_file=0.02,
                standby=0.04,
            ),
            engine=replace(_PATIENT, copy_after_ms=200),
        ),
    )
}
"""By name."""
