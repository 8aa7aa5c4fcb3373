"""Where the show is played: a cluster with two pools, and the jobs that are submitted to it."""

from __future__ import annotations

import subprocess
from collections.abc import Set
from pathlib import Path
from typing import Any

import yaml

from antinfer.errors import AntinferError
from antinfer.launchers.kubernetes.api import Api
from antinfer.launchers.kubernetes.jobs import Jobs
from antinfer.launchers.kubernetes.manifests import JOB_LABEL
from antinfer.rpc.values import Status
from tests.integration.jobs import command_line
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import Object, dig, name_of
from tests.k8s.jobs import ENV
from tests.k8s.scenes import log_of
from tests.k8s.show.transcript import Transcript
from tests.k8s.submitted import alive, crawl, pods, submit, write_job
from tests.k8s.talk import JOBS, Talk

PATIENCE_S = 60.0
_SPOT = "spot"
_MEMORY = {"preemptible": {"memory": "256MiB", "max_memory": "1GiB"}}
_TAINT = {"key": "pool", "value": _SPOT, "effect": "NoSchedule"}


def cluster_of_two_pools() -> Cluster:
    """A node for masters, and preemptible ones with room for two workers each."""
    spot = [Node(f"spot-{number}", cpu="2", labels={"pool": _SPOT}, taints=(_TAINT,)) for number in range(1, 6)]
    return Cluster([Node("safe-1", labels={"pool": "safe"}), *spot], env=ENV)


class Play:
    """One job: what it is, what its pods are, and what it says."""

    def __init__(self, cluster: Cluster, folder: Path, transcript: Transcript, *, workers: int) -> None:
        """Write input, code and job file into `folder`, by whose name the job goes. It takes minutes until `let_end`."""
        folder.mkdir()
        self.cluster = cluster
        self.size = workers
        self.job = ""
        """Name of its objects, once it is submitted."""
        self._folder = folder
        self._transcript = transcript
        self._gate = folder / "end"
        self.scoring, self.spec = write_job(
            folder, shards=200, pause_s=0.0001, workers={"min": workers, "max": workers, "classes": _MEMORY}
        )
        crawl(folder, until=self._gate)
        self.output = Path(self.spec.sink.path)

    def submit(self, **container: Any) -> None:
        """Submit it, with `container` laid over that of its workers. Raises AssertionError when it is refused."""
        overlay = {
            "master": {"spec": {"nodeSelector": {"pool": "safe"}}},
            "worker": {"spec": {"containers": [{"name": "worker", "resources": {"requests": {"cpu": "1"}}, **container}]}},
            "preemptible": {"spec": {"nodeSelector": {"pool": _SPOT}, "tolerations": [_TAINT]}},
        }
        file = self._folder / "pods.yaml"
        file.write_text(yaml.safe_dump(overlay))
        # Small batches: a worker that leaves waits for the one under way.
        changes = ["--set", f"name={self._folder.name}", "--set", "pipeline.1.batch_size=4"]
        self._transcript.say("$", " ".join(["antinfer submit job.yaml --image antinfer:1 --pods pods.yaml --grace 10", *changes]))
        done = submit(self.cluster, self._folder, "--pods", str(file), "--grace", "10", *changes)
        self._transcript.say("antinfer", done.stdout + done.stderr)
        assert done.returncode == 0, "the job is not submitted"
        self.job = done.stdout.partition(" as job ")[2].split()[0]

    def antinfer(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and show what it prints."""
        self._transcript.say("$", " ".join(("antinfer", *arguments)))
        done = command_line(*arguments, environment={"KUBECONFIG": str(self._folder / "kubeconfig")})
        self._transcript.say("antinfer", done.stdout + done.stderr)
        return done

    def workers(self) -> dict[str, Object]:
        """The pods of its workers, by name."""
        return {name_of(pod): pod for pod in self._pods("worker")}

    def status(self) -> Status | None:
        """What its master says; None while there is none."""
        jobs = Jobs(Api.connect(str(self._folder / "kubeconfig")), "default")
        try:
            with jobs.reach(jobs.find(self.job)) as admin:
                return admin.status()
        except AntinferError:
            return None

    def wait_for_workers(self, without: Set[str] = frozenset()) -> set[str]:
        """Wait until as many hold rows as the job wants, none of them of `without`. Returns their names."""

        def working() -> set[str]:
            living = {name_of(pod) for pod in alive(self.cluster)} & self.workers().keys() - without
            if len(living) != self.size or (status := self.status()) is None:
                return set()
            return living if living <= {each.worker for each in status.workers if each.leases} else set()

        return self.cluster.wait(working, f"{self.size} workers to work", seconds=PATIENCE_S)

    def committed(self) -> int:
        """How many of its rows are."""
        status = self.status()
        return 0 if status is None else status.rows_committed

    def let_end(self) -> None:
        """Let the rest of its rows take no time."""
        self._gate.touch()

    def condition(self, kind: str) -> str:
        """What its Job object says of being `Complete` or `Failed`; nothing when it is not so."""
        conditions = dig(Talk(self.cluster.url).get(f"{JOBS}/{self.job}"), "status", "conditions", default=[])
        return next((each.get("message") or kind for each in conditions if each["type"] == kind and each["status"] == "True"), "")

    def said(self) -> str:
        """What its masters have said."""
        return "".join(log_of(self.cluster, name_of(pod), "master") for pod in self._pods("master"))

    def _pods(self, component: str) -> list[Object]:
        (job,) = [each for each in Talk(self.cluster.url).get(JOBS)["items"] if name_of(each) == self.job]
        return [
            pod for pod in pods(self.cluster, component) if pod["metadata"]["labels"][JOB_LABEL] == job["metadata"]["labels"][JOB_LABEL]
        ]
