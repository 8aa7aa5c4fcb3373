"""``submit``: a job for a cluster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from antinfer.cli.overlays import read_overlays
from antinfer.cli.places import ClusterOptions

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
    egress: tuple[int, ...] = ()
    certificates: Path | None = None
    """Folder of certificates; None: they are made."""
    dry_run: bool = False
    show_secrets: bool = False


def submit(job: Path, overrides: Sequence[str], output: str | None, options: Options, cluster: ClusterOptions) -> None:
    from antinfer.launchers.kubernetes.secret import redacted
    from antinfer.launchers.kubernetes.submission import objects

    what = _submission(job, overrides, output, options)
    if options.dry_run:
        from antinfer.spec.yamlfile import write_yaml

        shown = objects(what) if options.show_secrets else map(redacted, objects(what))
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


def _submission(job: Path, overrides: Sequence[str], output: str | None, options: Options) -> Submission:
    from antinfer.launchers.certificates import make_certificates, read_certificates
    from antinfer.launchers.kubernetes.secret import Secrets
    from antinfer.launchers.kubernetes.submission import Submission, object_name, server_names
    from antinfer.master.jobfile import job_id
    from antinfer.spec.canonical import document_json, public_document
    from antinfer.spec.codeprint import code_files
    from antinfer.spec.load import load_job
    from antinfer.storage.jobs import open_output

    spec = load_job(job, overrides, output)
    pods = read_overlays(options.pods, _TEMPLATES, "pods (metadata, spec)")
    id_ = job_id(open_output(spec).uri)
    names = server_names(object_name(spec.name, id_), options.namespace)
    certificates = make_certificates(names) if options.certificates is None else read_certificates(options.certificates, names)
    whole, public = document_json(spec), public_document(spec)
    return Submission(
        job=id_,
        title=spec.name,
        document=json.dumps(public, sort_keys=True),
        code={path: Path(spec.base_dir, path).read_bytes() for path in code_files(spec)},
        image=options.image,
        secrets=Secrets(certificates, store_url=options.store or spec.store.url, document="" if json.loads(whole) == public else whole),
        namespace=options.namespace,
        egress=options.egress,
        grace_s=options.grace_s,
        worker=pods["worker"],
        classes={name: pods[name] for name in ("protected", "preemptible")},
        master=pods["master"],
    )
