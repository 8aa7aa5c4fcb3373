"""Small helpers over objects as JSON values: dicts are never changed once they are stored, so whoever edits clones first."""

from __future__ import annotations

import datetime
import time
from typing import Any

Object = dict[str, Any]


def clone(value: Any) -> Any:
    """A deep copy of a JSON value; several times quicker than `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clone(item) for item in value]
    return value


def dig(value: Any, *path: str, default: Any = None) -> Any:
    """The value under `path` in nested dicts, or `default` where a step is missing or null."""
    for step in path:
        if not isinstance(value, dict):
            return default
        value = value.get(step)
    return default if value is None else value


def stamp(seconds: float | None = None) -> str:
    """A time as objects carry it, to the second. Default: now."""
    moment = datetime.datetime.fromtimestamp(time.time() if seconds is None else seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> float:
    """The inverse of `stamp`; fractions and offsets are understood too."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def name_of(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def namespace_of(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", ""))


def uid_of(obj: Object) -> str:
    return str(obj["metadata"]["uid"])


def is_terminating(obj: Object) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def is_finished(pod: Object) -> bool:
    """Whether a pod has reached a phase that it never leaves."""
    return dig(pod, "status", "phase") in ("Succeeded", "Failed")


def condition_of(obj: Object, kind: str) -> Object | None:
    """The condition of type `kind` in an object's status."""
    for condition in dig(obj, "status", "conditions", default=[]):
        if condition["type"] == kind:
            return dict(condition)
    return None


def set_condition(obj: Object, kind: str, status: str, *, reason: str = "", message: str = "", **more: Any) -> bool:
    """Write a condition into an object's status; its transition time moves only with `status`. Returns whether anything changed."""
    conditions: list[Object] = obj.setdefault("status", {}).setdefault("conditions", [])
    found = next((each for each in conditions if each["type"] == kind), None)
    wanted: Object = {"type": kind, "status": status, "reason": reason, "message": message, **more}
    wanted = {key: value for key, value in wanted.items() if value not in ("", None)}
    if found is None:
        conditions.append({**wanted, "lastTransitionTime": stamp()})
        return True
    moved = found["status"] != status
    kept: Object = {key: found[key] for key in ("lastTransitionTime", "lastProbeTime", "lastHeartbeatTime") if key in found}
    fresh: Object = {**kept, **wanted}
    if moved:
        fresh["lastTransitionTime"] = stamp()
    if fresh == found:
        return False
    conditions[conditions.index(found)] = fresh
    return True


def controller_of(obj: Object) -> Object | None:
    """The owner reference of the controller that manages an object."""
    for owner in obj["metadata"].get("ownerReferences", []):
        if owner.get("controller"):
            return dict(owner)
    return None


def owner_reference(owner: Object) -> Object:
    """A reference by which `owner` manages another object."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }
