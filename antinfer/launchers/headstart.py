"""The processes that every run on this machine needs, started before anybody has read what to run: their imports take longest of all."""

from __future__ import annotations

import os
import shutil

from antinfer.launchers.children import Child
from antinfer.launchers.restarts import RestartBudget
from antinfer.launchers.sockets import socket_folder


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


class HeadStart:
    """A master that waits for its job, and a first worker that waits for its master, in a folder of their own.

    Whoever runs a job takes it over, if it was started with the right settings, and ends it; anybody else discards it.
    """

    def __init__(self, *, force: bool = False, verbose: bool = False, retry: int = 0) -> None:
        self.folder = socket_folder()
        self.address = f"unix://{self.folder}/master.sock"
        self.outcome_file = os.path.join(self.folder, "outcome")
        self._settings = (force, verbose, retry)
        self._logs = ["--verbose"] if verbose else []
        self._is_started = self._is_taken = False
        self.master = master_child(self.address, self.outcome_file, force=force, verbose=verbose, retry=retry)
        self.first_worker = self.worker(1)

    def start(self) -> None:
        """Start both, unless they are already."""
        if not self._is_started:
            self._is_started = True
            self.master.start()
            self.first_worker.start()

    def worker(self, number: int) -> Child:
        """Return one more worker, not started."""
        arguments = ["--master", self.address, *self._logs, "--name", f"local-{number}"]
        name = f"worker {number}"
        return Child(name, "antinfer.worker", arguments, RestartBudget(8, 60.0, name))

    def take(self, *, force: bool, verbose: bool, retry: int) -> bool:
        """Hand the processes over if they have these settings, and return true; else discard them."""
        self._is_taken = (force, verbose, retry) == self._settings
        self.discard()
        return self._is_taken

    def discard(self) -> None:
        """End the processes, unless they were taken over."""
        if not self._is_taken:
            for child in (self.first_worker, self.master):
                child.kill()
            self.remove_folder()

    def remove_folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
