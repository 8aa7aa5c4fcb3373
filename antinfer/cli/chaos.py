"""``chaos``: run a job under a plan of faults, and say what it lost."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from antinfer.cli import render
from antinfer.errors import InfraError, Interrupted, VerifyFault
from antinfer.spec.load import load_job

if TYPE_CHECKING:
    from antinfer.testing.chaos import ChaosReport


def chaos(
    job: Path,
    plan: str,
    seed: int,
    overrides: Sequence[str],
    *,
    output: Path | None,
    workers: int | None,
    seconds: float | None,
    keep: bool,
    as_json: bool,
) -> None:
    from antinfer.testing.chaos import load_plan, run

    faults = load_plan(plan)
    faults = replace(faults, workers=workers or faults.workers, seconds=faults.seconds if seconds is None else seconds)
    spec = load_job(job, overrides)
    folder = output or Path(f"chaos-{spec.name}-{faults.name}-{seed}")
    with _interruptible():
        report = run(spec, faults, seed, folder=folder, keep_outputs=keep, say=lambda line: typer.echo(line, err=True))
    if as_json:
        render.as_json(report.to_json())
    else:
        _show(report)
    sys.stdout.flush()
    if report.verdict == "broken":
        raise VerifyFault(f"{spec.name} did not come through plan {faults.name} whole: {len(report.problems)} problem(s)")
    if report.verdict == "unproven":
        raise InfraError(
            f"only {len(report.faults)} faults met the job, the plan wants {faults.at_least}: nothing is proven",
            hint="Let it run longer: --seconds.",
        )


def _show(report: ChaosReport) -> None:
    for problem in report.problems:
        typer.echo(f"PROBLEM {problem}", err=True)
    found = report.comparison
    given_up = f", {found.given_up:,} given up because a fault poisoned them" if found.given_up else ""
    render.facts(
        [
            ("verdict", f"{report.verdict}: {found.lost:,} rows lost, {found.doubled:,} doubled of {report.input_rows:,}{given_up}"),
            ("values", f"{found.differing:,} results differ" if found.differing else "the same to the last bit"),
            ("accumulators", f"{report.accumulators}, over other rows" if report.counts_other_rows else report.accumulators),
            ("faults", f"{len(report.faults)} met the job, {len(report.disturbed.chronicle.missed)} met nobody"),
            ("recomputed", f"{report.rows_recomputed:,} rows, {report.wasted:.1%} of the work"),
            (
                "time",
                f"{report.disturbed.seconds:.1f} s against {report.undisturbed.seconds:.1f} s undisturbed: goodput {report.goodput:.2f}",
            ),
            ("written to", report.folder),
        ]
    )
    for kind, each in report.recoveries().items():
        times = "" if each.median_s is None else f"recovered after {each.median_s:.2f} s (median), {each.longest_s:.2f} s (longest)"
        typer.echo(f"  {each.faults:>3} x {kind:<16} {times}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM, like Ctrl-C, end everything that was started."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped; the job's own output was not touched") from None
    finally:
        signal.signal(signal.SIGTERM, before)
