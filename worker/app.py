"""Composition root of a worker process: options in, exit code out."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from antinfer.core.ids import WorkerId
from antinfer.core.scaling import exits
from antinfer.errors import LAST_LINE, AntinferError
from antinfer.launchers import pidfile
from antinfer.launchers.parent import die_with_parent
from antinfer.rpc.channel import Tls, parse_addresses, read_token, tls_of
from antinfer.telemetry.logs import configure_logging
from antinfer.worker.agent import WAIT_S, Agent, AgentOptions
from antinfer.worker.hoststart import Spawned
from antinfer.worker.policy import SessionPolicy

_log = logging.getLogger("antinfer.worker")
_NEAR_BACKOFF_MS: Final = 50


def run_worker(
    *,
    master: str,
    token_file: Path | None = None,
    name: str = "",
    job: str = "",
    tls: Tls | None = None,
    insecure: bool = False,
    base_dir: str = "",
    grace_s: float = 25.0,
    wait_s: float = WAIT_S,
    is_alone: bool = True,
    spare_host: Spawned | None = None,
) -> int:
    """Work for the master until its job is over or somebody stops us.

    Args:
        master: ``HOST:PORT`` or ``unix:///PATH``; several, separated by commas, are tried in turn.
        token_file: file with the token the master was started with; None: it asks for none.
        name: of this worker, not used by another one alive; empty: made up from host name and process id.
        job: job id to insist on; empty: whatever the master serves.
        tls: transport security; None: plain text.
        insecure: the token may travel in plain text beyond this machine.
        base_dir: folder of the user code on this machine; empty: as the job says.
        grace_s: seconds between the first SIGTERM or SIGUSR1 and the moment we must be gone.
        wait_s: seconds to try until a master answers for the first time.
        is_alone: nobody who started us hears from the master why the job failed, so we say it.
        spare_host: a stage host that was started already, to save time.

    Returns:
        0 when the job is done or the master had this worker drained, 75 when SIGTERM or SIGUSR1 had, 1 when the job or this worker failed
        or no master came, 130 when stopped at once.

    Raises:
        UsageError: an address, the token file or a TLS file is no good, or the token would travel in plain text.
    """
    # What another process of ours has started inherits the variable, and is not meant by it.
    pid_file = os.environ.get(pidfile.VARIABLE, "") if is_alone else ""
    options = AgentOptions(
        addresses=parse_addresses(master),
        spare_host=spare_host,
        worker=WorkerId(name or _made_up_name()),
        job=job,
        token=read_token(token_file) if token_file is not None else "",
        tls=tls,
        insecure=insecure,
        base_dir=base_dir,
        policy=_policy(master, grace_s),
        wait_s=wait_s,
        pid_file=Path(pid_file) if pid_file else None,
    )
    extra = {"worker": options.worker, "job": job}
    _log.info("worker %s for the master at %s", options.worker, master, extra={"action": "started", **extra})
    end = Agent(options).run()
    level = logging.ERROR if is_alone and end.code not in (exits.DONE, exits.TAKEN_AWAY, exits.INTERRUPTED) else logging.INFO
    _log.log(level, "worker %s ends: %s", options.worker, end.reason, extra={"action": "ended", **extra})
    return end.code


def _policy(master: str, grace_s: float) -> SessionPolicy:
    policy = SessionPolicy(grace_ms=int(grace_s * 1_000))
    # A socket on this machine costs nothing to try, and whoever started us is waiting for the first row.
    is_near = all(address.startswith("unix:") for address in parse_addresses(master))
    return replace(policy, backoff_ms=_NEAR_BACKOFF_MS, longest_backoff_ms=_NEAR_BACKOFF_MS) if is_near else policy


def _made_up_name() -> str:
    # In containers host name and process id may both come back with the next incarnation.
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


def main(argv: Sequence[str] | None = None, spare_host: Spawned | None = None) -> int:
    """Run a worker from command line arguments; return the exit code."""
    parser = argparse.ArgumentParser(prog="antinfer worker", description="Work for a master until its job is over.")
    parser.add_argument("--master", required=True, metavar="HOST:PORT", help="where the master listens; several, separated by commas")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token the master was started with")
    parser.add_argument("--name", default="", help="name of this worker (default: made up)")
    parser.add_argument("--job", default="", metavar="ID", help="refuse to work for any other job")
    parser.add_argument("--base-dir", default="", metavar="FOLDER", help="where the user code lies here (default: as the job says)")
    parser.add_argument("--grace", type=float, default=25.0, metavar="SECONDS", help="time to drain after SIGTERM (default: 25)")
    parser.add_argument("--wait", type=float, default=WAIT_S, metavar="SECONDS", help="time to wait for the first answer (default: 900)")
    parser.add_argument("--parent", type=int, metavar="PID", help="die with this process, which started us")
    parser.add_argument("--verbose", action="store_true", help="say more")
    parser.add_argument("--tls", action="store_true", help="encrypt the channel")
    parser.add_argument("--tls-ca", type=Path, metavar="FILE", help="roots to trust (PEM); implies --tls")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="own certificate (PEM); implies --tls")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="key of the own certificate (PEM)")
    parser.add_argument("--tls-name", default="", metavar="NAME", help="name in the certificate of the master (default: its address)")
    parser.add_argument("--insecure", action="store_true", help="let the token travel to another machine in plain text")
    args = parser.parse_args(argv)
    if args.parent is not None:
        die_with_parent(args.parent)
    configure_logging(verbose=args.verbose)
    tls = tls_of(args.tls_ca, args.tls_cert, args.tls_key, args.tls_name) or (Tls(server_name=args.tls_name) if args.tls else None)
    try:
        return run_worker(
            spare_host=spare_host,
            master=args.master,
            token_file=args.token_file,
            name=args.name,
            job=args.job,
            tls=tls,
            insecure=args.insecure,
            base_dir=args.base_dir,
            grace_s=args.grace,
            wait_s=args.wait,
            is_alone=args.parent is None,
        )
    except AntinferError as error:
        sys.stderr.write(f"{LAST_LINE}{error.text}\n")
        return error.exit_code
