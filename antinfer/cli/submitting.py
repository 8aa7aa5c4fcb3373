"""``submit``: a job for a cluster."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from antinfer.cli.overlays import read_overlays

if TYPE_CHECKING:
    from antinfer.launchers.kubernetes.submission import Submission

_TEMPLATES: Final = ("master", "worker", "protected", "preemptible")


@dataclass(frozen=True, slots=True)
class Options:
    """Where a job is to run, and by what."""

    image: str
    namespace: str
    pods: Path | None
    """File with what is laid over the pods."""
    store: str
    grace_s: int
    dry_run: bool


def submit(job: Path, overrides: Sequence[str], output: str | None, options: Options) -> None:
    from antinfer.launchers.kubernetes.manifests import TOKEN_DIR
    from antinfer.launchers.kubernetes.submission import objects

    what = _submission(job, overrides, output, options)
    if options.dry_run:
        from antinfer.spec.yamlfile import write_yaml

        typer.echo("---\n".join(write_yaml(each) for each in objects(what)), nl=False)
        return
    from antinfer.launchers.kubernetes.api import Api
    from antinfer.launchers.kubernetes.submit import submit as create

    create(Api.connect(), what)
    where = f"-n {what.namespace}"
    typer.echo(f"{what.title} is submitted as job {what.name} in namespace {what.namespace}")
    typer.echo(f"  its master says:  kubectl logs {where} -f job/{what.name}")
    typer.echo(f"  its pods:         kubectl get pods {where} -l antinfer.io/job={what.job} -w")
    inside = f"antinfer status {json.loads(what.document)['sink']['path']} --token-file {TOKEN_DIR}/token"
    typer.echo(f"  how far it is:    kubectl exec {where} job/{what.name} -- {inside}")
    typer.echo(f"  remove it all:    kubectl delete {where} job {what.name}")


def _submission(job: Path, overrides: Sequence[str], output: str | None, options: Options) -> Submission:
    from antinfer.launchers.kubernetes.submission import Submission
    from antinfer.master.jobfile import job_id
    from antinfer.spec.canonical import document_json
    from antinfer.spec.codeprint import code_files
    from antinfer.spec.load import load_job
    from antinfer.storage.jobs import open_output

    spec = load_job(job, overrides, output)
    pods = read_overlays(options.pods, _TEMPLATES, "pods (metadata, spec)")
    return Submission(
        job=job_id(open_output(spec).uri),
        title=spec.name,
        document=document_json(spec),
        code={path: Path(spec.base_dir, path).read_bytes() for path in code_files(spec)},
        image=options.image,
        token=secrets.token_urlsafe(32),
        namespace=options.namespace,
        store_url=options.store or spec.store.url,
        grace_s=options.grace_s,
        worker=pods["worker"],
        classes={name: pods[name] for name in ("protected", "preemptible")},
        master=pods["master"],
    )
