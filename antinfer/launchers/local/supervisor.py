"""Everything on this machine: one master, its embedded store and a few workers, as processes of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from antinfer.launchers.gpus import environment, visible_gpus
from antinfer.launchers.local.crew import LocalCrew, order
from antinfer.launchers.local.headstart import HeadStart, worker_name
from antinfer.launchers.local.launcher import LocalLauncher
from antinfer.launchers.processes import LineSink
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
        self._address = self._family.address
        self._outcome_file = Path(self._family.outcome_file)
        self._launcher = LocalLauncher(self._address, on_line, grace_s=options.drain_s, verbose=options.verbose)
        self._launcher.open(self._changed.set)
        self._crew: LocalCrew = LocalCrew(self._launcher)

    def _begin(self, load: Callable[[], JobSpec]) -> JobSpec:
        first_worker = self._family.start()
        self._family.master.hear(self._on_line)
        self._launcher.adopt(order(worker_name(1)), first_worker)
        spec = load()
        if said := unheeded(spec):
            self._on_line("local", said)
        names = [worker_name(number) for number in range(1, (self._options.workers or default_workers(spec)) + 1)]
        if any(stage.num_gpus for stage in all_stages(spec.pipeline)):
            self._deal_gpus(spec, names)
        # The store's URL may hold a password: it goes by standard input, never by a command line or a file with a name.
        self._family.master.give(spec.model_dump_json())
        self._crew.hire(*names)
        return spec

    def _deal_gpus(self, spec: JobSpec, names: Sequence[str]) -> None:
        """Give each worker GPUs of its own. Raises UserError where that is too little for the job."""
        gpus = visible_gpus()
        # Any worker would find out as well, but only when all the rest is under way.
        devices.check(spec.pipeline, gpus, len(names))
        # A single one has them all, and was started already.
        if len(names) > 1:
            lots = devices.deal(gpus, len(names))
            self._launcher.equip({name: environment(lot) for name, lot in zip(names, lots, strict=True)})

    def _clean_up(self) -> None:
        self._family.remove_folder()

    def _take(self, early: HeadStart | None) -> HeadStart:
        options = self._options
        if early is not None and early.take(force=options.force, verbose=options.verbose, retry=options.retry):
            return early
        return HeadStart(force=options.force, verbose=options.verbose, retry=options.retry)


def default_workers(spec: JobSpec) -> int:
    """How many workers a single machine runs when nobody says: what the job asks for at most, else one, which uses all its cores."""
    return spec.workers.max or max(1, spec.workers.min)


def unheeded(spec: JobSpec) -> str:
    """Return what is said of settings that a single machine does not heed; empty: there are none."""
    ignored = [f"workers.{name}" for name in ("on_demand", "deadline", "budget") if getattr(spec.workers, name)]
    return f"not heeded on one machine, where the same workers run to the end: {', '.join(ignored)}" if ignored else ""
