"""When a pod that is being made is asked about, and what its events mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from antinfer.core.causes import Cause
from antinfer.core.scaling import obstacles
from antinfer.core.scaling.facts import ContainerFacts, EventFacts, PodFacts
from antinfer.core.scaling.values import Obstacle, Severity
from antinfer.launchers.kubernetes.api import Api
from antinfer.launchers.kubernetes.complaints import Complaints, complaint_in

MADE = PodFacts("w-1", "preemptible", 0, uid="u", node="n", containers=(ContainerFacts("worker", waiting="ContainerCreating"),))


def event(reason: str, message: str = "", at: int = 0, kind: str = "Warning") -> dict[str, Any]:
    return {"type": kind, "reason": reason, "message": message, "lastTimestamp": f"2026-01-01T00:00:{at:02}Z"}


MISSING = event("FailedMount", 'MountVolume.SetUp failed for volume "v" : secret "nope" not found', 3)
TIMED_OUT = event("FailedMount", "Unable to attach or mount volumes: timed out waiting for the condition", 9)
ATTACHED = event("FailedAttachVolume", "Multi-Attach error")
NO_NETWORK = event("FailedCreatePodSandBox", "Failed to create pod sandbox: rpc error: failed to setup network", 7)


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([], None),
        ([event("Scheduled", kind="Normal"), MISSING], MISSING),
        ([event("FailedMount", "earlier", 1), MISSING, event("FailedMount", "between", 2)], MISSING),
        ([TIMED_OUT, MISSING], MISSING),
        ([TIMED_OUT], TIMED_OUT),
        ([ATTACHED], ATTACHED),
        ([MISSING, event("Pulling", at=4, kind="Normal")], None),
        ([MISSING, NO_NETWORK], NO_NETWORK),
        ([NO_NETWORK, event("Pulled", at=8, kind="Normal")], None),
        ([event("FailedScheduling", "0/3 nodes are available"), event("BackOff", "Back-off pulling image")], None),
    ],
    ids=[
        "none",
        "missing",
        "the latest",
        "what says more",
        "all there is",
        "attach",
        "it was there later",
        "no network after volumes",
        "there was one later",
        "others",
    ],
)
def test_what_events_say_keeps_a_pod_from_being_made(events: list[dict[str, Any]], complaint: dict[str, Any] | None) -> None:
    assert complaint_in(events) == (None if complaint is None else EventFacts(complaint["reason"], complaint["message"]))


@pytest.mark.parametrize(
    ("changes", "is_being_made"),
    [
        ({}, True),
        ({"containers": ()}, True),
        ({"containers": (ContainerFacts("worker", waiting="PodInitializing"),)}, True),
        ({"containers": (ContainerFacts("worker", waiting="ErrImagePull"),)}, False),
        ({"containers": (ContainerFacts("worker", exit_code=1),)}, False),
        ({"node": ""}, False),
        ({"phase": "Running"}, False),
        ({"is_deleting": True}, False),
    ],
)
def test_which_pods_are_being_made(changes: dict[str, Any], is_being_made: bool) -> None:
    assert replace(MADE, **changes).is_being_made is is_being_made


def test_a_pod_is_asked_about_after_a_while_and_ever_more_seldom() -> None:
    asked = Complaints(api=Api, namespace="default")  # type: ignore[arg-type]  # nobody is asked
    times = [now for now in range(0, 200_000, 500) if asked.due([MADE], now)]
    assert times == [10_000, 20_000, 40_000, 80_000, 160_000]
    assert asked.due([replace(MADE, phase="Running")], 200_000) == []
    assert [now for now in range(200_500, 215_000, 500) if asked.due([MADE], now)] == [210_500], "it is another one"


def test_a_thousand_pods_are_asked_about_a_few_at_a_time_who_waits_longest_first() -> None:
    asked = Complaints(api=Api, namespace="default")  # type: ignore[arg-type]  # nobody is asked
    crowd = [replace(MADE, name=f"w-{n}") for n in range(1_000)]
    assert asked.due(crowd[:7], 0) == []
    assert asked.due(crowd, 1_000) == []
    rounds = {now: [pod.name for pod in found] for now in range(10_000, 14_000, 250) if (found := asked.due(crowd, now))}
    assert list(rounds) == [10_000, 11_000, 12_000, 13_000]
    assert all(len(names) <= 5 for names in rounds.values())
    assert {*rounds[10_000], *rounds[11_000][:2]} == {f"w-{n}" for n in range(7)}


@pytest.mark.parametrize(
    ("reason", "cause", "severity"),
    [
        ("FailedMount", Cause.CONFIG_ERROR, Severity.MISSING_CONFIG),
        ("FailedAttachVolume", Cause.CONFIG_ERROR, Severity.MISSING_CONFIG),
        ("FailedCreatePodSandBox", Cause.NODE_REFUSED, Severity.WAITING),
    ],
)
def test_a_complaint_is_an_obstacle_that_may_pass(reason: str, cause: Cause, severity: Severity) -> None:
    found = obstacles.of(replace(MADE, complaint=EventFacts(reason, "gone")))
    assert found == Obstacle(cause, severity, f"{reason}: gone")
