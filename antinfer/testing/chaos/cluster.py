"""A whole job as local processes, each started as its own command: master, workers, and what the output place holds meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from antinfer.errors import AntinferError, InfraError, MasterError
from antinfer.rpc.client import AdminClient
from antinfer.rpc.values import Status
from antinfer.spec.canonical import document_json
from antinfer.spec.schema import JobSpec
from antinfer.storage import layout
from antinfer.storage.audit import audit
from antinfer.storage.jobs import open_output
from antinfer.testing.chaos import logs, processes
from antinfer.testing.chaos.processes import NotInTime, Process, wait_until
from antinfer.testing.chaos.watching import rows_behind


@dataclass
class Cluster:
    """The processes of one job, each started from the shell, and the faults that befall them."""

    spec: JobSpec
    rows: int
    """Of the input."""
    folder: Path
    """For logs and sockets; its path is short, as sockets want it."""
    ttl_s: float | None = 3.0
    """Silence after which a worker counts as gone; None: as in production."""
    environment: dict[str, str] = field(default_factory=dict)
    names: Callable[[], list[str]] | None = None
    """Lists the output place; None: it is a local folder."""
    grounds: tuple[Path, ...] = ()
    """Folders in which only processes of this job work: the embedded store paints its title over its mark."""
    processes: list[Process] = field(default_factory=list)
    mark: str = field(default_factory=lambda: uuid4().hex)
    faults: list[str] = field(default_factory=list)

    # -- processes ---------------------------------------------------------------------------------------------------------------------
    def address(self, master: str = "master") -> str:
        return f"unix://{self.folder}/{master}.sock"

    def master(self, name: str = "master", *arguments: str, wait: bool = True) -> Process:
        """Start a master that goes by `name`; with `wait`, return when it listens."""
        document = self.folder / "job.json"
        document.write_text(document_json(self.spec))
        ready = self.ready_file(name)
        ready.unlink(missing_ok=True)
        words = ["--job", str(document), "--listen", self.address(name), "--ready-file", str(ready)]
        words += [] if self.ttl_s is None else ["--ttl", str(self.ttl_s)]
        process = self._start(name, ["-m", "antinfer.master", *words, "--check", "--verbose", *arguments])
        if wait:
            wait_until(lambda: ready.exists() or not process.is_alive, f"{name} listens")
            if not process.is_alive:
                raise InfraError(f"{name} ended at once:\n{process.log[-8000:]}")
        return process

    def ready_file(self, master: str = "master") -> Path:
        """The file that is there while a master of this name has come to listen."""
        return self.folder / f"{master}.ready"

    def worker(self, name: str, *masters: str) -> Process:
        """Start a worker for the masters of these names."""
        return self.worker_at(name, *map(self.address, masters or ("master",)))

    def worker_at(self, name: str, *addresses: str, grace_s: float | None = None) -> Process:
        """Start a worker for a master that listens at one of these addresses; `grace_s`: its time to drain, None for the usual one."""
        grace = [] if grace_s is None else ["--grace", str(grace_s)]
        return self._start(name, ["-m", "antinfer.worker", "--master", ",".join(addresses), "--name", name, "--verbose", *grace])

    def run(self, job_file: Path, *arguments: str) -> Process:
        """Start the one command that does it all."""
        return self._start("run", ["-m", "antinfer", "run", str(job_file), *arguments])

    def _start(self, name: str, words: Sequence[str]) -> Process:
        process = processes.start(name, words, self.folder / f"{name}.log", mark=self.mark, environment=self.environment)
        self.processes.append(process)
        return process

    # -- looking -----------------------------------------------------------------------------------------------------------------------
    def status(self, master: str = "master", *, timeout_s: float = 5.0) -> Status | None:
        """Return what the master says; None while it does not answer."""
        try:
            with AdminClient(self.address(master)) as admin:
                return admin.status(timeout_s=timeout_s)
        except MasterError:
            return None

    def published(self) -> int:
        """Count the input rows behind the parts that are there, by their names."""
        return rows_behind(self._listed())

    def _listed(self) -> list[str]:
        if self.names is not None:
            return self.names()
        output = Path(self.spec.sink.path)
        return os.listdir(output) if output.exists() else []

    def wait_for_rows(self, rows: int) -> None:
        """Wait until the results of so many rows are published."""
        try:
            wait_until(lambda: self.published() >= rows, f"{rows} rows published")
        except NotInTime as error:
            raise NotInTime(f"{error}: {self.published()}\n{self.logs()}") from None

    def fault(self, what: str, do: Callable[[], object]) -> None:
        """Let something bad happen, and be sure that it met a job with work left."""
        before = self.published()
        do()
        if self.is_done or before >= self.rows:
            raise NotInTime(f"all rows were done before {what}")
        self.faults.append(f"{what} at {before} rows")

    @property
    def is_done(self) -> bool:
        return layout.SUCCESS in self._listed()

    def living(self) -> list[str]:
        """Say which processes of the job run, wherever they hang."""
        return [f"{pid} {processes.command_of(pid)}" for pid in self._living()]

    def _living(self) -> list[int]:
        return processes.marked(self.mark, (*self.grounds, Path(self.spec.sink.path)))

    def logs(self) -> str:
        """Return the last words of every process, for people."""
        return logs.last_words(self.folder)

    # -- the end -----------------------------------------------------------------------------------------------------------------------
    def finish(self, *ending: Process) -> None:
        """Wait until these processes end well and nothing of the job is left running; then audit the output.

        Raises `AntinferError` that says what is wrong, with all logs.
        """
        for process in ending:
            status = process.wait()
            if status != 0:
                raise InfraError(f"{process.name} ended with {status}\n{self.logs()}")
        if not self.is_done:
            raise InfraError(f"the job is not done\n{self.logs()}")
        wait_until(lambda: not self.living(), f"no process is left of {self.living()}", seconds=20)
        if bugs := self.bugs():
            raise InfraError(f"{bugs[0]}\n{self.logs()}")
        found = audit(open_output(self.spec))
        if not found.proven:
            raise AntinferError(f"the output is not proven: {found.faults}")

    def bugs(self) -> list[str]:
        """Return what processes said that only a bug of ours makes them say."""
        return logs.bugs(self.folder)

    def close(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        for process in self.processes:
            if process.is_alive:
                process.kill()
        while left := self._living():
            processes.signal_all(left, signal.SIGKILL)
