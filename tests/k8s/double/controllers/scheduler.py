"""The scheduler: pods without a node, in the order of their importance."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from tests.k8s.double import eviction, scheduling, subresources
from tests.k8s.double.events import Recorder
from tests.k8s.double.kinds import NODES, PODS
from tests.k8s.double.loop import Controller
from tests.k8s.double.objects import Object, is_finished, is_terminating, name_of, namespace_of, set_condition
from tests.k8s.double.registry import Registry
from tests.k8s.double.store import Change
from tests.k8s.double.timing import Timing

_EVERYTHING = "pods without a node"


class Scheduler(Controller):
    """Looks at all waiting pods at once, whenever a pod or node has changed in a way that matters."""

    def __init__(self, registry: Registry, timing: Timing) -> None:
        self._registry = registry
        self._timing = timing
        self._events = Recorder(registry, "default-scheduler")

    def concerns(self, change: Change) -> Iterable[Hashable]:
        if change.resource is NODES:
            return [_EVERYTHING]
        if change.resource is not PODS:
            return []
        makes_room = change.kind == "DELETED" or is_finished(change.now.obj)
        waits = not change.now.obj["spec"].get("nodeName") and change.kind != "DELETED"
        return [_EVERYTHING] if makes_room or waits else []

    def reconcile(self, key: Hashable) -> float | None:
        store = self._registry.store
        pods = list(store.each(PODS))
        waiting = [each for each in pods if not each["spec"].get("nodeName") and not is_finished(each) and not is_terminating(each)]
        waiting = [
            each for each in waiting if each["spec"]["schedulerName"] == "default-scheduler" and not each["spec"].get("schedulingGates")
        ]
        if not waiting:
            return None
        rooms = scheduling.rooms_of(store.each(NODES), pods)
        preempted = False
        waiting.sort(key=lambda pod: (-pod["spec"].get("priority", 0), int(pod["metadata"]["resourceVersion"])))
        for pod in waiting:
            decision = scheduling.place(pod, rooms)
            if isinstance(decision, scheduling.Bound):
                self._bind(pod, decision.node, rooms)
            else:
                self._tell(pod, decision)
                preempted = preempted or bool(decision.victims)
        return self._timing.of(self._timing.scheduler_retry) if preempted else None

    def _bind(self, pod: Object, node: str, rooms: dict[str, scheduling.Room]) -> None:
        subresources.bind(self._registry, pod, node)
        rooms[node].add(pod)
        self._events.record(pod, "Scheduled", f"Successfully assigned {namespace_of(pod)}/{name_of(pod)} to {node}")

    def _tell(self, pod: Object, decision: scheduling.Waits) -> None:
        def change(copy: Object) -> None:
            set_condition(copy, "PodScheduled", "False", reason="Unschedulable", message=decision.message)
            if decision.victims:
                copy["status"]["nominatedNodeName"] = decision.node

        before = pod["metadata"]["resourceVersion"]
        told = self._registry.edit_status(PODS, pod, change)
        if told is not None and told["metadata"]["resourceVersion"] != before:
            self._events.record(pod, "FailedScheduling", decision.message, kind="Warning")
        for victim in decision.victims:
            if is_terminating(victim):
                continue
            message = f"{pod['spec']['schedulerName']}: preempting to accommodate a higher priority pod"
            eviction.mark_disrupted(self._registry, victim, "PreemptionByScheduler", message)
            self._registry.delete_pod(victim)
            self._events.record(victim, "Preempted", f"Preempted by pod {pod['metadata']['uid']} on node {decision.node}")
