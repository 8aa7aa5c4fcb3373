"""Events: what components say about objects, for people and for `kubectl describe`."""

from __future__ import annotations

import uuid

from tests.k8s.double.kinds import EVENTS, NAMESPACES
from tests.k8s.double.objects import Object, is_terminating, name_of, stamp, uid_of
from tests.k8s.double.registry import Registry


class Recorder:
    """Writes the events of one component."""

    def __init__(self, registry: Registry, component: str) -> None:
        self._registry = registry
        self._component = component
        self._known: dict[tuple[str, str, str], tuple[str, str]] = {}

    def record(self, about: Object, reason: str, message: str, *, kind: str = "Normal", host: str = "") -> None:
        """Say something about an object; what was said before is counted there."""
        namespace = about["metadata"].get("namespace") or "default"
        with self._registry.store.lock:
            place = self._registry.look(NAMESPACES, "", namespace)
            if place is None or is_terminating(place):
                return
            said = (uid_of(about), reason, message)
            known = self._known.get(said)
            if known is not None and self._registry.look(EVENTS, *known) is not None:
                self._registry.edit(EVENTS, *known, _counted)
                return
            event = self._registry.create(EVENTS, namespace, self._event(about, reason, message, kind, host))
            self._known[said] = (namespace, name_of(event))

    def _event(self, about: Object, reason: str, message: str, kind: str, host: str) -> Object:
        now = stamp()
        involved = {
            "kind": about["kind"],
            "apiVersion": about["apiVersion"],
            "name": name_of(about),
            "uid": uid_of(about),
            "resourceVersion": about["metadata"]["resourceVersion"],
        }
        if about["metadata"].get("namespace"):
            involved["namespace"] = about["metadata"]["namespace"]
        return {
            "metadata": {"name": f"{name_of(about)}.{uuid.uuid4().hex[:16]}"},
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": self._component, **({"host": host} if host else {})},
            "reportingComponent": self._component,
            "reportingInstance": host,
        }


def _counted(event: Object) -> None:
    event["count"] += 1
    event["lastTimestamp"] = stamp()
