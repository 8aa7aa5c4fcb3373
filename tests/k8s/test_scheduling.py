"""Where pods go, why they wait, and whom they push aside."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from tests.k8s.double import quantities
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import condition_of
from tests.k8s.double.scheduling import Bound, Waits, place, rooms_of
from tests.k8s.scenes import history, phase, pod_of, reason, wait_for_phase
from tests.k8s.talk import PODS, Talk

PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"


def node(name: str, **more: Any) -> dict[str, Any]:
    made = Node(name, **more).to_object()
    made["status"]["allocatable"] = made["status"]["capacity"]
    return made


def pod(name: str, cpu: str = "1", *, on: str = "", priority: int = 0, gpus: int = 0, **spec: Any) -> dict[str, Any]:
    requests = {"cpu": cpu, **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    spec = {"containers": [{"name": "main", "resources": {"requests": requests}}], "priority": priority, **spec}
    return {"metadata": {"name": name, "uid": name}, "spec": {**spec, **({"nodeName": on} if on else {})}, "status": {}}


def test_the_node_with_most_room_is_taken() -> None:
    rooms = rooms_of([node("a", cpu="4"), node("b", cpu="4")], [pod("old", "2", on="a")])
    assert place(pod("new"), rooms) == Bound("b")


def test_what_has_finished_takes_no_room() -> None:
    done = pod("old", "4", on="a")
    done["status"]["phase"] = "Succeeded"
    assert place(pod("new", "4"), rooms_of([node("a", cpu="4")], [done])) == Bound("a")


def test_without_nodes_there_is_nothing_to_say() -> None:
    assert place(pod("p"), {}) == Waits("no nodes available to schedule pods")


def test_each_node_gives_its_reason() -> None:
    spot = ({"key": "spot", "effect": "NoSchedule", "value": "yes"},)
    rooms = rooms_of([node("full", cpu="1"), node("spot", taints=spot), node("other"), node("gpuless", labels={"zone": "a"})], [])
    rooms["full"].node["metadata"]["labels"]["zone"] = "a"

    decision = place(pod("p", "2", gpus=1, nodeSelector={"zone": "a"}), rooms)

    assert decision == Waits(
        "0/4 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint {spot: yes}, 2 Insufficient nvidia.com/gpu. "
        "preemption: 0/4 nodes are available: 2 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
    )


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"key": "spot", "operator": "Exists"}, True),
        ({"key": "spot", "value": "yes", "effect": "NoSchedule"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "spot", "value": "no"}, False),
        ({"key": "spot", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_tolerations(toleration: dict[str, str], fits: bool) -> None:
    rooms = rooms_of([node("a", taints=({"key": "spot", "effect": "NoSchedule", "value": "yes"},))], [])
    assert isinstance(place(pod("p", tolerations=[toleration]), rooms), Bound) is fits


def test_required_affinity() -> None:
    term = {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    rooms = rooms_of([node("a", labels={"zone": "a"}), node("b", labels={"zone": "b"}, cpu="1")], [])
    assert place(pod("p", affinity=affinity), rooms) == Bound("b")


def test_the_fewest_and_least_important_are_preempted() -> None:
    pods = [pod("a1", "2", on="a", priority=5), pod("a2", "2", on="a", priority=1), pod("b1", "4", on="b", priority=3)]
    decision = place(pod("new", "2", priority=9), rooms_of([node("a", cpu="4"), node("b", cpu="4")], pods))
    assert isinstance(decision, Waits)
    assert (decision.node, [each["metadata"]["name"] for each in decision.victims]) == ("a", ["a2"])
    timid = place(pod("new", "2", priority=9, preemptionPolicy="Never"), rooms_of([node("a", cpu="4")], pods[:2]))
    assert isinstance(timid, Waits) and not timid.victims


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", Fraction(1, 2)), ("2Gi", 2 * 1024**3), ("1e3", 1000), ("1.5", Fraction(3, 2)), ("3k", 3000), ("100n", Fraction(1, 10**7))],
)
def test_quantities(text: str, number: int) -> None:
    assert quantities.parse(text) == number


@pytest.mark.parametrize("text", ["", "1x", "Gi", "1 Gi", "--1"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        quantities.parse(text)


def wanting(name: str, cpu: str, **spec: Any) -> dict[str, Any]:
    return pod_of({"name": "main", "image": "i", "resources": {"requests": {"cpu": cpu}}}, name=name, **spec)


def test_a_pod_that_fits_nowhere_says_so_and_goes_where_room_appears() -> None:
    with Cluster([Node("small", cpu="1", pretend=True)]) as cluster:
        talk = Talk(cluster.url)
        talk.create(PODS, wanting("p", "2"))
        cluster.wait(lambda: reason(cluster.pod("p"), "PodScheduled") == "Unschedulable", "the condition")
        told = condition_of(cluster.pod("p") or {}, "PodScheduled")
        assert told is not None and told["status"] == "False"
        assert told["message"].startswith(
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption"
        )
        events = talk.get("/api/v1/namespaces/default/events")["items"]
        assert [each["reason"] for each in events] == ["FailedScheduling"]

        cluster.add_node(Node("large", cpu="4", pretend=True))

        assert wait_for_phase(cluster, "Running")["spec"]["nodeName"] == "large"


def test_the_important_take_the_place_of_others() -> None:
    with Cluster([Node("n", cpu="2", pretend=True)]) as cluster:
        talk = Talk(cluster.url)
        talk.create(PRIORITIES, {"metadata": {"name": "high"}, "value": 1000})
        version = talk.create(PODS, wanting("low", "2"))["metadata"]["resourceVersion"]
        wait_for_phase(cluster, "Running", "low")

        talk.create(PODS, wanting("urgent", "2", priorityClassName="high"))

        wait_for_phase(cluster, "Running", "urgent")
        cluster.wait(lambda: phase(cluster, "low") == "", "the victim to go")
        told = [(reason(each), "deletionTimestamp" in each["metadata"]) for each in history(cluster, version, "low")]
        assert told.index(("PreemptionByScheduler", False)) < told.index(("PreemptionByScheduler", True))
