"""Contestants side by side: run by turns, so that what else the machine does hits all of them alike."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.report import Result


def by_turns(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run every contestant once a round, in an order that turns round every time; return each one's figures, round by round."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(rounds):
        names = list(contestants)[:: 1 if round_number % 2 == 0 else -1]
        for name in names:
            figures[name].append(contestants[name]())
            print(f"  {name}: {figures[name][-1]:.4g}", file=sys.stderr, flush=True)
    return figures


def times_faster(seconds: Mapping[str, Sequence[float]], ours: str, theirs: str) -> tuple[float, ...]:
    """Return, per round, how many times the speed of `theirs` `ours` has, given the seconds that each took."""
    return tuple(their / our for our, their in zip(seconds[ours], seconds[theirs], strict=True))


def usual_environment(**more: str) -> dict[str, str]:
    """Return our environment with `more`, and with compiled modules kept: without them most of a start is compilation."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | more


def run_timed(command: Sequence[str], folder: Path) -> float:
    """Run a command in `folder` and return its seconds. Raises RuntimeError with its last words when it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=usual_environment(), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return seconds


def faster(benchmark: str, what: str, seconds: Mapping[str, Sequence[float]], pair: tuple[str, str], target: float | None) -> Result:
    """Return the result "`pair[0]` has at least `target` times the speed of `pair[1]`"."""
    ours, theirs = pair
    return Result(
        benchmark, what, times_faster(seconds, ours, theirs), "x", target, details={"seconds": {name: list(seconds[name]) for name in pair}}
    )
