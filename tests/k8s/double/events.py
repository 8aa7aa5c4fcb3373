"""Events: what components say about objects, for people and for `kubectl describe`."""

from __future__ import annotations

import uuid

from tests.k8s.double.kinds import EVENTS, NAMESPACES
from tests.k8s.double.objects import Object, dig, is_terminating, name_of, stamp, uid_of
from tests.k8s.double.registry import Registry


def record(registry: Registry, about: Object, reason: str, message: str, *, component: str, kind: str = "Normal", host: str = "") -> None:
    """Write an event about an object; one that says the same as an earlier one is counted there."""
    namespace = about["metadata"].get("namespace") or "default"
    with registry.store.lock:
        place = registry.look(NAMESPACES, "", namespace)
        if place is None or is_terminating(place):
            return
        for version in registry.store.everything(EVENTS, namespace):
            each = version.obj
            if (dig(each, "involvedObject", "uid"), each["reason"], each["message"]) == (uid_of(about), reason, message):
                registry.edit(EVENTS, namespace, name_of(each), _counted)
                return
        now = stamp()
        event: Object = {
            "metadata": {"name": f"{name_of(about)}.{uuid.uuid4().hex[:16]}"},
            "involvedObject": {
                "kind": about["kind"],
                "apiVersion": about["apiVersion"],
                "name": name_of(about),
                "uid": uid_of(about),
                "resourceVersion": about["metadata"]["resourceVersion"],
                **({"namespace": namespace} if about["metadata"].get("namespace") else {}),
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": component, **({"host": host} if host else {})},
            "reportingComponent": component,
            "reportingInstance": host,
        }
        registry.create(EVENTS, namespace, event)


def _counted(event: Object) -> None:
    event["count"] += 1
    event["lastTimestamp"] = stamp()
