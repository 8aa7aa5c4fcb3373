"""The controller and its launcher on the double, without a job: what they do about pods, nodes, rights and images, and what that costs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from antinfer.core.causes import Cause
from antinfer.core.events import InterruptionSeen
from antinfer.core.scaling.values import PREEMPTIBLE, PROTECTED, Allowance, Desired, GiveBack, ScalingPolicy
from antinfer.errors import UserError
from antinfer.launchers.kubernetes.api import Api
from antinfer.launchers.kubernetes.facts import CLASS_LABEL
from antinfer.launchers.kubernetes.launcher import KubernetesLauncher
from antinfer.launchers.kubernetes.settings import KubernetesSettings
from antinfer.launchers.kubernetes.submission import master_rules
from antinfer.master.controller.account import Account
from antinfer.master.controller.shell import Elastic, Surroundings
from antinfer.master.controller.sight import JobSight, WorkerSight
from antinfer.master.loop import now_ms
from antinfer.master.streams import MakeEvent
from antinfer.master.troubles import Troubles
from antinfer.rpc.values import GivenBack
from antinfer.storage.place import open_place
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.kinds import PODS
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import Object, dig, name_of
from tests.k8s.double.timing import Timing
from tests.k8s.rights import limited
from tests.k8s.scenes import pod_of, shell
from tests.k8s.talk import PODS as PATH
from tests.k8s.talk import Talk

HASTY = ScalingPolicy(invalid_patience_ms=300, image_patience_ms=300, config_patience_ms=300, grow_ms=50, pending_ms=100)
"""Whoever waits for seconds of a real cluster waits for hundredths of the double's."""

CREATING_MS = 100


