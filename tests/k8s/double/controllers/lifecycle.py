"""What becomes of nodes whose kubelets fall silent, and of the pods on nodes that are tainted, lost or gone."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable

from tests.k8s.double import eviction, nodes
from tests.k8s.double.events import Recorder
from tests.k8s.double.kinds import NODES, PODS
from tests.k8s.double.kubelet.machines import Machine, Machines
from tests.k8s.double.loop import Controller
from tests.k8s.double.objects import Object, dig, is_finished, is_terminating, name_of, namespace_of, set_condition, uid_of
from tests.k8s.double.registry import Registry
from tests.k8s.double.store import Change
from tests.k8s.double.timing import Timing

_ALL_NODES = "nodes"
_SWEEP = "sweep"


class NodeLifecycle(Controller):
    """Ready, Unknown and the taints that go with it. Looks at all nodes at once."""

    def __init__(self, registry: Registry, timing: Timing, machines: Machines) -> None:
        self._registry = registry
        self._timing = timing
        self._machines = machines
        self._events = Recorder(registry, "node-controller")

    def concerns(self, change: Change) -> Iterable[Hashable]:
        return [_ALL_NODES] if change.resource is NODES else []

    def reconcile(self, key: Hashable) -> float | None:
        found = [(node, machine) for node in self._registry.store.each(NODES) if (machine := self._machines.get(name_of(node)))]
        waits = [self._judge(node, machine) for node, machine in found]
        fresh = list(self._registry.store.each(NODES))
        if fresh and not any(nodes.is_ready(each) for each in fresh):
            # All are lost: more likely the control plane is cut off, so nobody is evicted.
            for each in fresh:
                self._edit(each, lambda copy: nodes.remove_taints(copy, nodes.UNREACHABLE, effect="NoExecute"))
            return None
        waits += [self._taint(node, machine) for node, machine in found]
        due = [each for each in waits if each is not None]
        return min(due) if due else None

    def _edit(self, node: Object, change: object) -> None:
        assert callable(change)
        self._registry.edit(NODES, "", name_of(node), change)

    def _silent_s(self, machine: Machine) -> float:
        return time.monotonic() - machine.lost_at

    def _judge(self, node: Object, machine: Machine) -> float | None:
        """Bring Ready and the NoSchedule taint up to date. Returns the seconds until this is due."""
        if machine.is_reachable:
            if not nodes.is_ready(node):
                self._registry.edit_status(NODES, node, _become_ready)
            self._edit(node, lambda copy: nodes.remove_taints(copy, nodes.UNREACHABLE))
            return None
        left = self._timing.of(self._timing.node_monitor_grace) - self._silent_s(machine)
        if left > 0:
            return left
        if nodes.is_ready(node):
            self._registry.edit_status(NODES, node, _become_unknown)
            self._edit(node, lambda copy: nodes.add_taint(copy, nodes.UNREACHABLE, "NoSchedule"))
            self._events.record(node, "NodeNotReady", f"Node {name_of(node)} status is now: NodeNotReady")
            for pod in self._registry.store.each(PODS):
                if pod["spec"].get("nodeName") == name_of(node) and not is_finished(pod):
                    self._registry.edit_status(PODS, pod, lambda copy: set_condition(copy, "Ready", "False"))
        return None

    def _taint(self, node: Object, machine: Machine) -> float | None:
        """The NoExecute taint, a moment after the other."""
        if machine.is_reachable:
            return None
        due = self._timing.of(self._timing.node_monitor_grace + self._timing.no_execute_delay)
        left = due - self._silent_s(machine)
        if left > 0:
            return left
        present = self._registry.look(NODES, "", name_of(node))
        taints = nodes.taints_of(present) if present else []
        if not any((each["key"], each["effect"]) == (nodes.UNREACHABLE, "NoExecute") for each in taints):
            self._edit(node, lambda copy: nodes.add_taint(copy, nodes.UNREACHABLE, "NoExecute"))
        return None


def _become_unknown(node: Object) -> None:
    set_condition(node, "Ready", "Unknown", reason="NodeStatusUnknown", message="Kubelet stopped posting node status.")


def _become_ready(node: Object) -> None:
    set_condition(node, "Ready", "True", reason="KubeletReady", message="kubelet is posting ready status")


class TaintEviction(Controller):
    """Deletes pods from nodes whose NoExecute taints they do not tolerate, or no longer. Keys: names of nodes, and keys of pods."""

    def __init__(self, registry: Registry, timing: Timing) -> None:
        self._registry = registry
        self._timing = timing
        self._since: dict[str, float] = {}
        """When a pod was first seen under taints (monotonic)."""
        self._events = Recorder(registry, "taint-eviction-controller")

    def concerns(self, change: Change) -> Iterable[Hashable]:
        if change.resource is NODES:
            return [change.key[1]]
        if change.resource is PODS and change.now.obj["spec"].get("nodeName"):
            return [change.key]
        return []

    def reconcile(self, key: Hashable) -> float | None:
        if isinstance(key, str):
            waits = [self._judge(pod) for pod in list(self._registry.store.each(PODS)) if pod["spec"].get("nodeName") == key]
            due = [each for each in waits if each is not None]
            return min(due) if due else None
        assert isinstance(key, tuple)
        pod = self._registry.look(PODS, *key)
        return self._judge(pod) if pod is not None else None

    def _judge(self, pod: Object) -> float | None:
        uid = uid_of(pod)
        node = self._registry.look(NODES, "", pod["spec"]["nodeName"])
        taints = [each for each in nodes.taints_of(node) if each["effect"] == "NoExecute"] if node else []
        seconds = nodes.seconds_tolerated(pod, taints) if taints else None
        if not taints or seconds is None or is_terminating(pod) or is_finished(pod):
            self._since.pop(uid, None)
            return None
        since = self._since.setdefault(uid, time.monotonic())
        left = since + self._timing.of(seconds) - time.monotonic()
        if left > 0:
            return left
        del self._since[uid]
        eviction.mark_disrupted(self._registry, pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
        self._events.record(pod, "TaintManagerEviction", f"Marking for deletion Pod {namespace_of(pod)}/{name_of(pod)}")
        self._registry.delete_pod(pod)
        return None


class PodCollector(Controller):
    """PodGC: pods of nodes that are gone, and terminating ones of nodes that are out of service."""

    def __init__(self, registry: Registry, timing: Timing) -> None:
        self._registry = registry
        self._timing = timing
        self._seen: dict[str, float] = {}

    def concerns(self, change: Change) -> Iterable[Hashable]:
        if change.resource is NODES:
            return [_SWEEP]
        waits = change.resource is PODS and change.kind != "DELETED" and is_terminating(change.now.obj)
        return [_SWEEP] if waits else []

    def reconcile(self, key: Hashable) -> float | None:
        now = time.monotonic()
        known = {name_of(each): each for each in self._registry.store.each(NODES)}
        period_s = self._timing.of(self._timing.pod_gc_period)
        again = False
        seen = {}
        for pod in list(self._registry.store.each(PODS)):
            where = pod["spec"].get("nodeName")
            if not where:
                continue
            lost = where not in known
            unserved = not lost and is_terminating(pod) and _is_out_of_service(known[where])
            if not lost and not unserved:
                continue
            since = seen[uid_of(pod)] = self._seen.get(uid_of(pod), now)
            quarantine_s = self._timing.of(self._timing.pod_gc_quarantine) if lost else 0.0
            if now - since >= quarantine_s + period_s / 2:
                self._collect(pod, lost=lost)
                again = self._registry.still(PODS, pod) is not None or again
            else:
                again = True
        self._seen = seen
        return period_s / 2 if again else None

    def _collect(self, pod: Object, *, lost: bool) -> None:
        def change(copy: Object) -> None:
            if not is_finished(copy):
                copy["status"]["phase"] = "Failed"
                if lost:
                    told = {"reason": "DeletionByPodGC", "message": "PodGC: node no longer exists"}
                    set_condition(copy, "DisruptionTarget", "True", **told)

        self._registry.edit_status(PODS, pod, change)
        self._registry.delete_pod(pod, grace_s=0)


def _is_out_of_service(node: Object) -> bool:
    tainted = any(each["key"] == nodes.OUT_OF_SERVICE for each in dig(node, "spec", "taints", default=[]))
    return tainted and not nodes.is_ready(node)
