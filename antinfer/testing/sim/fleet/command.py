"""The commands ``python -m antinfer.testing.sim fleet`` and ``policies``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from antinfer.core.interval import IntervalPolicy
from antinfer.master.garbage import collect_rarely
from antinfer.testing.sim.fleet.conditions import ENGINE, Conditions, Losses, Speeds
from antinfer.testing.sim.fleet.job import Job, run
from antinfer.testing.sim.fleet.policies import HEADER, JOBS, POLICIES, compare
from antinfer.testing.sim.fleet.shrink import shrink

Say = Callable[[str], None]

_SHARD_S: Final = 4.0
"""Time that a worker of usual speed takes for a shard."""


def trouble(workers: int, shards: int, rows: int) -> Conditions:
    """Return a job of this size on which everything happens that can happen to workers, a few thousand times in all."""
    ideal_s = shards * _SHARD_S / workers
    return Conditions(
        workers=workers,
        shards=shards,
        rows=rows,
        speeds=Speeds(rows_per_s=rows / _SHARD_S),
        heavy_share=0.001,
        fan_out=3,
        bad_every=9_973,
        poison=5,
        # No oftener than a session lives: what a dead worker holds comes back when its session ends, under one master or the next.
        losses=Losses(
            preempted_every=max(300, 5 * ideal_s),
            frozen_every=max(3_000, 50 * ideal_s),
            parted_every=max(30, ideal_s / 5),
            parted_share=0.01,
            parted_for=25,
            master_dies_every=max(100, ideal_s / 4),
        ),
        commit_every=None,
        turn_ms=max(10, workers // 100),
        # With thousands of workers heart-beats are rarer: a longer time to live makes room for them.
        engine=replace(ENGINE, interval=IntervalPolicy(), ttl_ms=max(ENGINE.ttl_ms, 3 * workers)),
    )


def fleet(given: list[str], say: Say) -> int:
    """Run one whole job; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m antinfer.testing.sim fleet", description="One whole job with thousands of workers.")
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=1_000, help="rows of each shard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calm", action="store_true", help="nothing happens to anybody")
    parser.add_argument("--json", type=Path, help="write the report to this file")
    chosen = parser.parse_args(given)
    conditions = trouble(chosen.workers, chosen.shards, chosen.rows)
    if chosen.calm:
        conditions = conditions.but(losses=Losses(), heavy_share=0.0, bad_every=0, poison=0)
    collect_rarely()
    report = run(conditions, chosen.seed, lambda job: say(_state(job)))
    say(str(report))
    if not report.ok:
        smaller, again = shrink(conditions, chosen.seed, report)
        say(f"shrunk: {smaller}\n{again}")
    if chosen.json is not None:
        chosen.json.write_text(f"{json.dumps({'conditions': asdict(conditions), **report.to_json()}, indent=1)}\n")
    return 0 if report.ok else 1


def _state(job: Job) -> str:
    engine = job.master.engine
    if engine is None:
        return f"{job.clock.now / 1000:9,.1f} s  no master"
    progress = engine.progress()
    done = progress.rows_done / job.conditions.total_rows
    return f"{job.clock.now / 1000:9,.1f} s  {done:7.2%} of the rows, {progress.sessions:,} workers, {progress.leases:,} leases"


def policies(given: list[str], say: Say) -> int:
    """Compare policies; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m antinfer.testing.sim policies",
        description="Policies compared by makespan (in multiples of the ideal time), rows computed in vain, and commits, over seeds.",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--job", action="append", choices=tuple(JOBS), help="only this job; may be repeated")
    parser.add_argument("--policy", action="append", choices=tuple(POLICIES), help="only this policy; may be repeated")
    parser.add_argument("--json", type=Path, help="write the lines to this file")
    chosen = parser.parse_args(given)
    say(HEADER)
    seeds = range(chosen.first, chosen.first + chosen.seeds)
    lines = compare(chosen.job or JOBS, chosen.policy or POLICIES, seeds, lambda line: say(str(line)))
    if chosen.json is not None:
        chosen.json.write_text(f"{json.dumps([asdict(line) for line in lines], indent=1)}\n")
    return 1 if any(line.problems for line in lines) else 0
