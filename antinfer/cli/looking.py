"""``plan``, ``status``, ``verify``: look, do not touch."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from antinfer.cli import keptprofiles, render
from antinfer.cli.places import Where
from antinfer.errors import VerifyFault
from antinfer.spec.load import absolute_path, load_job
from antinfer.storage.limits import MOST_SHARDS, too_many_shards
from antinfer.telemetry import figures

if TYPE_CHECKING:
    from antinfer.rpc.values import Status
    from antinfer.spec.schema import JobSpec, StageSpec
    from antinfer.storage.audit_report import AuditReport
    from antinfer.storage.forecast import Forecast
    from antinfer.storage.place import OutputPlace


def plan(job: Path, overrides: Sequence[str], output: str | None, *, force: bool, as_json: bool) -> None:
    from antinfer.storage.forecast import forecast

    spec = load_job(job, overrides, output)
    found = forecast(spec)
    rate = keptprofiles.expected_rate(spec)
    seconds = None if rate is None or found.rows is None else found.rows / rate
    if as_json:
        render.as_json({**found.to_json(), "seconds": seconds})
    else:
        _print_plan(spec, found, rate, seconds)
    if found.shards > MOST_SHARDS and not force:
        raise too_many_shards(f"{found.shards:,}")


def _print_plan(spec: JobSpec, found: Forecast, rate: float | None, seconds: float | None) -> None:
    """`rate`: input rows a second that one worker here is expected to do; `seconds` that it then takes for all."""
    rows = f"{found.rows:,}" if found.rows is not None else f"unknown until read ({found.rows_known:,} known)"
    render.facts(
        [
            ("files", f"{found.files:,} ({figures.size(found.size_bytes)})"),
            ("rows", rows),
            ("shards", f"{found.shards:,}"),
            ("parts", f"about {found.parts:,}"),
            ("estimate", _estimate(rate, seconds)),
            ("columns", ", ".join(f"{name}: {kind}" for name, kind in found.columns)),
            ("output", spec.sink.path),
        ]
    )
    for stage in _sent_everything(spec.pipeline):
        carried = "all columns" if spec.carryover == "*" else ", ".join(spec.carryover)
        if carried:
            typer.echo(
                f"note: {stage.kind} {stage.name!r} has no `columns`, so its process is sent what is carried over as well ({carried})"
            )


def _estimate(rate: float | None, seconds: float | None) -> str:
    if rate is None:
        return "unknown: `antinfer profile` measures what a worker does"
    at = f"{figures.count(rate)} rows/s on one worker like this machine, as profiled"
    return at if seconds is None else f"{figures.duration(seconds)} at {at}"


def _sent_everything(stages: Sequence[StageSpec]) -> Iterator[StageSpec]:
    """Yield the stages whose processes get the columns of the source as they are."""
    for stage in stages[:1]:
        for branch in stage.parallel.values():
            yield from _sent_everything(branch)
        if stage.columns is None and (stage.kind == "predict" or stage.workers_as == "processes"):
            yield stage


def status(where: Where, *, watch: bool, as_json: bool) -> None:
    over = _ended(where) if where.is_submitted else None
    if over is None and not where.is_submitted and (place := where.place) is not None:
        over = _finished(place)
    if over is not None:
        _show(over, as_json)
        return
    with where.reach() as admin:
        while True:
            found = admin.status()
            _show(found, as_json)
            if not watch or found.phase in ("done", "failed"):
                return
            time.sleep(1.0)


def _ended(where: Where) -> Status | None:
    from antinfer.cli.admin import ended

    jobs = where.cluster.jobs()
    return ended(jobs, jobs.find(where.text))


def verify(output: str, *, quick: bool, as_json: bool) -> None:
    from antinfer.storage.audit import audit
    from antinfer.storage.place import open_place

    report = audit(open_place(absolute_path(output, str(Path.cwd()))), deep=not quick)
    if as_json:
        render.as_json(report.to_json())
    else:
        _print_audit(output, report)
    if report.faults:
        raise VerifyFault(f"{output} has {len(report.faults)} fault(s)")
    if not report.finished:
        raise VerifyFault(f"{output} is not finished: {_unfinished(report)}", hint=f"go on with `antinfer {_going_on(report)} {output}`")


def _finished(place: OutputPlace) -> Status | None:
    """The last status of a job that is complete, whose master is gone; None for any other."""
    from antinfer.rpc.values import Status
    from antinfer.storage import layout, rounds

    report = place.read(layout.REPORT)
    if report is None or not rounds.is_finished(place):
        return None
    told = json.loads(report)
    rows = told["rows_in"]
    return Status(
        job=told["job"],
        output=place.uri,
        epoch=told["epoch"],
        phase="done",
        rows_total=rows,
        rows_known=rows,
        rows_committed=rows,
        rows_quarantined=told["rows_quarantined"],
        plan_complete=True,
        counters={"commits": told["commits"], "rows_out": told["rows_out"]},
    )


def _going_on(report: AuditReport) -> str:
    return "quarantine retry" if report.retrying else "resume"


def _show(found: Status, as_json: bool) -> None:
    if as_json:
        render.as_json(found.to_json())
    else:
        _print_status(found)


def _print_status(status: Status) -> None:
    typer.echo(f"{status.job}  {status.phase}{': ' + status.reason if status.reason else ''}")
    typer.echo(f"  {figures.headline(status)}")
    if counters := figures.counters(status):
        typer.echo(f"  {counters}")
    for worker in status.workers:
        typer.echo(f"  {worker.worker:<24} {worker.state:<9} {worker.leases:>3} leases  {figures.count(worker.rows_committed):>10} rows")
    stages = figures.stages(status)
    slowest = figures.bottleneck(stages)
    for stage in stages:
        typer.echo(
            f"  {stage.name:<24} {stage.busy:>4.0%} busy  {stage.starved:>4.0%} starved  {stage.blocked:>4.0%} blocked"
            f"  {figures.count(stage.rows_per_second):>10} rows/s  {stage.copies}, batches of {stage.batch_rows:,}"
            + ("  <- bottleneck" if stage.name == slowest else "")
        )


def _print_audit(output: str, report: AuditReport) -> None:
    for fault in report.faults:
        typer.echo(f"FAULT {fault.kind.value}: {fault.name}: {fault.explanation}", err=True)
    if report.leftovers:
        typer.echo(f"note: {len(report.leftovers)} staged object(s) of workers that woke up late are left; they can be deleted", err=True)
    totals = report.totals
    fan = figures.fan(totals.rows_fanned_out)
    typer.echo(f"rows in {totals.rows_in:,}{fan} = rows out {totals.rows_out:,} + quarantined {totals.rows_quarantined:,}")
    if report.ok and report.finished:
        typer.echo(f"{output}: complete and intact" + ("" if report.deep else " (by its records; parts not opened)"))
    sys.stdout.flush()


def _unfinished(report: AuditReport) -> str:
    if report.retrying:
        return f"retry {report.retrying} of its quarantined rows is under way; {report.totals.rows_quarantined:,} are in quarantine"
    planned = report.totals.rows_planned
    if planned is None:
        return f"{report.totals.rows_in:,} rows are committed, and the plan is not complete or not sized yet"
    return f"{report.totals.rows_in:,} of {planned:,} rows are committed"
