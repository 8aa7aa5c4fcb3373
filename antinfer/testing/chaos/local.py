"""The venue on this machine: all parts of a job as local processes, outputs and logs in one folder."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from antinfer.spec.schema import JobSpec
from antinfer.testing.chaos.cluster import Cluster
from antinfer.testing.chaos.crew import Crew
from antinfer.testing.chaos.hits import Armed, Hit
from antinfer.testing.chaos.pacing import rows_passed
from antinfer.testing.chaos.plan import FaultPlan, Launcher
from antinfer.testing.chaos.poisoning import pick_rows
from antinfer.testing.chaos.preparing import prepare
from antinfer.testing.chaos.schedule import Strike
from antinfer.testing.chaos.servers import ValkeyServer
from antinfer.testing.chaos.strikes import strike
from antinfer.testing.chaos.watching import Sample

_MOST_POISONED: Final = 50


class LocalStage(Crew):
    """Local processes, and all faults that there are."""

    def strike(self, what: Strike, now: Sample) -> Hit | Armed | None:
        return strike(self, what, now)


class LocalVenue:
    """See `antinfer.testing.chaos.stage.Venue`."""

    launcher: Launcher = "local"

    def __init__(self, spec: JobSpec, folder: Path, seed: int) -> None:
        """
        Args:
            spec: the user's job.
            folder: for outputs and logs.
            seed: chooses the rows that are poisoned.
        """
        self._spec = spec
        self._folder = folder
        self._seed = seed
        self._made: list[Path] = []

    def check(self, plan: FaultPlan) -> None:
        """Every plan can be played here."""

    def prepare(self, run: str, plan: FaultPlan, rows_per_second: float) -> JobSpec:
        output, counts = self._folder / run, self._counts(run)
        for path in (output, counts):
            shutil.rmtree(path, ignore_errors=True)
        counts.mkdir(parents=True)
        self._made += [output, counts]
        return prepare(self._spec, plan, str(output), str(counts), rows_per_second=rows_per_second)

    @contextmanager
    def stage(self, run: str, spec: JobSpec, plan: FaultPlan, rows: int) -> Iterator[LocalStage]:
        # Short: the path of a socket may have 107 bytes at most.
        with tempfile.TemporaryDirectory(prefix="ai-") as sockets:
            store = ValkeyServer(Path(sockets) / "store") if plan.store == "server" else None
            stage = LocalStage(Cluster(spec, rows, Path(sockets), plan.ttl_s), plan, store)
            stage.rows_to_poison = self._rows_to_poison(plan)
            try:
                yield stage
            finally:
                stage.close()
                _keep_logs(Path(sockets), self._folder / f"{run}.logs")

    def rows_computed(self, run: str, rows: int) -> int:
        return rows_passed(self._counts(run))

    def remove_outputs(self) -> None:
        for path in self._made:
            shutil.rmtree(path, ignore_errors=True)

    def _counts(self, run: str) -> Path:
        return self._folder / f"{run}.counts"

    def _rows_to_poison(self, plan: FaultPlan) -> list[dict[str, Any]]:
        if not any(rule.kind == "poison" for rule in plan.rules):
            return []
        return pick_rows(self._spec, _MOST_POISONED, random.Random(self._seed))


def _keep_logs(sockets: Path, kept: Path) -> None:
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for log in sockets.glob("*.log"):
        shutil.copy(log, kept)
