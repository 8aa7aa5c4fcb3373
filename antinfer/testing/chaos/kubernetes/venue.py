"""The venue on Kubernetes: outputs beside that of the job, in a place that pods and this machine both reach."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from antinfer.errors import OutputError
from antinfer.launchers.kubernetes.api import Api
from antinfer.launchers.kubernetes.merging import merged
from antinfer.launchers.kubernetes.packing import SubmitOptions, packed
from antinfer.launchers.kubernetes.review import check_rights
from antinfer.launchers.kubernetes.submission import CONTAINER
from antinfer.master.jobfile import job_id
from antinfer.spec.schema import JobSpec
from antinfer.storage.jobs import open_output
from antinfer.storage.place import OutputPlace
from antinfer.testing.chaos.kubernetes.logs import PodLogs
from antinfer.testing.chaos.kubernetes.possible import RIGHTS, check_plan
from antinfer.testing.chaos.kubernetes.stage import KubernetesStage
from antinfer.testing.chaos.pacing import rows_passed
from antinfer.testing.chaos.plan import FaultPlan, Launcher
from antinfer.testing.chaos.preparing import prepare

_ANYBODY: Final = 0o777


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """A cluster, and how the pods of a job are made there."""

    options: SubmitOptions
    context: str = ""
    """Of the kubeconfig; empty: the current one."""
    kubeconfig: str = ""
    """Path; empty: the usual one, or that of the pod in which we are."""


class KubernetesVenue:
    """See `antinfer.testing.chaos.stage.Venue`."""

    launcher: Launcher = "kubernetes"

    def __init__(self, spec: JobSpec, folder: Path, cluster: Kubernetes, say: Callable[[str], None]) -> None:
        """
        Args:
            spec: the user's job.
            folder: for logs.
            cluster: where it runs.
            say: is told how it goes.
        """
        self._spec = spec
        self._folder = folder
        self._cluster = cluster
        self._say = say
        self._outputs = f"{spec.sink.path.rstrip('/')}-chaos-{secrets.token_hex(4)}"
        """No two sessions have the same, so that what is removed is this one's own."""
        self._made: list[OutputPlace] = []
        self._counts: dict[str, Path] = {}
        self._counts_all = True

    def check(self, plan: FaultPlan) -> None:
        """Also ask the cluster for what it takes, and the output place. Raises `OutputError` when that cannot be reached from here."""
        check_plan(plan)
        check_rights(self._connect(), self._cluster.options.namespace, RIGHTS)
        place = open_output(self._at(f"{self._outputs}-check"))
        try:
            place.check_writable()
        except OutputError as error:
            raise OutputError(
                f"the outputs have to be reached from here as well as from the pods: {error}",
                hint="Write to a bucket, to HDFS, or to a volume that is mounted at the same path here and in all pods.",
            ) from error
        place.clear()

    def prepare(self, run: str, plan: FaultPlan, rows_per_second: float) -> JobSpec:
        output = f"{self._outputs}-{run}"
        counts = "" if "://" in output else self._make_counts(run, Path(f"{output}.counts"))
        spec = prepare(self._spec, plan, output, counts, rows_per_second=rows_per_second, workers=plan.workers)
        self._made.append(open_output(spec))
        self._say(f"{run}: writes to {output}")
        return spec

    @contextmanager
    def stage(self, run: str, spec: JobSpec, plan: FaultPlan, rows: int) -> Iterator[KubernetesStage]:
        place = open_output(spec)
        options = self._cluster.options
        pods = {**options.pods, "master": merged(options.pods.get("master", {}), _master(plan))}
        what = packed(spec, job_id(place.uri), replace(options, pods=pods))
        kept = self._folder / f"{run}.logs"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        api = self._connect()
        stage = KubernetesStage(api, what, place, PodLogs(api, what.namespace, kept), self._say)
        try:
            yield stage
        finally:
            stage.close()

    def rows_computed(self, run: str, rows: int) -> int | None:
        """A folder that pods share may show less than they have counted: then what it shows is not told at all."""
        counted = rows_passed(self._counts[run]) if run in self._counts else 0
        self._counts_all = self._counts_all and counted >= rows
        return counted if self._counts_all else None

    def remove_outputs(self) -> None:
        """Raises `OutputError` that names what cannot be removed from here."""
        for place in self._made:
            place.clear()
        for folder in self._counts.values():
            shutil.rmtree(folder)

    # -- inside --------------------------------------------------------------------------------------------------------------------------
    def _connect(self) -> Api:
        return Api.connect(self._cluster.kubeconfig, self._cluster.context)

    def _at(self, output: str) -> JobSpec:
        return self._spec.model_copy(update={"sink": self._spec.sink.model_copy(update={"path": output})})

    def _make_counts(self, run: str, folder: Path) -> str:
        folder.mkdir(parents=True)
        # Pods are another user, and nobody knows which.
        folder.chmod(_ANYBODY)
        self._counts[run] = folder
        return str(folder)


def _master(plan: FaultPlan) -> dict[str, Any]:
    """Return what is laid over the pod of the master: a look at its invariants after every step, and the plan's time to live."""
    words = ["--check", "--verbose", *([] if plan.ttl_s is None else ["--ttl", json.dumps(plan.ttl_s)])]
    return {"spec": {"containers": [{"name": CONTAINER, "args": words}]}}
