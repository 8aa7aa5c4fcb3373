"""``drain``, ``cancel``, ``logs``, and ``resume`` of a job on Kubernetes: what is asked of a job that runs elsewhere."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from antinfer.cli.beginning import wait_for_master
from antinfer.cli.places import ClusterOptions, Where, not_for_addresses
from antinfer.errors import InfraError, MasterError, UsageError

if TYPE_CHECKING:
    from antinfer.launchers.kubernetes.jobs import Jobs, SubmittedJob
    from antinfer.rpc.values import Status


def drain(where: Where, workers: int | None, *, worker: str, release: bool) -> None:
    if sum((workers is not None, bool(worker), release)) != 1:
        raise UsageError("say who is to be drained", hint="Give a number of workers, or --worker NAME, or --release.")
    with where.reach() as admin:
        if release:
            admin.release()
            typer.echo("workers may be started again in place of those that were given back")
        elif worker:
            if not admin.drain(worker):
                raise UsageError(f"the job has no worker {worker}", hint="`antinfer status` names them.")
            typer.echo(f"worker {worker} commits what it has finished, returns the rest and leaves")
        elif workers is not None:
            given = admin.give_back(secrets.token_hex(8), workers)
            typer.echo(f"leaving: {', '.join(given.leaving) or 'nobody'}")
            if given.most is not None:
                typer.echo(f"at most {given.most} workers from now on, workers.min at the least, until --release")


def cancel(where: Where, reason: str, *, forget: bool) -> None:
    if not where.is_submitted:
        if forget:
            raise not_for_addresses("--forget is about what is kept")
        with where.reach() as admin:
            admin.cancel(reason)
        typer.echo("cancelled; what is committed stays, and the same command resumes the job")
        return
    jobs = where.cluster.jobs()
    data = _config_map(jobs, where.text)
    if forget and data is not None and not _is_there(jobs, where.text):
        jobs.forget(where.text)
        typer.echo(f"what `antinfer resume` needed of job {where.text} is removed; the output stays")
        return
    job = jobs.find(where.text)
    _tell(jobs, job, reason)
    jobs.cancel(job, forget=forget)
    again = "submit it again" if forget else f"antinfer resume {where.text} -n {jobs.namespace}"
    typer.echo(f"job {where.text} is removed from namespace {jobs.namespace}; the output stays. To go on: {again}")


def _tell(jobs: Jobs, job: SubmittedJob, reason: str) -> None:
    """Let workers hear that the job ends: else each waits for a master that is gone until its grace period is over."""
    if job.phase != "running":
        return
    try:
        with jobs.reach(job) as admin:
            admin.cancel(reason)
    except InfraError as error:
        typer.echo(f"its master could not be told, so that workers take their time to go: {error}", err=True)


def logs(where: Where, *, worker: str, follow: bool, tail: int | None) -> None:
    if not where.is_submitted:
        raise not_for_addresses("logs are kept")
    jobs = where.cluster.jobs()
    job = jobs.find(where.text)
    pods = [pod["metadata"]["name"] for pod in jobs.pods(job, "worker" if worker else "master")]
    if worker and worker not in pods:
        raise UsageError(f"job {job.name} has no worker {worker}", hint=f"There are: {', '.join(pods[:5]) or 'none'}.")
    if not pods:
        why, hint = jobs.why_no_master(job)
        raise MasterError(f"there is no log of the master of job {job.name}: {why}", hint=hint)
    query: dict[str, object] = {"container": "worker" if worker else "master"}
    if follow:
        query["follow"] = "true"
    if tail is not None:
        query["tailLines"] = tail
    for data in jobs.api.text(f"/api/v1/namespaces/{jobs.namespace}/pods/{worker or pods[-1]}/log", **query):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@dataclass(frozen=True, slots=True)
class Renewal:
    """What is given anew when a job is submitted again."""

    store: str = ""
    certificates: Path | None = None


def resume(name: str, cluster: ClusterOptions, renewal: Renewal, *, wait: bool) -> None:
    from antinfer.launchers.certificates import make_certificates, read_certificates
    from antinfer.launchers.kubernetes.jobs import renewed
    from antinfer.launchers.kubernetes.secret import DOCUMENT, STORE_URL, Secrets
    from antinfer.launchers.kubernetes.submission import Submission, secrets_named, server_names
    from antinfer.launchers.kubernetes.submit import submit

    jobs = cluster.jobs()
    data = _config_map(jobs, name)
    job = jobs.find(name) if data is None or _is_there(jobs, name) else None
    if data is None:
        raise UsageError(f"the ConfigMap {name} in namespace {jobs.namespace} is gone", hint="Submit the job file again; that resumes it.")
    if job is not None and job.phase == "running":
        raise UsageError(f"job {name} is running", hint=f"antinfer status {name} -n {jobs.namespace}")
    if job is not None and job.phase == "done":
        raise UsageError(f"job {name} is complete: there is nothing to go on with", hint=f"antinfer cancel {name} removes it.")
    kept = renewed(jobs.secret(name), secrets_named(data), store_url=renewal.store)
    names = server_names(name, jobs.namespace)
    certificates = make_certificates(names) if renewal.certificates is None else read_certificates(renewal.certificates, names)
    what = Submission.restored(data, jobs.namespace, Secrets(certificates, store_url=kept[STORE_URL], document=kept[DOCUMENT]))
    if job is not None:
        jobs.cancel(job)
    submit(jobs.api, what)
    typer.echo(f"job {name} is submitted again in namespace {jobs.namespace}; it goes on from its output")
    if wait:
        wait_for_master(cluster, name)


def ended(jobs: Jobs, job: SubmittedJob) -> Status | None:
    """Return the status of a job that the cluster says is over, with its master gone; None for one that runs."""
    if job.phase == "running":
        return None
    from antinfer.rpc.values import Status

    data = jobs.config_map(job.name) or {}
    output = json.loads(data["job.json"])["sink"]["path"] if "job.json" in data else ""
    reason = "" if job.phase == "done" else jobs.last_words(job) or job.reason
    return Status(job=job.id, output=output, epoch=0, phase=job.phase, reason=reason)


def _config_map(jobs: Jobs, name: str) -> Mapping[str, bytes] | None:
    """Return what is kept of a job, None for nothing. Raises `UsageError` when something else than `submit` has made it."""
    from antinfer.launchers.kubernetes.submission import noted

    data = jobs.config_map(name)
    if data is not None:
        noted(data)
    return data


def _is_there(jobs: Jobs, name: str) -> bool:
    try:
        jobs.find(name)
    except UsageError:
        return False
    return True