@dataclass
class Bench:
    """A controller whose master knows only what the test says."""

    cluster: Cluster
    launcher: KubernetesLauncher
    elastic: Elastic
    job: JobSight = field(default_factory=lambda: JobSight(remaining_rows=10**9, unleased_rows=10**9))
    failures: list[UserError] = field(default_factory=list)
    posted: list[MakeEvent] = field(default_factory=list)
    troubles: Troubles = field(default_factory=Troubles)

    def wait(self, condition: Callable[[], object], what: str, *, seconds: float = 20) -> None:
        """Turn as often as a real controller may, until `condition` holds."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"not in {seconds} s: {what}"
            self.elastic.turn(now_ms())
            time.sleep(0.02)

    def pods(self) -> dict[str, Object]:
        return {name_of(each): each for each in self.cluster.store.each(PODS)}

    def interruptions(self) -> list[InterruptionSeen]:
        """What the master was given to count."""
        made = [make(0) for make in self.posted]
        return [event for event in made if isinstance(event, InterruptionSeen)]

    def running(self) -> set[str]:
        """Workers that run, of those that the launcher's watch has told of by now."""
        sight = self.launcher.observe()
        seen = () if sight is None else {pod.name for pod in sight.pods}
        return {
            name
            for name, pod in self.pods().items()
            if name in seen and dig(pod, "status", "phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
        }

    def join_all(self) -> None:
        """All workers that run have joined, and hold rows."""
        self.job = replace(self.job, workers={name: WorkerSight(leases=1, uncommitted_rows=100) for name in self.running()})

    def settle(self, count: int) -> None:
        """Wait until so many workers run, and let them join."""
        self.wait(lambda: len(self.running()) == count, f"{count} workers")
        self.join_all()
        self.elastic.turn(now_ms())

    def neighbours(self) -> tuple[str, set[str]]:
        """Return the node of the first worker, and the names of all that are there."""
        pods = self.pods()
        node = pods[min(self.running())]["spec"]["nodeName"]
        return node, {name for name, pod in pods.items() if pod["spec"]["nodeName"] == node}


MakeBench = Callable[..., Any]


@pytest.fixture
def bench(tmp_path: Path) -> MakeBench:
    @contextmanager
    def make(cluster: Cluster, *, token: str | None = None, **wanted: Any) -> Iterator[Bench]:
        kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig", token=token)
        given = {name: wanted.pop(name) for name in ("image", "template", "classes") if name in wanted}
        settings = KubernetesSettings(**{"image": "antinfer:1", "grace_s": 2, **given})
        launcher = KubernetesLauncher(Api.connect(str(kubeconfig)), settings, job="j1", master="127.0.0.1:1", creating_ms=CREATING_MS)
        launcher.open(lambda: None)
        around = Surroundings(
            look=lambda: made.job,
            post=lambda event: made.posted.append(event),
            fail=lambda error: made.failures.append(error),
            broken=lambda error: None,
            troubles=Troubles(),
        )
        place = open_place(str(tmp_path / "out"))
        desired = Desired(**{"prefix": "job-1", "policy": HASTY, **wanted})
        made = Bench(
            cluster,
            launcher,
            Elastic(launcher, desired, Account(time.time(), {}), around, lambda account: account.write(place)),
            troubles=around.troubles,
        )
        try:
            yield made
        finally:
            launcher.close()

    return make


def test_thirty_pods_deleted_at_once_are_replaced(bench: MakeBench) -> None:
    with Cluster([Node("n", cpu="64", pretend=True)]) as cluster, bench(cluster, least=30, most=30) as it:
        it.settle(30)
        first = it.running()
        calls = cluster.calls.of("create", "pods")
        assert Talk(cluster.url).delete("/api/v1/namespaces/default/pods").code == 200
        it.job = replace(it.job, workers={})
        begun = time.monotonic()
        it.wait(lambda: len(it.running() - first) == 30, "thirty others")
        seconds = time.monotonic() - begun
        print(f"thirty replaced after {seconds:.2f} s")
        assert seconds < 10
        assert cluster.calls.of("create", "pods") - calls == 30
        assert not it.failures


def test_pods_are_created_side_by_side(bench: MakeBench) -> None:
    with Cluster([Node("n", cpu="64", pretend=True)]) as cluster, bench(cluster, least=8, most=8) as it:
        fault = cluster.inject("create", "pods", together=threading.Barrier(8, timeout=10), times=8)
        it.settle(8)
        assert fault.fired == 8
        assert cluster.calls.of("create", "pods") == 8, "none of them waited in vain for the others"


def test_pods_are_as_restricted_as_can_be_and_go_with_their_owner(bench: MakeBench) -> None:
    overrides = {"spec": {"containers": [{"name": "worker", "resources": {"limits": {"cpu": "1"}}}], "nodeSelector": {"pool": "spot"}}}
    with (
        Cluster([Node("n", labels={"pool": "spot"}, pretend=True)]) as cluster,
        bench(cluster, template=overrides, least=1, most=1) as it,
    ):
        it.wait(lambda: it.running() == {"job-1-1"}, "a worker")
        spec = it.pods()["job-1-1"]["spec"]
        (worker,) = spec["containers"]
        assert worker["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"]
        assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"], spec["nodeSelector"]) == ("Never", 2, {"pool": "spot"})
        assert worker["resources"]["limits"]["cpu"] == "1" and worker["args"][-4:] == ["--name", "job-1-1", "--grace", "1"]


def test_the_share_that_is_protected_is_on_nodes_that_stay(bench: MakeBench) -> None:
    nodes = [Node(pool, cpu="64", labels={"pool": pool}, pretend=True) for pool in ("on-demand", "spot")]
    classes = {name: {"spec": {"nodeSelector": {"pool": pool}}} for name, pool in ((PROTECTED, "on-demand"), (PREEMPTIBLE, "spot"))}
    with Cluster(nodes) as cluster, bench(cluster, classes=classes, least=7, most=7, on_demand=0.6) as it:
        it.settle(7)
        assert Counter(pod["spec"]["nodeName"] for pod in it.pods().values()) == {"on-demand": 5, "spot": 2}
        assert Talk(cluster.url).delete(PATH, labelSelector=f"{CLASS_LABEL}={PREEMPTIBLE}").code == 200
        it.settle(7)
        assert Counter(pod["spec"]["nodeName"] for pod in it.pods().values()) == {"on-demand": 5, "spot": 2}


def test_an_image_that_cannot_be_pulled_fails_the_job_with_the_words_of_the_kubelet(bench: MakeBench) -> None:
    with Cluster([Node("n")]) as cluster, bench(cluster, image="nowhere:1") as it:
        cluster.images.bad["nowhere*"] = "manifest for nowhere:1 not found: manifest unknown"
        it.wait(lambda: it.failures, "the end of the job")
        assert "manifest for nowhere:1 not found: manifest unknown" in str(it.failures[0])
        assert "Check the name of the image" in it.failures[0].hint
        assert [event.cause for event in it.interruptions()] == [Cause.IMAGE_ERROR]
        assert "manifest unknown" in it.interruptions()[0].detail or "Pull" in it.interruptions()[0].detail
        it.elastic.clear()
        cluster.wait(lambda: not it.pods(), "the pods to go")


def mounting(volume: dict[str, Any]) -> dict[str, Any]:
    """What is laid over a worker that does nothing but mount a volume."""
    worker = {"name": "worker", "command": ["sleep"], "args": ["60"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    return {"spec": {"containers": [worker], "volumes": [{"name": "v", **volume}]}}


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        ({"secret": {"secretName": "nope"}}, 'FailedMount: MountVolume.SetUp failed for volume "v" : secret "nope" not found'),
        ({"configMap": {"name": "nope"}}, 'FailedMount: MountVolume.SetUp failed for volume "v" : configmap "nope" not found'),
    ],
    ids=["secret", "config map"],
)
def test_a_volume_that_is_not_there_fails_the_job_with_its_kubelets_words(bench: MakeBench, volume: dict[str, Any], told: str) -> None:
    with Cluster([Node("n")]) as cluster:
        token = limited(cluster, master_rules("job"))
        with bench(cluster, token=token, template=mounting(volume)) as it:
            it.wait(lambda: it.failures, "the end of the job")
            assert told in str(it.failures[0])
            assert told in it.troubles.text
            assert "what the preemptible workers are made from" in it.failures[0].hint


def test_a_volume_that_comes_late_is_waited_for(bench: MakeBench) -> None:
    patient = replace(HASTY, config_patience_ms=60_000)
    with Cluster([Node("n")]) as cluster, bench(cluster, template=mounting({"secret": {"secretName": "late"}}), policy=patient) as it:
        it.wait(lambda: 'secret "late" not found' in it.troubles.text, "to be told")
        Talk(cluster.url).create("/api/v1/namespaces/default/secrets", {"metadata": {"name": "late"}, "stringData": {"a": "b"}})
        it.wait(lambda: it.running() == {"job-1-1"}, "the worker")
        assert not it.failures


def test_a_node_without_a_network_is_told_and_waited_for(bench: MakeBench) -> None:
    with Cluster([Node("n", pretend=True)]) as cluster:
        cluster.break_network("n", "cni plugin not initialized")
        token = limited(cluster, master_rules("job"))
        with bench(cluster, token=token) as it:
            it.wait(lambda: "cni plugin not initialized" in it.troubles.text, "to be told")
            assert "preemptible workers cannot start: FailedCreatePodSandBox: Failed to create pod sandbox: " in it.troubles.text
            assert [event.cause for event in it.interruptions()] == [Cause.NODE_REFUSED]
            until = time.monotonic() + 3 * HASTY.config_patience_ms / 1_000
            it.wait(lambda: it.failures or time.monotonic() > until, "what other obstacles would end the job after")
            assert not it.failures and set(it.pods()) == {"job-1-1"}, "that passes by itself"
            cluster.mend_network("n")
            it.wait(lambda: it.running() == {"job-1-1"}, "the worker")


def test_without_the_right_to_see_events_a_missing_volume_is_waited_for(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    rules = [rule for rule in master_rules("job") if rule["resources"] != ["events"]]
    with Cluster([Node("n")]) as cluster, caplog.at_level("INFO", "antinfer.launchers.kubernetes"):
        token, policy = limited(cluster, rules), replace(HASTY, start_patience_ms=2_000)
        with bench(cluster, token=token, template=mounting({"secret": {"secretName": "nope"}}), policy=policy) as it:
            it.wait(lambda: "job-1-2" in it.pods(), "another try, after the patience with those that do not start")
            assert cluster.calls.of("list", "events") == 1
            assert 'resources: ["events"], verbs: ["list"]' in caplog.text
            assert not it.failures


@pytest.mark.parametrize("verb", ["create", "list"])
def test_a_right_that_is_missing_is_named(bench: MakeBench, verb: str) -> None:
    with Cluster([Node("n")]) as cluster:
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": sorted({"create", "list", "watch", "delete"} - {verb})}]
        token = limited(cluster, rules)
        with bench(cluster, token=token) as it:
            it.wait(lambda: it.failures, "the end of the job")
            right = f'the rule {{apiGroups: [""], resources: ["pods"], verbs: ["{verb}"]}} in a Role in namespace default'
            assert right in str(it.failures[0])
            assert not it.pods()


def test_a_pod_that_finds_no_place_is_told_with_the_words_of_the_scheduler(bench: MakeBench) -> None:
    template = {"spec": {"nodeSelector": {"pool": "other"}}}
    with Cluster([Node("n", labels={"pool": "spot"})]) as cluster, bench(cluster, template=template) as it:
        it.wait(lambda: it.troubles.text, "to be told")
        assert "1 of 1 workers wait for a place: 0/1 nodes are available" in it.troubles.text
        assert not it.failures


def test_a_quota_that_is_used_up_is_told_and_waited_for(bench: MakeBench) -> None:
    template = {"spec": {"containers": [{"name": "worker", "resources": {"requests": {"cpu": "1"}}}]}}
    with Cluster([Node("n", cpu="64", pretend=True)]) as cluster, bench(cluster, template=template, least=3, most=3) as it:
        talk, quotas = Talk(cluster.url), "/api/v1/namespaces/default/resourcequotas"
        talk.create(quotas, {"metadata": {"name": "few"}, "spec": {"hard": {"requests.cpu": "2"}}})
        it.wait(lambda: len(it.running()) == 2, "as many as the quota allows")
        it.join_all()
        it.wait(lambda: "exceeded quota: few, requested: requests.cpu=1, used: requests.cpu=2" in it.troubles.text, "to be told")
        assert {event.cause for event in it.interruptions()} == {Cause.NO_CAPACITY}
        assert not it.failures
        assert talk.patch(f"{quotas}/few", {"spec": {"hard": {"requests.cpu": "3"}}}).code == 200
        it.wait(lambda: len(it.running()) == 3, "the third")
        it.join_all()
        it.wait(lambda: not it.troubles.text, "nothing to be told any more")
        assert not it.failures


def test_a_quota_that_wants_to_be_told_limits_fails_the_job_with_its_words(bench: MakeBench) -> None:
    with Cluster([Node("n", cpu="64", pretend=True)]) as cluster, bench(cluster) as it:
        Talk(cluster.url).create(
            "/api/v1/namespaces/default/resourcequotas", {"metadata": {"name": "compute"}, "spec": {"hard": {"limits.cpu": "8"}}}
        )
        it.wait(lambda: it.failures, "the end of the job")
        assert "failed quota: compute: must specify limits.cpu for: worker" in str(it.failures[0])


def test_nothing_is_missed_when_watches_break_and_the_server_forgets(bench: MakeBench) -> None:
    with Cluster([Node("n", cpu="64", pretend=True)]) as cluster, bench(cluster, least=3, most=3) as it:
        it.wait(lambda: len(it.running()) == 3, "three workers")
        it.join_all()
        for _ in range(3):
            first = it.running()
            cluster.compact()
            cluster.cut_watches()
            cluster.registry.delete(PODS, "default", min(first))
            it.job = replace(it.job, workers={name: each for name, each in it.job.workers.items() if name != min(first)})
            it.wait(lambda first=first: len(it.running() - {min(first)}) == 3, "another worker")
            it.join_all()
        assert not it.failures


@pytest.mark.parametrize("status", [429, 500])
def test_a_server_that_has_too_much_to_do_is_left_alone_for_a_while(bench: MakeBench, status: int) -> None:
    with Cluster([Node("n", cpu="64", pretend=True)]) as cluster, bench(cluster, least=2, most=2) as it:
        fault = cluster.inject("create", "pods", status=status, retry_after_s=1, times=2)
        begun = time.monotonic()
        it.wait(lambda: len(it.running()) == 2, "two workers")
        assert fault.fired == 2
        assert time.monotonic() - begun >= 1
        assert cluster.calls.of("create", "pods") == 4
        assert not it.failures


@pytest.mark.parametrize("verb", ["list", "watch", "create", "delete"])
def test_a_server_that_fails_is_asked_again_and_no_work_is_lost(bench: MakeBench, verb: str) -> None:
    with Cluster([Node("n", cpu="64", pretend=True)]) as cluster:
        fault = cluster.inject(verb, "pods", status=500, times=2)
        with bench(cluster, least=2, most=2) as it:
            it.settle(2)
            first = it.running()
            cluster.finish(min(first), 75)
            it.job = replace(it.job, workers={name: each for name, each in it.job.workers.items() if name != min(first)})
            it.wait(lambda: min(first) not in it.pods() and len(it.running()) == 2, "another worker, and the object of the first to go")
            assert fault.fired == 2
            assert not it.failures


def test_nothing_is_asked_while_nothing_changes(bench: MakeBench) -> None:
    with Cluster([Node("n", cpu="64", pretend=True)]) as cluster, bench(cluster, least=2, most=2) as it:
        it.settle(2)
        verbs = ("create", "list", "watch", "get", "delete", "patch", "update")
        before = [cluster.calls.of(verb, "pods") for verb in verbs]
        for _ in range(50):
            it.elastic.turn(now_ms())
        assert [cluster.calls.of(verb, "pods") for verb in verbs] == before


@pytest.mark.parametrize("is_limited", [False, True], ids=["sees nodes", "rights of submit"])
def test_a_node_that_is_lost_gives_its_workers_up_at_once(bench: MakeBench, caplog: pytest.LogCaptureFixture, is_limited: bool) -> None:
    nodes = [Node("n1", cpu="64", pretend=True), Node("n2", cpu="64", pretend=True)]
    # Nobody deletes the pods of the lost node: that it does not answer is all that there is to see.
    with Cluster(nodes, timing=Timing(no_execute_delay=100_000)) as cluster:
        token = limited(cluster, master_rules("job")) if is_limited else None
        with bench(cluster, token=token, least=4, most=4) as it, caplog.at_level("INFO", "antinfer.master.controller"):
            it.settle(4)
            node, on_lost = it.neighbours()
            cluster.lose_node(node)
            it.job = replace(it.job, workers={name: each for name, each in it.job.workers.items() if name not in on_lost})
            it.wait(lambda: len(it.running() - on_lost) == 4, "others on the other node")
            causes = {record.worker: record.cause for record in caplog.records if getattr(record, "action", "") == "delete_worker"}
            assert causes == dict.fromkeys(on_lost, "node_lost")
            assert not it.failures


def test_a_node_that_is_about_to_go_is_left_by_its_workers_before_it_goes(bench: MakeBench) -> None:
    nodes = [Node("n1", cpu="64", pretend=True), Node("n2", cpu="64", pretend=True)]
    with Cluster(nodes) as cluster, bench(cluster, least=4, most=4) as it:
        it.settle(4)
        node, there = it.neighbours()
        cluster.taint_node(node, "aws-node-termination-handler/spot-itn", "NoSchedule")
        it.wait(lambda: len(it.running() - there) == 4, "others on the other node")
        assert there <= it.running(), "who leaves has been asked by its master, and has not left yet"
        assert [make(0).cause for make in it.posted] == [Cause.PREEMPTED] * len(there)
        assert not it.failures


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"deadline_at": now_ms() + 36_000_000}, "after its deadline even with the 2 workers that it may have"),
        ({"allowance": Allowance(gpu_hours=1.0)}, "of budget.gpu_hours, which allows 1"),
    ],
    ids=["deadline", "budget"],
)
def test_what_cannot_be_kept_is_told_by_the_status_and_taken_back(bench: MakeBench, wanted: dict[str, Any], told: str) -> None:
    with Cluster([Node("n", pretend=True)]) as cluster, bench(cluster, least=2, most=2, started_at=now_ms(), **wanted) as it:
        it.settle(2)
        measured_at = now_ms() + 10_000
        for at, rows in ((now_ms(), 0), (measured_at, 100)):
            it.job = replace(it.job, workers={name: replace(each, computed_rows=rows) for name, each in it.job.workers.items()})
            it.elastic.turn(at)
        assert told in it.troubles.text
        it.job = replace(it.job, remaining_rows=10)
        it.elastic.turn(measured_at + 1_000)
        assert it.troubles.text == ""
        assert not it.failures


