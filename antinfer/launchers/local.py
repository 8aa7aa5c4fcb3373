"""Everything on this machine: one master, its embedded store and a few workers, as processes of ours.

The supervisor restarts whatever dies, drains on the first Ctrl-C, and leaves nothing behind. Killed itself, it takes all of it along,
and the same call resumes.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from antinfer.errors import InfraError, Interrupted, MasterError
from antinfer.launchers.children import Child, LineSink, explain_exit
from antinfer.launchers.headstart import HeadStart
from antinfer.launchers.outcome import Outcome

if TYPE_CHECKING:
    from antinfer.rpc.client import AdminClient
    from antinfer.rpc.values import Status
    from antinfer.spec.schema import JobSpec

_POLL_S: Final = 0.02
_STATUS_S: Final = 0.5
_FIRST_STATUS_S: Final = 2.0
"""Before that a status says little, and a short job is done."""
_MASTER_GRACE_S: Final = 10.0
_WORKER_GRACE_S: Final = 5.0
_WELL_ENDED_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How to run on this machine."""

    workers: int | None = None
    """Worker processes; None: as in the job, at least one."""
    force: bool = False
    """Go on although the job file or the code changed, or very many parts are to be expected."""
    retry: int = 0
    """Retry round to do, of what is in quarantine; 0: the job itself."""
    drain_s: float = 30.0
    """Time the workers get to commit what they have finished after the first Ctrl-C."""
    verbose: bool = False


class Supervisor:
    """Runs one job with processes on this machine."""

    def __init__(
        self, options: LocalOptions, *, on_line: LineSink, on_status: Callable[[Status | None], None], early: HeadStart | None = None
    ) -> None:
        """
        Args:
            options: how.
            on_line: takes every line that a process of ours writes.
            on_status: takes the master's view twice a second, but not of the first seconds; None while it does not answer.
            early: processes that were started already; used if they suit `options`.
        """
        self._options = options
        self._on_line = on_line
        self._on_status = on_status
        self._family = self._take(early)
        self._master = self._family.master
        self._workers = [self._family.first_worker]
        self._signals = 0
        self._ending = ExitStack()

    def run(self, load: Callable[[], JobSpec]) -> JobSpec:
        """Start everything and return when the job is done.

        Args:
            load: reads the job; called when the first processes have been started, because their imports take as long.

        Returns:
            What `load` returned.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; what was finished is committed.
            AntinferError: What the master gave the job up with, or processes that keep dying.
        """
        try:
            with self._catching_signals():
                self._family.start()
                for child in (self._master, *self._workers):
                    child.hear(self._on_line)
                spec = load()
                # The store's URL may hold a password: it goes by standard input, never by a command line or a file with a name.
                self._master.give(spec.model_dump_json())
                while len(self._workers) < (self._options.workers or default_workers(spec)):
                    self._start_worker()
                self._watch()
                return spec
        finally:
            self._ending.close()
            for worker in self._workers:
                worker.send(signal.SIGTERM)
            for child in (*reversed(self._workers), self._master):
                child.end(_MASTER_GRACE_S if child is self._master else _WORKER_GRACE_S)
            self._family.remove_folder()

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _take(self, early: HeadStart | None) -> HeadStart:
        options = self._options
        if early is not None and early.take(force=options.force, verbose=options.verbose, retry=options.retry):
            return early
        return HeadStart(force=options.force, verbose=options.verbose, retry=options.retry)

    def _start_worker(self) -> None:
        worker = self._family.worker(len(self._workers) + 1)
        worker.start()
        worker.hear(self._on_line)
        self._workers.append(worker)

    def _watch(self) -> None:
        next_status = time.monotonic() + _FIRST_STATUS_S
        while True:
            outcome = self._tend_master()
            if outcome is not None:
                self._on_status(None)
                if outcome.status == "failed":
                    raise outcome.to_error()
                return
            self._tend_workers()
            if self._signals:
                self._drain()
            if time.monotonic() >= next_status:
                next_status = time.monotonic() + _STATUS_S
                self._show()
            time.sleep(_POLL_S)

    def _tend_master(self) -> Outcome | None:
        self._master.start_if_due()
        status = self._master.poll()
        if status is None:
            return None
        outcome = Outcome.read(Path(self._family.outcome_file))
        if outcome is not None:
            return outcome
        if not self._master.restart_later():
            raise InfraError(_keeps_dying(self._master, status), hint="the same command resumes the job")
        return None

    def _tend_workers(self) -> None:
        for worker in self._workers:
            worker.start_if_due()
            status = worker.poll()
            # One that ended well has heard that the job is over, and the master is about to end too.
            if status is not None and not worker.restart_later(_WELL_ENDED_S if status == 0 else 0.0):
                raise InfraError(_keeps_dying(worker, status), hint="the same command resumes the job")

    def _drain(self) -> None:
        """Let the workers commit what they have finished; a second signal ends everything at once."""
        for worker in self._workers:
            worker.forget_restart()
            worker.send(signal.SIGTERM)
        until = time.monotonic() + self._options.drain_s
        while any(worker.is_alive for worker in self._workers) and self._signals == 1 and time.monotonic() < until:
            self._tend_master()
            self._show()
            time.sleep(0.1)
        raise Interrupted("stopped; what was finished is committed", hint="the same command resumes the job")

    def _show(self) -> None:
        try:
            status = self._admin.status(timeout_s=2.0)
        except MasterError:
            status = None
        self._on_status(status)

    @cached_property
    def _admin(self) -> AdminClient:
        # Not before it is used: gRPC takes longer to import than a short job has left, while its processes want every core.
        from antinfer.rpc.client import AdminClient

        return self._ending.enter_context(AdminClient(self._family.address))

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def count(number: int, frame: FrameType | None) -> None:
            self._signals += 1

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _keeps_dying(child: Child, status: int) -> str:
    said = "\n".join(f"  {line}" for line in child.last_lines) or "  (it said nothing)"
    return f"the {child.name} keeps dying, at last with {explain_exit(status)}. Its last words:\n{said}"


def run_job(
    spec: JobSpec, workers: int | None = None, *, store_url: str = "", force: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Run a job on this machine until every row is done; the call behind `Job.run`.

    Args:
        spec: the job.
        workers: number of worker processes; None: as in the job, at least one.
        store_url: Redis or Valkey to use; empty: as in the job, else an embedded server.
        force: go on although the job file or the code changed.
        progress: write what the processes say, and a line every few seconds, to standard error.

    Returns:
        The report that the master left in the output place: totals, accumulators, timings.

    Raises:
        Interrupted: Ctrl-C; the same call resumes.
        AntinferError: The job failed.
    """
    from antinfer.telemetry.progress import PlainProgress, quiet_line

    shown = PlainProgress()
    if store_url:
        from antinfer.spec.load import with_store

        spec = with_store(spec, store_url)
    Supervisor(
        LocalOptions(workers, force),
        on_line=shown.line if progress else quiet_line,
        on_status=shown.status if progress else (lambda status: None),
    ).run(lambda: spec)
    return read_report(spec)


def default_workers(spec: JobSpec) -> int:
    """How many workers a single machine runs when nobody says: what the job asks for at most, else one, which uses all its cores."""
    return spec.workers.max or max(1, spec.workers.min)


def read_report(spec: JobSpec) -> dict[str, Any]:
    """Return the report of a finished job from its output place."""
    from antinfer.storage import layout
    from antinfer.storage.jobs import open_output

    data = open_output(spec).read(layout.REPORT)
    if data is None:
        raise InfraError(f"{spec.sink.path} has no report: the job is not finished")
    report: dict[str, Any] = json.loads(data)
    return report
