"""``quarantine ls`` and ``quarantine retry``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from antinfer.cli import render, running
from antinfer.errors import UsageError
from antinfer.spec.load import absolute_path
from antinfer.storage.place import OutputPlace, open_place

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec

_LONGEST: Final = 100
"""Of an error or a value, so many characters are shown."""


def ls(output: str, *, limit: int, as_json: bool) -> None:
    place = _place_at(output)
    groups, rows = _look(place, limit)
    found = sum(group["rows"] for group in groups)
    if as_json:
        render.as_json({"output": place.uri, "rows": found, "groups": groups, "shown": rows})
        return
    typer.echo(f"{found:,} rows are in quarantine")
    for group in groups:
        typer.echo(f"  {group['rows']:>10,}  {group['error_class']:<24} {_stage(group['stage'])}  e.g. {_short(group['example'])}")
    for row in rows:
        typer.echo(f"shard {row['shard']} row {row['offset']}  {row['file']}\n    {_stage(row['stage'])}: {_short(row['error'])}")
        for name, value in row["input"].items():
            typer.echo(f"    {name} = {_short(value)}")
    if len(rows) < found:
        typer.echo(f"{found - len(rows):,} more rows are not shown (--limit)")
    if found:
        typer.echo(f"after a fix, run them again: antinfer quarantine retry {output}")


def retry(output: str, job: Path | None, overrides: Sequence[str], options: running.Options) -> None:
    from antinfer.storage import rounds

    place = _place_at(output)
    # Told to the master, which may be restarted: it must not begin another round when this one is done.
    newest = rounds.newest(place)
    number = newest if newest > (rounds.sealed(place) or 0) else newest + 1

    def load() -> JobSpec:
        from antinfer.spec.load import load_job

        return running.load_marked(output, overrides) if job is None else load_job(job, overrides, output)

    running.run_loaded(load, output, replace(options, retry=number))


def _place_at(output: str) -> OutputPlace:
    from antinfer.storage import layout

    place = open_place(absolute_path(output, str(Path.cwd())))
    if place.read(layout.JOB) is None:
        raise UsageError(f"{output} holds no job", hint="Name the folder that the job wrote to.")
    return place


def _look(place: OutputPlace, limit: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return how many rows are in quarantine for each class of error and stage, most first, and the first `limit` of them."""
    from antinfer.storage import manifest, quarantine, rounds

    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    shown: list[dict[str, Any]] = []
    listing = manifest.Listing.of(place)
    records = manifest.published(place, listing, listing.suffix, manifest.read_all(place))
    for record, table in rounds.standing(place, records):
        for key, error, rows in quarantine.group(table):
            counts[key] += rows
            examples.setdefault(key, error)
        shown += quarantine.rows(table.slice(0, limit - len(shown)), record.round)
    groups = [
        {"error_class": error_class, "stage": stage, "rows": rows, "example": examples[error_class, stage]}
        for (error_class, stage), rows in counts.most_common()
    ]
    return groups, shown


def _stage(name: str) -> str:
    return f"in {name}" if name else "before any stage"


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
