"""``run``, ``resume``, ``preview``."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from antinfer.cli import render
from antinfer.errors import UsageError
from antinfer.launchers.local.headstart import HeadStart
from antinfer.launchers.local.supervisor import LocalSupervisor
from antinfer.launchers.supervisor import RunOptions, Supervisor
from antinfer.telemetry.progress import ProgressDisplay, make_progress

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a job, whichever job it is."""

    workers: int | None = 1
    store: str = ""
    as_json: bool = False
    force: bool = False
    retry: int = 0
    """Retry round to do, instead of the job itself."""
    verbose: bool = False
    early: HeadStart | None = None
    """Processes that were started for it already."""
    ray: RayChoice | None = None
    """Where on Ray its workers run; None: on this machine."""


@dataclass(frozen=True, slots=True)
class RayChoice:
    """What the command line says about Ray."""

    address: str
    listen: str
    actors: Path | None
    """File with what is laid over what is asked for."""


def ray_choice(launcher: str, address: str, listen: str, actors: Path | None) -> RayChoice | None:
    """Return what is said about Ray; None: the job does not run there. Raises `UsageError` when it is said for nothing."""
    if launcher == "ray":
        return RayChoice(address, listen, actors)
    extra = next((name for name, given in (("--address", address), ("--listen", listen), ("--actors", actors)) if given), None)
    if extra is not None:
        raise UsageError(f"{extra} needs --launcher ray: on this machine there is no cluster to say it of")
    return None


def run(job: Path, overrides: Sequence[str], output: str | None, limit: int | None, options: Options) -> None:
    if limit is not None:
        overrides = [*overrides, f"limit={limit}"]

    def load() -> JobSpec:
        from antinfer.spec.load import load_job

        return load_job(job, overrides, output)

    run_loaded(load, str(job), options)


def resume(output: str, options: Options) -> None:
    run_loaded(lambda: load_marked(output), output, options)


def load_marked(output: str, overrides: Sequence[str] = ()) -> JobSpec:
    """Return the job that an output says it is of, with `overrides`. Raises `UsageError` when it says nothing."""
    from antinfer.master.jobfile import JobMark
    from antinfer.spec.canonical import from_document
    from antinfer.spec.load import absolute_path, build_job
    from antinfer.spec.yamlfile import Lines
    from antinfer.storage.place import open_place

    mark = JobMark.read(open_place(absolute_path(output, str(Path.cwd()))))
    if mark is None:
        raise UsageError(f"{output} holds no job", hint=f"start one with `antinfer run JOB --output {output}`")
    if not overrides:
        return from_document(json.dumps(mark.spec))
    document = dict(mark.spec)
    return build_job(document, Lines(output, {}), document.pop("base_dir"), overrides)


def preview(job: Path, overrides: Sequence[str], *, rows: int, as_json: bool) -> None:
    import pyarrow.dataset as ds

    folder = tempfile.mkdtemp(prefix="antinfer-preview-")
    try:
        from antinfer.spec.load import load_job
        from antinfer.storage.jobs import read_report

        spec = load_job(job, [*overrides, f"limit={rows}", "sink.type=parquet", "sink.options={}"], folder)
        said: list[str] = []
        with _swallowing(said) as shown:
            _supervise(lambda: spec, Options(force=True), shown)
        found = ds.dataset(folder, format="parquet").head(rows).to_pylist() if any(Path(folder).glob("part-*")) else []
        quarantined = read_report(spec).get("rows_quarantined", 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        render.as_json({"rows": found, "quarantined": quarantined})
        return
    for row in found:
        typer.echo(", ".join(f"{name}={_short(value)}" for name, value in row.items()))
    if quarantined:
        typer.echo(f"{quarantined} rows went to quarantine", err=True)


def run_loaded(load: Callable[[], JobSpec], name: str, options: Options) -> None:
    """Run what `load` returns, and print the report; messages call it `name`."""

    def load_with_store() -> JobSpec:
        from antinfer.spec.load import with_store

        spec = load()
        return with_store(spec, options.store) if options.store else spec

    started = time.monotonic()
    with make_progress(name, plain=options.as_json) as shown:
        spec = _supervise(load_with_store, options, shown)
    seconds = time.monotonic() - started

    from antinfer.cli import keptprofiles
    from antinfer.storage.jobs import read_report

    report = read_report(spec)
    compared = keptprofiles.compared(spec, report)
    if options.as_json:
        beside = {} if compared is None else {"profile": compared.to_json()}
        render.as_json({"output": spec.sink.path, "seconds": seconds, **report, **beside})
        return
    _print_report(spec, report, seconds)
    if compared is not None:
        typer.echo(f"  by its profile: {compared.headline()}")


def _supervise(load: Callable[[], JobSpec], options: Options, shown: ProgressDisplay) -> JobSpec:
    how = RunOptions(options.workers, options.force, options.retry, verbose=options.verbose)
    if options.ray is not None:
        return _on_ray(how, options.ray, shown).run(load)
    return LocalSupervisor(how, on_line=shown.line, on_status=shown.status, early=options.early).run(load)


def _on_ray(how: RunOptions, choice: RayChoice, shown: ProgressDisplay) -> Supervisor:
    from antinfer.cli.overlays import read_overlays
    from antinfer.launchers.ray.settings import TEMPLATES
    from antinfer.launchers.ray.supervisor import RayOptions, RaySupervisor

    actors = read_overlays(choice.actors, TEMPLATES, "options of Ray actors (num_cpus, resources, ...)")
    ray = RayOptions(choice.address, choice.listen, actors)
    return RaySupervisor(how, ray, on_line=shown.line, on_status=shown.status)


def _print_report(spec: JobSpec, report: dict[str, Any], seconds: float) -> None:
    from antinfer.telemetry import figures

    rows = report["rows_in"]
    fan = figures.fan(report.get("rows_fanned_out", 0))
    typer.echo(f"{spec.name}: {rows:,} rows in{fan} = {report['rows_out']:,} out + {report['rows_quarantined']:,} quarantined", nl=False)
    typer.echo(f", {report['parts']:,} parts, {figures.duration(seconds)}")
    for name, result in report.get("accumulators", {}).items():
        figures_of = (f"{key} {_short(value)}" for key, value in result.items() if key != "type" and value != 0)
        typer.echo(f"  {name}: {', '.join(figures_of)}")
    if causes := figures.causes(figures.counted(report.get("causes", {}))):
        typer.echo(f"  causes: {causes}")
    typer.echo(f"  output: {spec.sink.path}   (check it: antinfer verify {spec.sink.path})")
    if report["rows_quarantined"]:
        typer.echo(f"  quarantined rows with their errors: antinfer quarantine ls {spec.sink.path}", file=sys.stderr)


def _short(value: object, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


class _swallowing:
    """Keep what the processes say to ourselves, unless it goes wrong."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def __enter__(self) -> _swallowing:
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is not None:
            for line in self._said:
                typer.echo(line, err=True)

    def line(self, source: str, text: str) -> None:
        self._said.append(f"[{source}] {text}")

    def status(self, status: object) -> None:
        return None
