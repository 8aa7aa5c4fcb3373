"""Nodes that fall silent, come back, are tainted, go out of service, or vanish, and what their pods go through."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import Object, condition_of, dig, is_terminating
from tests.k8s.double.timing import Timing
from tests.k8s.scenes import handler, history, phase, pod_of, reason, shell, state, wait_for_phase, wait_for_word
from tests.k8s.talk import PODS, Talk


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster([Node("n1", labels={"is": "n1"}), Node("n2")], timing=Timing(scale=0.003)) as cluster:
        yield cluster


def node_of(cluster: Cluster, name: str = "n1") -> Object:
    return Talk(cluster.url).get(f"/api/v1/nodes/{name}")


def start(cluster: Cluster, talk: Talk, **spec: object) -> str:
    """Run a pod that heeds SIGTERM on n1. Returns its first version."""
    version = talk.create(PODS, pod_of(handler(), nodeSelector={"is": "n1"}, **spec))["metadata"]["resourceVersion"]
    wait_for_word(cluster, "ready")
    wait_for_phase(cluster, "Running")
    return str(version)


def tolerating(seconds: int) -> list[dict[str, object]]:
    """What lets a pod stay on a lost node for so long."""
    return [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]


def let_pass(cluster: Cluster, seconds: float) -> None:
    """Wait until everything that is due within so many seconds of a real cluster's time would have happened."""
    end = time.monotonic() + cluster.timing.of(seconds)
    cluster.wait(lambda: time.monotonic() > end, "the time to pass")


def wait_until_stuck(cluster: Cluster) -> Object:
    """Wait until the pod of a lost node is terminating, which it stays."""
    cluster.wait(lambda: is_terminating(cluster.pod("p") or {"metadata": {}}), "the pod to be deleted")
    found = cluster.pod("p")
    assert found is not None
    return found


