"""From what Ray says of actors and nodes to what the controller decides from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from antinfer.core.causes import Cause
from antinfer.core.scaling import endings, obstacles
from antinfer.core.scaling.facts import NodeState
from antinfer.core.scaling.pods import worker_seen
from antinfer.core.scaling.values import Severity, WorkerState
from antinfer.launchers.ray.facts import ActorFacts, Death, NodeFacts, could_hold, node_facts, node_state, pod_facts, why_waiting


def actor(**known: Any) -> ActorFacts:
    return ActorFacts(**{"name": "w-1", "worker_class": "preemptible", "created_at": 5, **known})


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (actor(), WorkerState.PENDING),
        (actor(waits="no node has started a worker"), WorkerState.PENDING),
        (actor(node="n1", node_state=NodeState.READY), WorkerState.STARTING),
        (actor(node="n1", node_state=NodeState.DOOMED), WorkerState.LEAVING),
        (actor(node="n1", node_state=NodeState.LOST), WorkerState.LOST),
        (actor(node="n1", is_leaving=True), WorkerState.LEAVING),
        (actor(node="n1", exit_code=0), WorkerState.ENDED),
        (actor(death=Death.KILLED), WorkerState.ENDED),
    ],
)
def test_each_actor_is_a_worker_in_one_state(facts: ActorFacts, state: WorkerState) -> None:
    assert worker_seen(pod_facts(facts), since=0).state is state


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        (actor(node="n1", exit_code=75), Cause.PREEMPTED),
        (actor(node="n1", exit_code=143), Cause.PREEMPTED),
        (actor(node="n1", exit_code=137), Cause.WORKER_KILLED),
        (actor(node="n1", exit_code=1), Cause.START_ERROR),
        (actor(node="n1", exit_code=0, is_leaving=True), Cause.DRAINED),
        (actor(node="n1", death=Death.PREEMPTED), Cause.PREEMPTED),
        (actor(node="n1", death=Death.NODE_LOST, node_state=NodeState.LOST), Cause.NODE_LOST),
        (actor(node="n1", death=Death.NODE_LOST, node_state=NodeState.DELETED), Cause.PREEMPTED),
        (actor(node="n1", death=Death.KILLED), Cause.WORKER_KILLED),
        (actor(node="n1", death=Death.OUT_OF_MEMORY), Cause.OUT_OF_MEMORY),
        (actor(death=Death.NOT_STARTED), Cause.START_ERROR),
    ],
)
def test_each_end_has_its_cause_and_its_words(facts: ActorFacts, cause: Cause) -> None:
    ending = endings.of(pod_facts(replace(facts, words="as it said")))

    assert ending is not None and ending.cause is cause
    assert "as it said" in ending.detail or cause is Cause.DRAINED


def test_who_waits_for_a_node_waits_and_does_not_fail() -> None:
    obstacle = obstacles.of(pod_facts(actor(waits="no node has started a worker")))

    assert obstacle is not None and obstacle.severity is Severity.WAITING
    assert obstacle.detail == "no node has started a worker"


@pytest.mark.parametrize("death", [None, *Death])
def test_facts_come_back_as_they_were_sent(death: Death | None) -> None:
    facts = actor(node="n1", node_state=NodeState.DOOMED, death=death, exit_code=3, words="x", memory_bytes=7)

    assert ActorFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


@pytest.mark.parametrize(
    ("said", "draining", "state"),
    [
        ({"Alive": True}, (), NodeState.READY),
        ({"Alive": True}, ("0123456789",), NodeState.DOOMED),
        ({"Alive": False, "DeathReason": 2}, (), NodeState.LOST),
        ({"Alive": False, "DeathReason": 1}, (), NodeState.DELETED),
        ({"Alive": False, "DeathReason": 3}, ("0123456789",), NodeState.DELETED),
    ],
)
def test_a_node_is_what_ray_says_of_it(said: dict[str, Any], draining: tuple[str, ...], state: NodeState) -> None:
    node = node_facts({"NodeID": "0123456789", "NodeManagerAddress": "10.0.0.7", "Resources": {"CPU": 2.0}, **said}, draining)

    assert node.name == "10.0.0.7/01234567"
    assert node_state(node) is state


def test_a_node_that_nobody_has_seen_yet_is_no_reason_for_anything() -> None:
    assert node_state(None) is NodeState.UNKNOWN


def node(*, is_alive: bool = True, is_draining: bool = False, **resources: float) -> NodeFacts:
    return NodeFacts("n", is_alive, is_draining, resources=resources)


def test_a_place_is_one_node_that_has_it_all() -> None:
    assert could_hold([node(CPU=8, GPU=1)], {"CPU": 8, "GPU": 1})
    assert not could_hold([node(CPU=8), node(GPU=1)], {"CPU": 8, "GPU": 1})
    assert not could_hold([node(CPU=8, is_alive=False), node(CPU=8, is_draining=True)], {"CPU": 1})


def test_it_is_said_what_is_asked_for_and_what_there_is() -> None:
    nodes = [node(CPU=4, memory=2**35), node(CPU=4, memory=2**34), node(CPU=16, GPU=1, spot=1), node(CPU=99, is_alive=False)]

    assert why_waiting(nodes, {"CPU": 4}).startswith("no node has started a worker that asks for 4 CPU so far")
    assert why_waiting(nodes, {"CPU": 8, "GPU": 2}) == (
        "no node has 8 CPU, 2 GPU, which a worker asks for; the cluster has 2 nodes with 4 CPU; one with 16 CPU, 1 GPU"
    )
    assert "one with 4 CPU, 32 GiB of memory; one with 4 CPU, 16 GiB of memory;" in why_waiting(nodes, {"memory": 2**40})
    assert why_waiting([], {"CPU": 1}).endswith("the cluster has no nodes")
