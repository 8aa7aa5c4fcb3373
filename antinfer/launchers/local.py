"""Everything on this machine: one master, its embedded store and a few workers, as processes of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antinfer.errors import InfraError
from antinfer.launchers.children import LineSink
from antinfer.launchers.gpus import visible_gpus
from antinfer.launchers.headstart import HeadStart
from antinfer.launchers.supervisor import RunOptions, Supervisor
from antinfer.spec import devices
from antinfer.spec.normal import all_stages

if TYPE_CHECKING:
    from antinfer.rpc.values import Status
    from antinfer.spec.schema import JobSpec


class LocalSupervisor(Supervisor):
    """Runs one job with processes on this machine."""

    def __init__(
        self, options: RunOptions, *, on_line: LineSink, on_status: Callable[[Status | None], None], early: HeadStart | None = None
    ) -> None:
        """
        Args:
            options: how.
            on_line: takes every line that a process of ours writes.
            on_status: takes the master's view; see `Supervisor`.
            early: processes that were started already; used if they suit `options`.
        """
        super().__init__(options, on_line=on_line, on_status=on_status)
        self._family = self._take(early)
        self._master = self._family.master
        self._workers = [self._family.first_worker]
        self._address = self._family.address
        self._outcome_file = Path(self._family.outcome_file)

    def _begin(self, load: Callable[[], JobSpec]) -> JobSpec:
        self._family.start()
        for child in (self._family.master, *self._workers):
            child.hear(self._on_line)
        spec = load()
        if said := unheeded(spec):
            self._on_line("local", said)
        # Any worker would find out as well, but only when all the rest is under way.
        if any(stage.num_gpus for stage in all_stages(spec.pipeline)):
            devices.check(spec.pipeline, visible_gpus())
        # The store's URL may hold a password: it goes by standard input, never by a command line or a file with a name.
        self._family.master.give(spec.model_dump_json())
        while len(self._workers) < (self._options.workers or default_workers(spec)):
            worker = self._family.worker(len(self._workers) + 1)
            worker.start()
            worker.hear(self._on_line)
            self._workers.append(worker)
        return spec

    def _clean_up(self) -> None:
        self._family.remove_folder()

    def _take(self, early: HeadStart | None) -> HeadStart:
        options = self._options
        if early is not None and early.take(force=options.force, verbose=options.verbose, retry=options.retry):
            return early
        return HeadStart(force=options.force, verbose=options.verbose, retry=options.retry)


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
    LocalSupervisor(
        RunOptions(workers, force),
        on_line=shown.line if progress else quiet_line,
        on_status=shown.status if progress else (lambda status: None),
    ).run(lambda: spec)
    return read_report(spec)


def default_workers(spec: JobSpec) -> int:
    """How many workers a single machine runs when nobody says: what the job asks for at most, else one, which uses all its cores."""
    return spec.workers.max or max(1, spec.workers.min)


def unheeded(spec: JobSpec) -> str:
    """Return what is said of settings that a single machine does not heed; empty: there are none."""
    ignored = [f"workers.{name}" for name in ("on_demand", "deadline", "budget") if getattr(spec.workers, name)]
    return f"not heeded on one machine, where the same workers run to the end: {', '.join(ignored)}" if ignored else ""


def read_report(spec: JobSpec) -> dict[str, Any]:
    """Return the report of a finished job from its output place."""
    from antinfer.storage import layout
    from antinfer.storage.jobs import open_output

    data = open_output(spec).read(layout.REPORT)
    if data is None:
        raise InfraError(f"{spec.sink.path} has no report: the job is not finished")
    report: dict[str, Any] = json.loads(data)
    return report
