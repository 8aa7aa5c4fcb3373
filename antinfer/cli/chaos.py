"""``chaos``: run a job under a plan of faults, and say what it lost."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import typer

from antinfer.cli import render
from antinfer.cli.places import ClusterOptions
from antinfer.cli.submitting import options_of
from antinfer.errors import InfraError, Interrupted, UsageError, VerifyFault
from antinfer.spec.load import load_job

if TYPE_CHECKING:
    from antinfer.testing.chaos import ChaosReport, Kubernetes


@dataclass(frozen=True, slots=True)
class Options:
    """How a plan is played."""

    seed: int
    output: Path | None
    """Folder of the report."""
    workers: int | None
    seconds: float | None
    keep: bool
    as_json: bool


def cluster_of(
    launcher: Literal["local", "kubernetes"], image: str, where: ClusterOptions, pods: Path | None, **made: Any
) -> Kubernetes | None:
    """Return the cluster that is meant, None for this machine. Raises `UsageError` when what is said of pods does not fit."""
    if launcher == "local":
        if image or pods is not None or where != ClusterOptions() or made["egress"] or made["certificates"] is not None:
            raise UsageError("an image, pods and a cluster are for --launcher kubernetes")
        return None
    from antinfer.testing.chaos import Kubernetes

    options = options_of(image, where.namespace or "default", pods, **made)
    return Kubernetes(options, where.context, where.kubeconfig)


def chaos(job: Path, plan: str, overrides: Sequence[str], options: Options, cluster: Kubernetes | None) -> None:
    from antinfer.testing.chaos import load_plan, run

    faults = load_plan(plan)
    seconds = faults.seconds if options.seconds is None else options.seconds
    faults = replace(faults, workers=options.workers or faults.workers, seconds=seconds)
    spec = load_job(job, overrides)
    folder = options.output or Path(f"chaos-{spec.name}-{faults.name}-{options.seed}")
    say = partial(typer.echo, err=True)
    with _interruptible():
        report = run(spec, faults, options.seed, cluster=cluster, folder=folder, keep_outputs=options.keep, say=say)
    if options.as_json:
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
            ("recomputed", _recomputed(report)),
            (
                "time",
                f"{report.disturbed.seconds:.1f} s against {report.undisturbed.seconds:.1f} s undisturbed: goodput {report.goodput:.2f}",
            ),
            ("written to", report.folder),
        ]
    )
    for fault in report.faults:
        got_over = "not before the job was over" if fault.recovered_s is None else f"{fault.recovered_s:.2f} s"
        what = f"{fault.kind} {fault.target}: {fault.victim}"
        typer.echo(f"  {fault.at_s:6.1f} s  {what:<36}  recovered: {got_over:<8}  ({fault.evidence()})")
    for kind, each in report.recoveries().items():
        times = "" if each.median_s is None else f"recovered after {each.median_s:.2f} s (median), {each.longest_s:.2f} s (longest)"
        typer.echo(f"  {each.faults:>3} x {kind:<16} {times}")


def _recomputed(report: ChaosReport) -> str:
    if report.rows_recomputed is None or report.wasted is None:
        return "unknown: the pods share no folder with this machine in which rows can be counted"
    return f"{report.rows_recomputed:,} rows, {report.wasted:.1%} of the work"


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
