"""The commands of ``antinfer quarantine``, as they are parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from antinfer.cli.parameters import (
    AsJson,
    OutputUri,
    Overrides,
    RayActors,
    RayAddress,
    RayListen,
    RunLauncher,
    StoreUrl,
    Verbose,
    Workers,
)

quarantine = typer.Typer(help="Rows that were given up: look at them, and run them again.", no_args_is_help=True, rich_markup_mode=None)


@quarantine.command("ls")
def quarantine_ls(
    output: OutputUri,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, metavar="N", help="Rows to show; 0: only how many there are.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Say which rows are in quarantine now, and why.

    Counts by class of error and stage, then the first rows with what was kept of their input.
    """
    from antinfer.cli import quarantine

    quarantine.ls(output, limit=limit, as_json=as_json)


@quarantine.command("retry")
def quarantine_retry(
    output: OutputUri,
    job: Annotated[
        Path | None,
        typer.Option("--job", metavar="JOB", help="Job file of today; default: the job that wrote OUTPUT, with its code as it is now."),
    ] = None,
    workers: Workers = None,
    overrides: Overrides = None,
    store: StoreUrl = "",
    as_json: AsJson = False,
    verbose: Verbose = False,
    launcher: RunLauncher = "local",
    address: RayAddress = "",
    listen: RayListen = "",
    actors: RayActors = None,
) -> None:
    """Run the rows in quarantine again, into the same output.

    For after a fix: pipeline and code may have changed, the input may not. Results that are there stay as they are; what fails again is in
    quarantine again.
    """
    from antinfer.cli import quarantine, running

    ray = running.ray_choice(launcher, address, listen, actors)
    options = running.Options(workers=workers, store=store, as_json=as_json, verbose=verbose, ray=ray)
    quarantine.retry(output, job, overrides or [], options)
