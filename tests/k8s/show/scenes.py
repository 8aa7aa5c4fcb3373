"""What happens in the show, scene by scene, and what must have come of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from pathlib import Path

from antinfer.core.causes import Cause
from antinfer.core.scaling import exits
from tests.integration.jobs import read_report
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.objects import Object, dig
from tests.k8s.jobs import exit_code, node_of
from tests.k8s.scenes import history
from tests.k8s.show.kubectl import Kubectl
from tests.k8s.show.stage import PATIENCE_S, Play, cluster_of_two_pools
from tests.k8s.show.transcript import Transcript

MISSING = "manifest for nowhere:1 not found: manifest unknown"
"""What the registry says of an image that is not there."""
_FAILS_WITHIN_S = 180.0
"""A missing image is waited for 90 s."""


def show(folder: Path, transcript: Transcript) -> None:
    """Play all scenes in an empty folder."""
    with cluster_of_two_pools() as cluster:
        kubectl = Kubectl(cluster.kubeconfig(folder / "kubeconfig"), transcript)
        with kubectl.following("get", "pods", "-w"):
            job = Play(cluster, folder / "score", transcript, workers=3)
            broken = Play(cluster, folder / "broken", transcript, workers=1)
            scenes = _Scenes(cluster, job, kubectl, transcript)
            scenes.begin(broken)
            scenes.lose_power()
            scenes.drain_node()
            scenes.delete_pod()
            scenes.run_out_of_memory()
            scenes.end()
            scenes.tell_of_the_image(broken)


class _Scenes:
    """One after the other, about the same job."""

    def __init__(self, cluster: Cluster, job: Play, kubectl: Kubectl, transcript: Transcript) -> None:
        self._cluster = cluster
        self._job = job
        self._kubectl = kubectl
        self._say = transcript
        self._died = 0
        """How many workers have died without a word."""

    def begin(self, broken: Play) -> None:
        self._say.scene("a job, and beside it one whose image is not there")
        self._cluster.images.bad["nowhere*"] = MISSING
        self._job.submit()
        broken.submit(image="nowhere:1")
        self._job.wait_for_workers()
        self._cluster.wait(self._job.committed, "rows to be committed", seconds=PATIENCE_S)
        self._job.antinfer("status", self._job.job)

    def lose_power(self) -> None:
        before = self._job.wait_for_workers()
        node, lost = self._busiest_node(before)
        self._say.scene(f"{node} loses power, and {_names(lost)} with it")
        self._cluster.lose_node(node, power=False)
        self._died += len(lost)
        after = self._replaced(before, lost)
        pods = self._job.workers()
        self._say.expect(f"nobody works on {node}", all(node_of(pods[name]) != node for name in after))
        self._job.antinfer("status", self._job.job)

    def drain_node(self) -> None:
        before, rows = self._job.wait_for_workers(), self._job.committed()
        node, lost = self._busiest_node(before)
        self._say.scene(f"{node} is drained, and {_names(lost)} with it")
        # Pods without a controller, as workers are, need --force; their empty folders the other.
        drained = self._kubectl.say("drain", node, "--force", "--delete-emptydir-data", "--timeout=50s")
        self._say.expect(f"{node} is empty within the grace period", drained)
        self._replaced(before, lost)
        more = self._job.committed() - rows
        self._say.expect(f"what was finished is committed ({more} rows)", more > 0)
        self._job.antinfer("status", self._job.job)

    def delete_pod(self) -> None:
        before, version = self._job.wait_for_workers(), str(self._cluster.store.revision)
        lost = {min(before)}
        self._say.scene(f"{_names(lost)} is deleted")
        self._say.expect("its pod goes", self._kubectl.say("delete", "pod", *lost))
        codes = {exit_code(each) for each in history(self._cluster, version, *lost)} - {None}
        self._say.expect(f"it says that it was taken away (exit status {_names(map(str, codes))})", codes == {exits.TAKEN_AWAY})
        self._replaced(before, lost)

    def run_out_of_memory(self) -> None:
        before = self._job.wait_for_workers()
        lost = {min(before)}
        had = _memory_of(self._job.workers()[min(lost)])
        self._say.scene(f"the {had >> 20} MiB of {_names(lost)} are used up")
        self._cluster.oom_kill(min(lost), "worker")
        self._died += 1
        after = self._replaced(before, lost)
        pods = self._job.workers()
        got = min(_memory_of(pods[name]) for name in after - before)
        self._say.expect(f"the next one has more ({got >> 20} MiB)", got > had)
        self._job.antinfer("status", self._job.job)

    def end(self) -> None:
        job = self._job
        self._say.scene("the rest of the job")
        job.let_end()
        self._cluster.wait(lambda: job.condition("Complete") or job.condition("Failed"), "the end of the job", seconds=PATIENCE_S)
        self._say.expect("the job is complete", job.condition("Complete"))
        job.scoring.assert_right(job.output)
        job.antinfer("status", job.job)
        self._say.expect("antinfer verify finds every row once", job.antinfer("verify", str(job.output)).returncode == 0)
        causes = read_report(job.output)["causes"]
        self._say.say("report", ", ".join(f"{count} {cause}" for cause, count in causes.items()))
        charged = {cause: count for cause, count in causes.items() if not Cause(cause).is_blameless and cause != "bad_row"}
        self._say.expect("nobody pays for what was taken with notice", charged == {"worker_lost": self._died, "out_of_memory": 1})
        self._say.expect("no worker was taken for one that keeps ending", "keep ending" not in job.said())

    def tell_of_the_image(self, broken: Play) -> None:
        self._say.scene("the job without an image")
        broken.antinfer("status", broken.job)
        self._cluster.wait(lambda: broken.condition("Failed"), "the other job to fail", seconds=_FAILS_WITHIN_S)
        said = broken.antinfer("status", broken.job).stdout
        words = rf"failed: workers cannot start: container worker: .*{re.escape(MISSING)}"
        self._say.expect("it fails with the words of the kubelet", re.search(words, said))

    def _busiest_node(self, workers: Set[str]) -> tuple[str, set[str]]:
        """Return the node with most of these workers, and which those are."""
        pods = self._job.workers()
        nodes = [node_of(pods[name]) for name in sorted(workers)]
        node = max(nodes, key=nodes.count)
        return node, {name for name in workers if node_of(pods[name]) == node}

    def _replaced(self, before: Set[str], lost: Set[str]) -> set[str]:
        """Wait for as many workers as there were, and return them."""
        after = self._job.wait_for_workers(without=lost)
        new = after - before
        self._say.expect(f"{_names(new)} in place of {_names(lost)}, and the others stay", before - lost == after - new)
        return after


def _memory_of(pod: Object) -> int:
    """Memory of a worker (bytes), as its master has written it."""
    return int(dig(pod, "spec", "containers")[0]["resources"]["limits"]["memory"])


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nobody"
