"""``python -m antinfer.master``: a master as a process of its own, as launchers start it."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from antinfer.errors import LAST_LINE, AntinferError, InternalError, Interrupted, UsageError, UserCodeError
from antinfer.launchers.leaving import leave
from antinfer.launchers.outcome import Outcome
from antinfer.launchers.parent import die_with_parent
from antinfer.master.app import MasterOptions, import_rest, run_master
from antinfer.spec.normal import normal_job
from antinfer.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from antinfer.launchers.kubernetes.settings import KubernetesSettings
    from antinfer.rpc.channel import Tls
    from antinfer.spec.schema import JobSpec

_log = logging.getLogger("antinfer.master")


def _read_job(path: Path, base_dir: str = "") -> JobSpec:
    """Read a job document (``.json``, or from a launcher, which has checked it, as ``-`` on standard input) or a job file (YAML)."""
    if str(path) == "-":
        import_rest()
        document = sys.stdin.read()
        if not document:
            leave(0)  # whoever started us before there was a job has found none
        return normal_job(json.loads(document))
    if path.suffix == ".json":
        from antinfer.spec.canonical import from_document

        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot read the job document {path}: {error.strerror}") from error
        spec = from_document(text)
        return spec.model_copy(update={"base_dir": base_dir}) if base_dir else spec
    from antinfer.spec.load import load_job

    return load_job(path)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m antinfer.master", description="Rule one job until it is done.")
    parser.add_argument("--job", type=Path, required=True, help="job file (YAML), job document (.json), or - for one on stdin, checked")
    parser.add_argument("--base-dir", default="", metavar="FOLDER", help="where the user code of a job document lies; default: as it says")
    parser.add_argument("--store", default="", metavar="URL", help="Redis or Valkey server; default: the job file's, else one of our own")
    parser.add_argument("--store-file", type=Path, metavar="FILE", help="file with that URL, which may hold a password")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="or unix:///PATH; port 0 takes any free one")
    parser.add_argument("--token-file", type=Path, help="file with the token that workers must show")
    parser.add_argument("--admin-token-file", type=Path, help="file with the token for status, drain and cancel; default: the same")
    parser.add_argument("--tls-ca", type=Path, metavar="FILE", help="authority of the certificates that callers must show (PEM)")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="own certificate (PEM): speak TLS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="key of the own certificate (PEM)")
    parser.add_argument("--insecure", action="store_true", help="listen beyond this machine without mutual TLS and token too")
    parser.add_argument("--state-dir", default="", help="directory of our own store")
    parser.add_argument("--ready-file", type=Path, help="is written once the master listens; holds the address")
    parser.add_argument("--kubernetes", type=Path, metavar="FILE", help="start workers as pods, as these settings (JSON) say")
    parser.add_argument("--ray", default="", metavar="SOCKET", help="start workers as Ray actors, by the driver that listens there")
    parser.add_argument("--force", action="store_true", help="plan however many parts")
    parser.add_argument("--retry", type=int, default=0, metavar="ROUND", help="do this round of retries of what is in quarantine")
    parser.add_argument("--ttl", type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help="look at the invariants after every batch")
    parser.add_argument("--outcome", type=Path, help="is written at the end, for whoever started us")
    parser.add_argument("--parent", type=int, metavar="PID", help="die with this process, which started us")
    parser.add_argument("--verbose", action="store_true", help="say more")
    return parser.parse_args(arguments)


def _announce(ready_file: Path | None, address: str) -> None:
    if ready_file is not None:
        # Whoever waits for the file must never read half an address.
        draft = ready_file.with_name(f"{ready_file.name}.{os.getpid()}")
        draft.write_text(address + "\n", encoding="utf-8")
        draft.replace(ready_file)


def main(arguments: list[str] | None = None) -> int:
    """Run a master; return the exit code of the process."""
    given = _parse(arguments)
    if given.parent is not None:
        die_with_parent(given.parent)
    configure_logging(verbose=given.verbose)
    try:
        status = _rule(given)
        outcome = Outcome("done")
    except Interrupted as error:
        status, outcome = error.exit_code, Outcome("stopped", message=str(error))
        if given.outcome is None:
            _print(error)
    except AntinferError as error:
        status, outcome = error.exit_code, Outcome.of(error)
        if isinstance(error, InternalError):
            _log.exception("the master met a bug of its own")
        elif given.outcome is None:
            _print(error)
    if given.outcome is not None:
        outcome.write(given.outcome)
    return status


def _rule(given: argparse.Namespace) -> int:
    options = MasterOptions(
        store_url=_read(given.store_file, "store") or given.store,
        listen=given.listen,
        token=_read(given.token_file),
        admin_token=_read(given.admin_token_file),
        tls=_tls(given),
        insecure=given.insecure,
        state_dir=given.state_dir,
        force=given.force,
        retry=given.retry,
        check=given.check,
        ttl_s=given.ttl,
        kubernetes=_settings(given.kubernetes),
        ray=given.ray,
        ready=lambda address: _announce(given.ready_file, address),
    )
    return run_master(_read_job(given.job, given.base_dir), options)


def _read(path: Path | None, what: str = "token") -> str:
    """Return the secret in a file; empty when none is named."""
    if path is None:
        return ""
    # Imported here: most masters are asked for none, and every one starts faster without.
    from antinfer.rpc.channel import read_token

    return read_token(path, what)


def _tls(given: argparse.Namespace) -> Tls | None:
    if given.tls_ca is None and given.tls_cert is None and given.tls_key is None:
        return None
    from antinfer.rpc.channel import Tls

    return Tls(given.tls_ca, given.tls_cert, given.tls_key)


def _settings(path: Path | None) -> KubernetesSettings | None:
    if path is None:
        return None
    from antinfer.launchers.kubernetes.settings import KubernetesSettings

    # Which pod we are, a pod cannot know before it is made.
    return replace(KubernetesSettings.read(path), pod=os.environ.get("POD_NAME", ""))


def _print(error: AntinferError) -> None:
    if isinstance(error, UserCodeError) and error.user_traceback:
        sys.stderr.write(error.user_traceback + "\n")
    sys.stderr.write(f"{LAST_LINE}{error.text}\n")


if __name__ == "__main__":
    leave(main())
