"""Many pods at once, on nodes that only pretend: what a controller of a large job needs of the double."""

from __future__ import annotations

import time

import pytest

from tests.k8s.double import kinds
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.kubelet.starting import IGNORES_TERM
from tests.k8s.double.nodes import Node
from tests.k8s.scenes import history, phase, reason, state, wait_for_phase
from tests.k8s.talk import PODS, Talk, pod


def running(cluster: Cluster) -> int:
    return sum(1 for each in cluster.store.each(kinds.PODS) if each["status"]["phase"] == "Running")


def test_pretended_containers_end_as_they_are_told() -> None:
    with Cluster([Node("n", pretend=True)]) as cluster:
        talk = Talk(cluster.url)
        for name in ("good", "bad", "told", "deaf"):
            made = pod(name, restartPolicy="Never", terminationGracePeriodSeconds=1)
            if name == "deaf":
                made["metadata"]["annotations"] = {IGNORES_TERM: "true"}
            talk.create(PODS, made)
            wait_for_phase(cluster, "Running", name)
        cluster.finish("good")
        cluster.finish("bad", 3)
        version = talk.get(PODS)["metadata"]["resourceVersion"]
        assert state(wait_for_phase(cluster, "Failed", "bad"))["terminated"]["exitCode"] == 3
        wait_for_phase(cluster, "Succeeded", "good")
        for name, code in (("told", 143), ("deaf", 137)):
            cluster.evict(name)
            cluster.wait(lambda name=name: phase(cluster, name) == "", f"{name} to go")
            last = history(cluster, version, name)[-1]
            assert (state(last)["terminated"]["exitCode"], reason(last)) == (code, "EvictionByEvictionAPI")


@pytest.mark.slow
def test_a_thousand_pods_come_and_go() -> None:
    with Cluster([Node(f"n{number}", cpu="64", pods=40, pretend=True) for number in range(30)]) as cluster:
        talk = Talk(cluster.url)
        begun = time.monotonic()
        for _ in range(1000):
            talk.create(PODS, pod(restartPolicy="Never"))
        cluster.wait(lambda: running(cluster) == 1000, "all to run", seconds=60)
        came = time.monotonic() - begun
        assert talk.delete(PODS).code == 200
        cluster.wait(lambda: not list(cluster.store.each(kinds.PODS)), "all to go", seconds=60)
        print(f"1,000 pods: running after {came:.1f} s, gone after {time.monotonic() - begun - came:.1f} s more")
        assert cluster.calls.of("create", "pods") == 1000
