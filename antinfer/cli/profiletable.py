"""The tables of a profile: drawn on a terminal, plain columns everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import typer

from antinfer.telemetry import figures
from antinfer.worker.profiling.comparison import Comparison
from antinfer.worker.profiling.model import CORES, Forecast, Measurement, Profile, StageProfile, scaling

_MICRO = 1e6
_MUCH = 0.1
_TEXTS = ("stage", "runs as")
"""Columns that are no figures."""


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Show on standard error what is being measured: in one line that changes on a terminal, else a line each."""
    if not sys.stderr.isatty():
        yield lambda text: typer.echo(text, err=True)
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield lambda text: status.update(text)


def measurements(profile: Profile) -> None:
    """Print what was measured."""
    bad = f", {profile.bad_rows:,} of them given up" if profile.bad_rows else ""
    cores = f"{profile.cores} core{'s' * (profile.cores != 1)}"
    head = ("stage", "runs as", "batch", "rows/s", "scales", "µs/row", "in/row", "out/row", "GIL")
    lines: list[Sequence[str]] = []
    for stage in profile.stages:
        if not stage.measurements:
            lines.append((stage.name, "nothing came", *[""] * (len(head) - 2)))
        lines += [_line(stage, each, stage.measurements, stage.name) for each in stage.measurements]
        lines += [_line(stage, each, stage.fused, f"{stage.name} + {stage.hybrid}") for each in stage.fused]
    if profile.others_share > _MUCH:
        typer.echo(f"note: other processes took {profile.others_share:.0%} of the cores meanwhile, so rates are too low", err=True)
    _print(f"{profile.job}: each stage alone, with the first {profile.rows:,} rows{bad}, on {cores}", head, _without_repeats(lines))
    for stage in profile.stages:
        if stage.kind == "predict" and stage.load_seconds is not None:
            where = f" on GPU {', '.join(stage.devices)}" if stage.devices else ""
            typer.echo(f"{stage.name} loads{where} in {figures.duration(stage.load_seconds)}")


def ceilings(profile: Profile, forecast: Forecast) -> None:
    """Print what follows for the whole."""
    head = ("stage", "ceiling", "load", "cores")
    lines = [
        (each.name, "-" if each.ceiling is None else _rate(each.ceiling), f"{each.load:.0%}", f"{each.cores:.2f}")
        for each in forecast.stages
    ]
    typer.echo("")
    _print(f"expected: {_rate(forecast.rate)} input rows/s, {forecast.cores_used:.1f} of {profile.cores} cores busy", head, lines)
    for name, share in forecast.fused_shares.items():
        stage = profile.stage(name)
        assert stage is not None
        typer.echo(f"{name} takes {share:.0%} of the rows of {stage.hybrid} raw")
    scarce = f"the {CORES}" if forecast.limit == CORES else forecast.limit
    typer.echo(f"limit: {scarce}; with twice as much of it: {_rate(forecast.next_rate)} rows/s")


def comparison(compared: Comparison) -> None:
    """Print what was expected and what was reached."""
    head = ("stage", "expected", "reached", "a copy: expected", "reached", "busy: expected", "reached")
    lines = [
        (
            each.name,
            _optional(each.expected, _rate),
            _optional(each.reached, _rate),
            _optional(each.copy_expected, _rate),
            _optional(each.copy_reached, _rate),
            _optional(each.busy_expected, _percent),
            _optional(each.busy_reached, _percent),
        )
        for each in compared.stages
        if each.reached is not None or each.copy_reached is not None
    ]
    if not lines:
        typer.echo(f"{compared.headline()}\nthe report says nothing of single stages")
        return
    _print(compared.headline(), head, lines)


def _line(stage: StageProfile, each: Measurement, among: Sequence[Measurement], name: str) -> Sequence[str]:
    times = scaling(each, among)
    kind = each.runs_as if each.degree > 1 else {"threads": "thread", "processes": "process"}[each.runs_as]
    return (
        name,
        f"{each.degree} {kind}",
        f"{each.batch_rows:,}" if each.batch_rows else "",
        _rate(each.rows_per_second),
        "" if times is None or each.degree == 1 else f"x{times:.2f}",
        _cost(_MICRO * each.cpu_seconds_per_row),
        figures.size(stage.row_bytes_in) if stage.row_bytes_in else "",
        figures.size(stage.row_bytes_out) if stage.row_bytes_out else "",
        "" if each.gil_share is None else _percent(each.gil_share),
    )


def _without_repeats(lines: list[Sequence[str]]) -> list[Sequence[str]]:
    """Name a stage once, and its sizes with it."""
    made: list[Sequence[str]] = []
    before = ""
    for line in lines:
        made.append(("", *line[1:6], "", "", *line[8:]) if line[0] == before else line)
        before = line[0]
    return made


def _print(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    # Columns that are empty all the way down say nothing.
    used = [at for at in range(len(head)) if any(line[at] for line in lines)]
    head, lines = [head[at] for at in used], [[line[at] for at in used] for line in lines]
    typer.echo(title)
    if sys.stdout.isatty():
        _print_rich(head, lines)
        return
    widths = [max(len(line[at]) for line in (head, *lines)) for at in range(len(head))]
    for line in (head, *lines):
        cells = [text.ljust(width) if name in _TEXTS else text.rjust(width) for name, text, width in zip(head, line, widths, strict=True)]
        typer.echo(f"  {'  '.join(cells)}".rstrip())


def _print_rich(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    # Eighty columns are to be enough.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in head:
        table.add_column(name, justify="left" if name in _TEXTS else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    Console(highlight=False).print(table)


def _rate(value: float) -> str:
    return figures.count(value) if value >= 100 else f"{value:.3g}"


def _cost(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _optional(value: float | None, form: Callable[[float], str]) -> str:
    return "" if value is None else form(value)
