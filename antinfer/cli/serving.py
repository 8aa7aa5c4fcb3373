"""``master`` and ``worker``: the two processes of a job that spans machines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import typer


def master(
    job: Path,
    overrides: Sequence[str],
    output: str | None,
    *,
    listen: str,
    store: str,
    token_file: Path | None,
    force: bool,
    verbose: bool,
) -> None:
    from antinfer.master.app import MasterOptions, run_master
    from antinfer.rpc.channel import read_token
    from antinfer.spec.load import load_job
    from antinfer.telemetry.logs import configure_logging

    configure_logging(verbose=verbose)
    spec = load_job(job, overrides, output)
    token = "" if token_file is None else read_token(token_file)
    sys.exit(run_master(spec, MasterOptions(store_url=store, listen=listen, token=token, force=force, ready=_announce)))


def worker(address: str, *, token_file: Path | None, name: str, wait_s: float, tls_ca: Path | None, base_dir: str, verbose: bool) -> None:
    from antinfer.rpc.channel import Tls
    from antinfer.telemetry.logs import configure_logging
    from antinfer.worker.app import run_worker

    configure_logging(verbose=verbose)
    tls = None if tls_ca is None else Tls(ca_file=tls_ca)
    sys.exit(run_worker(master=address, token_file=token_file, name=name, wait_s=wait_s, tls=tls, base_dir=base_dir))


def _announce(address: str) -> None:
    typer.echo(f"workers join with: antinfer worker --master {address}", err=True)
