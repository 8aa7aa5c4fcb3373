"""The StatefulSet controller: pods with fixed names and their own volumes, never two of one name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable

from tests.k8s.double.events import Recorder
from tests.k8s.double.kinds import CLAIMS, PODS, STATEFULSETS
from tests.k8s.double.loop import Controller
from tests.k8s.double.objects import (
    Object,
    clone,
    condition_of,
    controller_of,
    dig,
    is_finished,
    is_terminating,
    name_of,
    namespace_of,
    owner_reference,
    uid_of,
)
from tests.k8s.double.registry import Registry
from tests.k8s.double.store import Change

_REVISION = "controller-revision-hash"


class StatefulSets(Controller):
    """Keys are (namespace, name) of sets."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._events = Recorder(registry, "statefulset-controller")

    def concerns(self, change: Change) -> Iterable[Hashable]:
        if change.resource is STATEFULSETS:
            return [change.key]
        if change.resource is PODS and (owner := controller_of(change.now.obj)) and owner["kind"] == "StatefulSet":
            return [(change.key[0], owner["name"])]
        return []

    def reconcile(self, key: Hashable) -> float | None:
        assert isinstance(key, tuple)
        owner = self._registry.look(STATEFULSETS, *key)
        if owner is None:
            return None
        mine = {
            name_of(each.obj): each.obj
            for each in self._registry.store.everything(PODS, key[0])
            if dig(controller_of(each.obj), "uid") == uid_of(owner)
        }
        if not is_terminating(owner):
            self._bring_about(owner, mine)
        self._write(owner)
        return None

    def _bring_about(self, owner: Object, pods: dict[str, Object]) -> None:
        revision = revision_of(owner)
        in_order = owner["spec"]["podManagementPolicy"] == "OrderedReady"
        wanted = [f"{name_of(owner)}-{number}" for number in range(owner["spec"]["replicas"])]
        for name in reversed([name for name in pods if name not in wanted]):
            if not is_terminating(pods[name]):
                self._registry.delete_pod(pods[name])
        for number, name in enumerate(wanted):
            pod = pods.get(name)
            if pod is None:
                if self._registry.look(PODS, namespace_of(owner), name) is None:
                    self._create(owner, number, revision)
            elif is_finished(pod) and not is_terminating(pod):
                self._events.record(
                    owner, "RecreatingFailedPod", f"StatefulSet {namespace_of(owner)}/{name} is recreating failed Pod", kind="Warning"
                )
                self._registry.delete_pod(pod)
            elif _is_ready(pod) and not is_terminating(pod):
                continue
            if in_order:
                return
        self._roll(owner, pods, wanted, revision)

    def _roll(self, owner: Object, pods: dict[str, Object], wanted: list[str], revision: str) -> None:
        """Replace the last pod that is of an earlier template."""
        if owner["spec"]["updateStrategy"]["type"] != "RollingUpdate":
            return
        for name in reversed(wanted):
            pod = pods.get(name)
            if pod is None or is_terminating(pod):
                return
            if dig(pod, "metadata", "labels", _REVISION) != revision:
                self._registry.delete_pod(pod)
                return

    def _create(self, owner: Object, number: int, revision: str) -> None:
        template = clone(owner["spec"]["template"])
        name = f"{name_of(owner)}-{number}"
        labels = {**dig(template, "metadata", "labels", default={}), _REVISION: revision}
        labels.update({"statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": str(number)})
        metadata = {**(template.get("metadata") or {}), "name": name, "labels": labels, "ownerReferences": [owner_reference(owner)]}
        metadata.pop("creationTimestamp", None)
        spec = template["spec"]
        spec["hostname"] = name
        if owner["spec"].get("serviceName"):
            spec["subdomain"] = owner["spec"]["serviceName"]
        for claim in owner["spec"].get("volumeClaimTemplates") or []:
            claimed = f"{name_of(claim)}-{name}"
            if self._registry.look(CLAIMS, namespace_of(owner), claimed) is None:
                self._registry.create(CLAIMS, namespace_of(owner), {"metadata": {"name": claimed}, "spec": claim["spec"]})
            volumes = [each for each in spec.get("volumes") or [] if each["name"] != name_of(claim)]
            spec["volumes"] = [*volumes, {"name": name_of(claim), "persistentVolumeClaim": {"claimName": claimed}}]
        self._registry.create(PODS, namespace_of(owner), {"metadata": metadata, "spec": spec})
        self._events.record(owner, "SuccessfulCreate", f"create Pod {name} in StatefulSet {name_of(owner)} successful")

    def _write(self, owner: Object) -> None:
        pods = [each.obj for each in self._registry.store.everything(PODS, namespace_of(owner))]
        mine = [pod for pod in pods if dig(controller_of(pod), "uid") == uid_of(owner)]
        alive = [pod for pod in mine if not is_terminating(pod) and not is_finished(pod)]
        revision = revision_of(owner)
        updated = [pod for pod in alive if dig(pod, "metadata", "labels", _REVISION) == revision]
        ready = sum(1 for pod in alive if _is_ready(pod))
        status = {
            "replicas": len(mine),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "updatedReplicas": len(updated),
            "currentReplicas": len(updated),
            "observedGeneration": owner["metadata"]["generation"],
            "updateRevision": revision,
        }
        if len(updated) == owner["spec"]["replicas"]:
            status["currentRevision"] = revision
        self._registry.edit_status(STATEFULSETS, owner, lambda copy: copy["status"].update(status))


class Claims(Controller):
    """Binds every claim at once, to a volume of its own."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def concerns(self, change: Change) -> Iterable[Hashable]:
        return [change.key] if change.resource is CLAIMS and change.kind == "ADDED" else []

    def reconcile(self, key: Hashable) -> float | None:
        assert isinstance(key, tuple)
        claim = self._registry.look(CLAIMS, *key)
        if claim is not None:
            capacity = dig(claim, "spec", "resources", "requests", default={})
            bound = {"phase": "Bound", "capacity": capacity, "accessModes": dig(claim, "spec", "accessModes", default=[])}
            self._registry.edit_status(CLAIMS, claim, lambda copy: copy["status"].update(bound))
        return None


def revision_of(owner: Object) -> str:
    """The name of a template's version."""
    content = json.dumps(owner["spec"]["template"], sort_keys=True).encode()
    return f"{name_of(owner)}-{hashlib.sha256(content).hexdigest()[:10]}"


def _is_ready(pod: Object) -> bool:
    return bool(dig(condition_of(pod, "Ready"), "status") == "True")
