"""``master`` and ``worker``: the two processes of a job that spans machines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


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
    from antinfer.master.app import run_master
    from antinfer.rpc.channel import read_token
    from antinfer.spec.load import load_job
    from antinfer.telemetry.logs import configure_logging

    configure_logging(verbose=verbose)
    spec = load_job(job, overrides, output)
    token = "" if token_file is None else read_token(token_file)
    sys.exit(run_master(spec, store_url=store, listen=listen, token=token, force=force))


def worker(address: str, *, token_file: Path | None, name: str, tls_ca: Path | None, verbose: bool) -> None:
    from antinfer.telemetry.logs import configure_logging
    from antinfer.worker.app import run_worker

    configure_logging(verbose=verbose)
    sys.exit(run_worker(address, token_file=token_file, name=name, tls_ca=tls_ca))
