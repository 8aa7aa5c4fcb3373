"""From a job and a plan to a report: one run that nothing disturbs, one that everything disturbs, and the comparison of the two."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from antinfer.errors import SourceError
from antinfer.spec.load import load_job
from antinfer.spec.schema import JobSpec
from antinfer.storage.audit import audit
from antinfer.storage.forecast import forecast
from antinfer.storage.jobs import open_output, read_report
from antinfer.testing.chaos.comparison import Comparison, alike, compare
from antinfer.testing.chaos.conductor import Conductor, Run
from antinfer.testing.chaos.kubernetes.venue import Kubernetes, KubernetesVenue
from antinfer.testing.chaos.local import LocalVenue
from antinfer.testing.chaos.plan import FaultPlan, load_plan
from antinfer.testing.chaos.report import ChaosReport
from antinfer.testing.chaos.schedule import Schedule
from antinfer.testing.chaos.stage import Venue
from antinfer.testing.chaos.timeline import picture

_SLOWEST: Final = 10
"""A run under faults that takes so many times as long as the undisturbed one is given up."""
_LEAST_GIVE_UP_S: Final = 300.0
_SHOWN: Final = 5


def run(
    job: JobSpec | str | os.PathLike[str],
    plan: FaultPlan | str | os.PathLike[str],
    seed: int = 0,
    *,
    cluster: Kubernetes | None = None,
    folder: str | os.PathLike[str] | None = None,
    keep_outputs: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> ChaosReport:
    """Run a job twice, the second time under a plan of faults, and compare what came out.

    The job's own output is not touched.

    Args:
        job: a job, a job file, or a folder with a ``job.yaml``.
        plan: a plan, the name of a ready-made one, or a plan file.
        seed: chooses instants and victims; the same plan and seed plan the same faults.
        cluster: where it runs; None: as local processes.
        folder: where report, picture and logs go, and the outputs of local processes while they are compared; created. None: a new
            temporary one.
        keep_outputs: leave both outputs where they are.
        say: is told how it goes, line by line.

    Raises:
        UsageError: The job or the plan is wrong, or the cluster cannot do what the plan wants.
        AntinferError: The job fails although nothing disturbs it, or never ends.
    """
    spec = job if isinstance(job, JobSpec) else load_job(job)
    plan = plan if isinstance(plan, FaultPlan) else load_plan(plan if isinstance(plan, Path) else str(plan))
    folder = Path(tempfile.mkdtemp(prefix="antinfer-chaos-") if folder is None else folder).resolve()
    venue: Venue = LocalVenue(spec, folder, seed) if cluster is None else KubernetesVenue(spec, folder, cluster, say)
    plan = plan.under(venue.launcher)
    venue.check(plan)
    folder.mkdir(parents=True, exist_ok=True)
    session = _Session(spec, plan, venue, folder, say)
    try:
        return session.run(seed)
    finally:
        if not keep_outputs:
            venue.remove_outputs()


@dataclass(frozen=True, slots=True)
class _Done:
    """One run and where its output lies."""

    run: Run
    spec: JobSpec
    rows_computed: int | None


class _Session:
    def __init__(self, spec: JobSpec, plan: FaultPlan, venue: Venue, folder: Path, say: Callable[[str], None]) -> None:
        self._spec = spec
        self._plan = plan
        self._venue = venue
        self._folder = folder
        self._say = say

    def run(self, seed: int) -> ChaosReport:
        rows = self._count_rows()
        pace = rows / (self._plan.seconds * self._plan.workers) if self._plan.seconds else 0.0
        self._say(f"undisturbed: {rows:,} rows on {self._plan.workers} workers")
        calm = self._once("undisturbed", FaultPlan("none", workers=self._plan.workers, store=self._plan.store), 0, rows, pace)
        if calm.run.failure is not None:
            raise calm.run.failure
        self._say(f"undisturbed: {calm.run.seconds:.1f} s")
        self._say(f"plan {self._plan.name}, seed {seed}")
        stormy = self._once("disturbed", self._plan, seed, rows, pace, calm.run.seconds)
        self._say(f"done after {stormy.run.seconds:.1f} s; comparing")
        report = self._report(seed, rows, calm, stormy)
        (self._folder / "report.json").write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
        (self._folder / "timeline.svg").write_text(picture(report), encoding="utf-8")
        return report

    def _count_rows(self) -> int:
        """Return the number of rows of the input; where only reading tells, by reading."""
        known = self._known_rows()
        if known is not None:
            return known
        self._say("counting the rows of the input")
        counted = self._once("counting", FaultPlan("none", workers=self._plan.workers), 0, 0, 0.0)
        if counted.run.failure is not None:
            raise counted.run.failure
        return int(read_report(counted.spec)["rows_in"])

    def _known_rows(self) -> int | None:
        if self._spec.limit is not None:
            return None
        try:
            return forecast(self._spec).rows
        except SourceError as error:
            if self._venue.launcher == "local":
                raise
            self._say(f"the input cannot be read from here: {error}")
            return None

    def _once(self, name: str, plan: FaultPlan, seed: int, rows: int, pace: float, expected_s: float = 0.0) -> _Done:
        spec = self._venue.prepare(name, self._plan, pace)
        with self._venue.stage(name, spec, plan, rows) as stage:
            give_up_s = max(_LEAST_GIVE_UP_S, _SLOWEST * max(expected_s, plan.seconds))
            done = Conductor(stage, Schedule(plan, seed), rows, self._say).run(give_up_s)
        return _Done(done, spec, self._venue.rows_computed(name, rows))

    def _report(self, seed: int, rows: int, calm: _Done, stormy: _Done) -> ChaosReport:
        is_done = stormy.run.failure is None
        comparison = compare(open_output(calm.spec), open_output(stormy.spec)) if is_done else Comparison(lost=rows)
        return ChaosReport(
            job=self._spec.name,
            plan=self._plan,
            seed=seed,
            input_rows=rows,
            undisturbed=calm.run,
            disturbed=stormy.run,
            comparison=comparison,
            input_faults=tuple(_against_input(calm.spec, rows)),
            audit_faults=tuple(_audit(stormy.spec)) if is_done else (),
            accumulators=_accumulators(calm.spec, stormy.spec) if is_done else "none",
            rows_computed=stormy.rows_computed,
            folder=self._folder,
        )


def _against_input(spec: JobSpec, rows: int) -> list[str]:
    """Hold the undisturbed output against the input: both runs could be wrong in the same way."""
    said = [f"undisturbed: {fault}" for fault in _audit(spec)]
    reported = read_report(spec)["rows_in"]
    if reported != rows:
        said.append(f"undisturbed: the input has {rows:,} rows, the output stands for {reported:,}")
    return said


def _audit(spec: JobSpec) -> list[str]:
    found = audit(open_output(spec))
    faults = [f"audit: {fault.kind.value}: {fault.name}: {fault.explanation}" for fault in found.faults[:_SHOWN]]
    return [*faults, *([] if found.finished else ["audit: the output is not finished"])]


def _accumulators(calm: JobSpec, stormy: JobSpec) -> Literal["same", "close", "different", "none"]:
    before, after = read_report(calm)["accumulators"], read_report(stormy)["accumulators"]
    if not before and not after:
        return "none"
    if alike(before, after, exact=True):
        return "same"
    return "close" if alike(before, after, exact=False) else "different"
