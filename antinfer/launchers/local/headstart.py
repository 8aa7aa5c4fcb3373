"""The processes that every run on this machine needs, started before anybody has read what to run: their imports take longest of all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from antinfer.launchers.masters import master_child
from antinfer.launchers.processes import Process
from antinfer.launchers.sockets import socket_folder


def worker_name(number: int) -> str:
    """Return the name of a worker of this machine; the first one has number 1."""
    return f"local-{number}"


def start_worker(name: str, master: str, *, verbose: bool, environ: Mapping[str, str] | None = None) -> Process:
    """Start a worker for the master that listens, or will, at `master`; `environ` is what it finds in its environment beside ours."""
    arguments = ["--master", master, *(["--verbose"] if verbose else []), "--name", name]
    return Process(name, "antinfer.worker", arguments, environ=environ)


class HeadStart:
    """A master that waits for its job, and a first worker that waits for its master, in a folder of their own.

    Whoever runs a job takes it over, if it was started with the right settings, and ends it; anybody else discards it.
    """

    def __init__(self, *, force: bool = False, verbose: bool = False, retry: int = 0) -> None:
        self.folder = socket_folder()
        self.address = f"unix://{self.folder}/master.sock"
        self.outcome_file = os.path.join(self.folder, "outcome")
        self._settings = (force, verbose, retry)
        self._verbose = verbose
        self._is_taken = False
        self.master = master_child(self.address, self.outcome_file, force=force, verbose=verbose, retry=retry)
        self.first_worker: Process | None = None

    def start(self) -> Process:
        """Start both, unless they are already; return the worker."""
        if self.first_worker is None:
            self.master.start()
            self.first_worker = start_worker(worker_name(1), self.address, verbose=self._verbose)
        return self.first_worker

    def take(self, *, force: bool, verbose: bool, retry: int) -> bool:
        """Hand the processes over if they have these settings, and return true; else discard them."""
        self._is_taken = (force, verbose, retry) == self._settings
        self.discard()
        return self._is_taken

    def discard(self) -> None:
        """End the processes, unless they were taken over."""
        if not self._is_taken:
            if self.first_worker is not None:
                self.first_worker.kill()
            self.master.kill()
            self.remove_folder()

    def remove_folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
