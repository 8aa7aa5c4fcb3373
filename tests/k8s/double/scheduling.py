"""Where a pod can run, why it cannot, and whom it may push aside. Decisions alone: values in, values out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from tests.k8s.double import nodes, quantities
from tests.k8s.double.objects import Object, dig, is_finished, is_terminating, name_of, uid_of
from tests.k8s.double.selectors import matches_expression

_NONE: Final = Fraction(0)


@dataclass
class Room:
    """A node with the pods that are on it."""

    node: Object
    pods: dict[str, Object] = field(default_factory=dict)
    used: dict[str, Fraction] = field(default_factory=dict)

    def add(self, pod: Object) -> None:
        """Count a pod that runs here; one that has finished takes no room."""
        self.pods[uid_of(pod)] = pod
        for name, amount in quantities.requests_of(pod["spec"]).items():
            self.used[name] = self.used[name] + amount if name in self.used else amount

    def free(self, name: str, without: Iterable[Object] = ()) -> Fraction:
        """What is left of a resource, were the pods `without` gone."""
        left = self.whole(name) - self.used.get(name, _NONE)
        for pod in without:
            left += quantities.requests_of(pod["spec"]).get(name, _NONE)
        return left

    def whole(self, name: str) -> Fraction:
        """What the node has of a resource."""
        return quantities.parse(dig(self.node, "status", "allocatable", name, default="0"))


@dataclass(frozen=True)
class Bound:
    """The pod goes to `node`."""

    node: str


@dataclass(frozen=True)
class Waits:
    """The pod fits nowhere. `victims` on `node`, when there are any, are to make room for it."""

    message: str
    node: str = ""
    victims: tuple[Object, ...] = ()


def rooms_of(all_nodes: Iterable[Object], pods: Iterable[Object]) -> dict[str, Room]:
    """The nodes by name, with what is on them."""
    rooms = {name_of(node): Room(node) for node in all_nodes}
    for pod in pods:
        where = pod["spec"].get("nodeName")
        if where in rooms and not is_finished(pod):
            rooms[where].add(pod)
    return rooms


def place(pod: Object, rooms: dict[str, Room]) -> Bound | Waits:
    """Decide on one pod: the node with most room left, or why there is none."""
    if not rooms:
        return Waits("no nodes available to schedule pods")
    wanted = quantities.requests_of(pod["spec"])
    against = {name: reasons_against(pod, room, wanted) for name, room in rooms.items()}
    fitting = [name for name, reasons in against.items() if not reasons]
    if fitting:
        return Bound(max(fitting, key=lambda name: (_left_over(rooms[name]), name)))
    counted = Counter(reason for reasons in against.values() for reason in reasons)
    head = f"0/{len(rooms)} nodes are available: {_listed(counted)}."
    choice = _preemption(pod, rooms)
    if choice is not None:
        return Waits(head, *choice)
    helpless = sum(1 for room in rooms.values() if fixed_reasons(pod, room.node))
    outcome = Counter({"No preemption victims found for incoming pod": len(rooms) - helpless})
    outcome["Preemption is not helpful for scheduling"] = helpless
    return Waits(f"{head} preemption: 0/{len(rooms)} nodes are available: {_listed(+outcome)}.")


def _listed(counted: Counter[str]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in counted.items()))


def _left_over(room: Room) -> Fraction:
    """The share of cpu that is free: pods are spread."""
    whole = room.whole("cpu")
    return room.free("cpu") / whole if whole else _NONE


def reasons_against(pod: Object, room: Room, wanted: Mapping[str, Fraction], without: Sequence[Object] = ()) -> list[str]:
    """Why a pod that asks for `wanted` cannot run on a node, were the pods `without` gone; empty when it can."""
    fixed = fixed_reasons(pod, room.node)
    if fixed:
        return [fixed]
    lacking = sorted(name for name, amount in wanted.items() if amount > 0 and amount > room.free(name, without))
    return ["Too many pods" if name == "pods" else f"Insufficient {name}" for name in lacking]


def fixed_reasons(pod: Object, node: Object) -> str:
    """The first reason against a node that no other pod's end would change, or nothing."""
    tolerations = dig(pod, "spec", "tolerations", default=[])
    for taint in nodes.taints_of(node):
        if taint["effect"] == "PreferNoSchedule" or any(nodes.tolerates(each, taint) for each in tolerations):
            continue
        if taint["key"] == nodes.UNSCHEDULABLE:
            return "node(s) were unschedulable"
        return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if not _selected(pod, node):
        return "node(s) didn't match Pod's node affinity/selector"
    return ""


def _selected(pod: Object, node: Object) -> bool:
    labels = dig(node, "metadata", "labels", default={})
    if any(labels.get(key) != value for key, value in dig(pod, "spec", "nodeSelector", default={}).items()):
        return False
    required = dig(pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    fields = {"metadata.name": name_of(node)}
    return any(
        all(matches_expression(each, labels) for each in term.get("matchExpressions") or [])
        and all(matches_expression(each, fields) for each in term.get("matchFields") or [])
        for term in required["nodeSelectorTerms"]
    )


def _preemption(pod: Object, rooms: dict[str, Room]) -> tuple[str, tuple[Object, ...]] | None:
    """Node and victims whose end makes room, where the victims are least important and fewest."""
    priority = pod["spec"].get("priority", 0)
    if pod["spec"].get("preemptionPolicy") == "Never":
        return None
    if _waits_for_room(pod, rooms, priority):
        return None
    wanted = quantities.requests_of(pod["spec"])
    choices = []
    for name, room in rooms.items():
        if fixed_reasons(pod, room.node):
            continue
        lower = [each for each in room.pods.values() if each["spec"].get("priority", 0) < priority]
        if not lower or reasons_against(pod, room, wanted, lower):
            continue
        victims = list(lower)
        for each in sorted(lower, key=lambda one: -one["spec"].get("priority", 0)):
            spared = [other for other in victims if other is not each]
            if not reasons_against(pod, room, wanted, spared):
                victims = spared
        if victims:
            choices.append((max(each["spec"].get("priority", 0) for each in victims), len(victims), name, tuple(victims)))
    if not choices:
        return None
    _, _, name, chosen = min(choices, key=lambda choice: choice[:3])
    return name, chosen


def _waits_for_room(pod: Object, rooms: dict[str, Room], priority: int) -> bool:
    """Whether victims of an earlier look are still on their way out of the node that this pod was promised."""
    promised = dig(pod, "status", "nominatedNodeName", default="")
    if promised not in rooms:
        return False
    return any(is_terminating(each) and each["spec"].get("priority", 0) < priority for each in rooms[promised].pods.values())