def test_workers_that_are_given_back_are_remembered_by_the_next_reign(bench: MakeBench, tmp_path: Path) -> None:
    with Cluster([Node("n", cpu="64", pretend=True)]) as cluster, bench(cluster, least=1, most=4) as it:
        it.wait(lambda: len(it.running()) == 4, "four workers")
        for rows, name in enumerate(sorted(it.running())):
            it.job = replace(it.job, workers={**it.job.workers, name: WorkerSight(leases=1, uncommitted_rows=rows)})
        it.elastic.turn(now_ms())
        given = asyncio.run(it.elastic.give_back(GiveBack("owner", 2)))
        assert given == GivenBack(2, ("job-1-1", "job-1-2")), "those with the least uncommitted work"
        assert asyncio.run(it.elastic.give_back(GiveBack("owner", 2))).leaving == (), "the same request"
        account = Account.open(open_place(str(tmp_path / "out")))
        assert account.given_back == (GiveBack("owner", 2, had=4),)
        asyncio.run(it.elastic.release())
        assert Account.open(open_place(str(tmp_path / "out"))).given_back == ()


def test_the_pod_of_the_master_is_no_worker(bench: MakeBench) -> None:
    with Cluster([Node("n", cpu="64", pretend=True)]) as cluster, bench(cluster, least=2, most=2) as it:
        labels = {"antinfer.io/job": "j1", "app.kubernetes.io/component": "master"}
        Talk(cluster.url).create(PATH, pod_of(shell("sleep 60"), name="master", labels=labels))
        it.wait(lambda: "master" in it.pods() and len(it.running()) == 2, "two workers beside the master")
        for _ in range(20):
            it.elastic.turn(now_ms())
        assert set(it.pods()) == {"master", "job-1-1", "job-1-2"}
