"""``master`` and ``worker``: the two processes of a job that spans machines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a master asks its callers for, and what it shows them."""

    token_file: Path | None = None
    admin_token_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False


def master(
    job: Path,
    overrides: Sequence[str],
    output: str | None,
    secrets: Secrets,
    *,
    listen: str,
    store: str,
    force: bool,
    verbose: bool,
) -> None:
    from antinfer.master.app import MasterOptions, run_master
    from antinfer.rpc.channel import read_token, tls_of
    from antinfer.spec.load import load_job
    from antinfer.telemetry.logs import configure_logging

    configure_logging(verbose=verbose)
    spec = load_job(job, overrides, output)
    token, admin_token = ("" if file is None else read_token(file) for file in (secrets.token_file, secrets.admin_token_file))
    options = MasterOptions(
        store_url=store,
        listen=listen,
        token=token,
        admin_token=admin_token,
        tls=tls_of(secrets.tls_ca, secrets.tls_cert, secrets.tls_key),
        insecure=secrets.insecure,
        force=force,
        ready=_announce,
    )
    sys.exit(run_master(spec, options))


def worker(
    address: str,
    tls: tuple[Path | None, Path | None, Path | None, str],
    *,
    token_file: Path | None,
    name: str,
    wait_s: float,
    base_dir: str,
    insecure: bool,
    verbose: bool,
) -> None:
    """Run a worker; `tls`: authority, certificate, key, name of the master."""
    from antinfer.rpc.channel import tls_of
    from antinfer.telemetry.logs import configure_logging
    from antinfer.worker.app import run_worker

    configure_logging(verbose=verbose)
    sys.exit(
        run_worker(master=address, token_file=token_file, name=name, wait_s=wait_s, tls=tls_of(*tls), insecure=insecure, base_dir=base_dir)
    )


def _announce(address: str) -> None:
    typer.echo(f"workers join with: antinfer worker --master {address}", err=True)