def test_a_lost_node_leaves_its_pods_terminating_and_running_until_it_heals(cluster: Cluster, talk: Talk) -> None:
    version = start(cluster, talk)
    process = cluster.process_id("p")

    cluster.lose_node("n1")
    stuck = wait_until_stuck(cluster)

    ready = condition_of(node_of(cluster), "Ready")
    assert ready is not None and (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
    taints = [(each["key"], each["effect"]) for each in node_of(cluster)["spec"]["taints"]]
    assert taints == [("node.kubernetes.io/unreachable", "NoSchedule"), ("node.kubernetes.io/unreachable", "NoExecute")]
    assert (stuck["status"]["phase"], reason(stuck)) == ("Running", "DeletionByTaintManager")
    assert dig(condition_of(stuck, "Ready"), "status") == "False"
    assert phase(cluster) == "Running" and os.path.exists(f"/proc/{process}"), "the old worker is alive"

    cluster.heal_node("n1")

    cluster.wait(lambda: cluster.pod("p") is None, "the pod to go when the node is heard again")
    told = [(reason(each) != "", "deletionTimestamp" in each["metadata"]) for each in history(cluster, version)]
    assert told.index((True, False)) < told.index((True, True)), "the condition comes in an event before the deletion"
    assert not os.path.exists(f"/proc/{process}")
    assert "taints" not in node_of(cluster)["spec"]


def test_a_node_that_is_heard_again_in_time_keeps_its_pods(cluster: Cluster, talk: Talk) -> None:
    start(cluster, talk, tolerations=tolerating(100))
    cluster.lose_node("n1")
    cluster.wait(lambda: len(node_of(cluster)["spec"].get("taints", [])) == 2, "the taints")
    cluster.heal_node("n1")
    cluster.wait(lambda: "taints" not in node_of(cluster)["spec"], "the taints to go")
    let_pass(cluster, 200)
    cluster.lose_node("n1")
    cluster.wait(lambda: len(node_of(cluster)["spec"].get("taints", [])) == 2, "the taints again")
    let_pass(cluster, 20)
    assert not is_terminating(cluster.pod("p") or {"metadata": {"deletionTimestamp": "gone"}})


def test_a_lost_node_out_of_service_gives_its_pods_up(cluster: Cluster, talk: Talk) -> None:
    version = start(cluster, talk)
    cluster.lose_node("n1", power=False)
    wait_until_stuck(cluster)

    cluster.taint_node("n1", "node.kubernetes.io/out-of-service", "NoExecute", "nodeshutdown")

    cluster.wait(lambda: cluster.pod("p") is None, "the pod to be collected")
    told = history(cluster, version)
    assert [each["status"]["phase"] for each in told[-3:]] == ["Running", "Failed", "Failed"], "it fails in one event and goes in the next"


def test_a_lost_power_is_found_when_the_node_comes_back(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of(shell("echo ready; exec sleep 1000"), nodeSelector={"is": "n1"}))
    wait_for_word(cluster, "ready")
    cluster.lose_node("n1", power=False)
    cluster.heal_node("n1")
    assert state(wait_for_phase(cluster, "Failed"))["terminated"]["exitCode"] == 137


def test_the_pods_of_a_deleted_node_are_collected(cluster: Cluster, talk: Talk) -> None:
    version = start(cluster, talk)
    process = cluster.process_id("p")

    cluster.delete_node("n1")

    assert not os.path.exists(f"/proc/{process}")
    assert phase(cluster) == "Running", "nobody knows yet"
    cluster.wait(lambda: cluster.pod("p") is None, "the pod to be collected")
    told = history(cluster, version)
    last = [(each["status"]["phase"], reason(each)) for each in told[-3:]]
    assert last == [("Running", ""), ("Failed", "DeletionByPodGC"), ("Failed", "DeletionByPodGC")]


def test_a_no_execute_taint_evicts_after_what_is_tolerated(cluster: Cluster, talk: Talk) -> None:
    patient = [{"key": "leave", "operator": "Exists", "effect": "NoExecute"}]
    start(cluster, talk, tolerations=patient)
    talk.create(PODS, pod_of(handler(), name="q", nodeSelector={"is": "n1"}))
    wait_for_word(cluster, "ready", "q")

    cluster.taint_node("n1", "leave", "NoExecute")

    cluster.wait(lambda: cluster.pod("q") is None, "the other pod to go")
    assert not is_terminating(cluster.pod("p") or {"metadata": {"deletionTimestamp": "gone"}})


def test_when_all_nodes_are_lost_nobody_is_evicted(cluster: Cluster, talk: Talk) -> None:
    start(cluster, talk, tolerations=tolerating(0))
    for name in ("n1", "n2"):
        cluster.lose_node(name)

    def both_unknown() -> bool:
        return all(dig(condition_of(node_of(cluster, name), "Ready"), "status") == "Unknown" for name in ("n1", "n2"))

    cluster.wait(both_unknown, "both to be unknown")
    let_pass(cluster, 100)
    effects = {each["effect"] for name in ("n1", "n2") for each in node_of(cluster, name)["spec"]["taints"]}
    assert effects == {"NoSchedule"}
    assert not is_terminating(cluster.pod("p") or {"metadata": {"deletionTimestamp": "gone"}})


def test_evicted_and_preempted_pods_get_their_condition_before_their_end(cluster: Cluster, talk: Talk) -> None:
    for act, wanted in ((cluster.evict, "EvictionByEvictionAPI"), (cluster.preempt, "PreemptionByScheduler")):
        version = start(cluster, talk)
        act("p")
        cluster.wait(lambda: cluster.pod("p") is None, "the pod to go")
        told = [(reason(each), "deletionTimestamp" in each["metadata"]) for each in history(cluster, version)]
        assert told.index((wanted, False)) < told.index((wanted, True))


def test_a_shutdown_of_a_machine_ends_its_pods_with_grace(cluster: Cluster, talk: Talk) -> None:
    start(cluster, talk)
    cluster.shut_node_down("n1")
    failed = wait_for_phase(cluster, "Failed")
    assert (reason(failed), failed["status"]["reason"]) == ("TerminationByKubelet", "Terminated")
    assert state(failed)["terminated"]["exitCode"] == 0


def test_a_lost_nodes_logs_cannot_be_read(cluster: Cluster, talk: Talk) -> None:
    start(cluster, talk)
    cluster.lose_node("n1")
    assert talk.ask("GET", f"{PODS}/p/log").code == 500
