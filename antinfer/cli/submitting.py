"""``submit``: a job for a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from antinfer.cli.beginning import wait_for_master
from antinfer.cli.overlays import read_overlays
from antinfer.cli.places import ClusterOptions
from antinfer.errors import UsageError

if TYPE_CHECKING:
    from antinfer.launchers.kubernetes.packing import SubmitOptions


def options_of(
    image: str, namespace: str, pods: Path | None, *, grace_s: int, egress: Sequence[int], certificates: Path | None, store: str = ""
) -> SubmitOptions:
    """Return what the command line says of a job's pods. Raises `UsageError` without an image, and as `read_overlays`."""
    if not image:
        raise UsageError("the pods need an image", hint="--image NAME: with antinfer and what the pipeline needs.")
    from antinfer.launchers.kubernetes.packing import TEMPLATES, SubmitOptions

    overlays = read_overlays(pods, TEMPLATES, "pods (metadata, spec)")
    return SubmitOptions(image, namespace, overlays, store, grace_s, tuple(egress), certificates)


def example_image() -> str:
    """Return the image that a dry run shows when none is given, and say so."""
    from importlib.metadata import version

    image = f"antinfer:{version('antinfer')}"
    typer.echo(f"note: without --image the pods are shown with {image}; to submit the job, name one that its nodes can pull", err=True)
    return image


def submit(
    job: Path,
    overrides: Sequence[str],
    output: str | None,
    options: SubmitOptions,
    cluster: ClusterOptions,
    *,
    dry_run: bool,
    show_secrets: bool,
    wait: bool,
) -> None:
    from antinfer.launchers.kubernetes.packing import packed
    from antinfer.launchers.kubernetes.secret import redacted
    from antinfer.launchers.kubernetes.submission import objects
    from antinfer.master.jobfile import job_id
    from antinfer.spec.load import load_job
    from antinfer.storage.jobs import open_output

    spec = load_job(job, overrides, output)
    what = packed(spec, job_id(open_output(spec).uri), options)
    if dry_run:
        from antinfer.spec.yamlfile import write_yaml

        shown = objects(what) if show_secrets else map(redacted, objects(what))
        typer.echo("---\n".join(map(write_yaml, shown)), nl=False)
        return
    from antinfer.launchers.kubernetes.submit import submit as create

    create(cluster.connect(), what)
    name = f"{what.name} -n {what.namespace}"
    typer.echo(f"{what.title} is submitted as job {what.name} in namespace {what.namespace}")
    typer.echo(f"  how far it is:    antinfer status {name}")
    typer.echo(f"  its master says:  antinfer logs {name} -f")
    typer.echo(f"  its pods:         kubectl get pods -n {what.namespace} -l antinfer.io/job={what.job} -w")
    typer.echo(f"  remove it all:    antinfer cancel {name}")
    if wait:
        wait_for_master(cluster, what.name)
