"""The master that a command starts beside itself."""

from __future__ import annotations

from antinfer.launchers.children import Child
from antinfer.launchers.restarts import RestartBudget


def master_child(address: str, outcome_file: str, *more: str, force: bool = False, verbose: bool = False, retry: int = 0) -> Child:
    """Return a master, not started, that is given its job by standard input.

    Args:
        address: where it is to listen.
        outcome_file: see `antinfer.launchers.outcome`.
        more: further arguments.
        force: as in `antinfer run`.
        verbose: likewise.
        retry: retry round to do; 0: the job itself.
    """
    flags = [*(["--verbose"] if verbose else []), *(["--force"] if force else []), *(["--retry", str(retry)] if retry else [])]
    arguments = ["--job", "-", "--listen", address, "--outcome", outcome_file, *more, *flags]
    return Child("master", "antinfer.master", arguments, RestartBudget(5, 60.0, "master"), takes_input=True, has_spare=True)
