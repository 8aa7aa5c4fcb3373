"""Who owns which field: sets of paths, their wire form (FieldsV1), and how they are cut out of objects.

A path is a tuple of steps: `f:name` a field, `k:{...}` an item of a list matched by keys, `v:value` a member of a set. A list without
keys is one leaf.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from tests.k8s.double.objects import Object

Path = tuple[str, ...]
Fields = frozenset[Path]

_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "podIPs": ("ip",),
}
_SETS: Final = {"finalizers"}
_ATOMIC: Final = {"selector", "nodeSelector", "fieldRef", "configMapKeyRef", "secretKeyRef", "resourceFieldRef", "labelSelector"}
_NOT_OWNED: Final = {
    ("f:apiVersion",),
    ("f:kind",),
    *(
        ("f:metadata", f"f:{name}")
        for name in ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")
    ),
    *(("f:metadata", f"f:{name}") for name in ("managedFields", "generateName", "selfLink", "deletionGracePeriodSeconds")),
}


def list_keys(field: str, items: list[Any]) -> tuple[str, ...]:
    """The names that identify an item of a list under `field`; empty where the list is one value."""
    if not items or not all(isinstance(item, dict) for item in items):
        return ()
    if field == "ports":
        return ("containerPort", "protocol") if any("containerPort" in item for item in items) else ("port", "protocol")
    return _KEYS.get(field, ())


def item_step(item: Object, keys: tuple[str, ...]) -> str:
    """The step that leads to `item`. A port without a protocol is one of TCP."""
    named = {key: item.get(key, "TCP" if key == "protocol" else None) for key in keys}
    return "k:" + json.dumps(named, separators=(",", ":"), sort_keys=True)


def walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf of an object with its path; an item of a keyed list is a leaf of its own (`.`) beside its fields."""
    field = path[-1][2:] if path else ""
    if isinstance(value, dict) and value and field not in _ATOMIC:
        for key, item in value.items():
            yield from walk(item, (*path, f"f:{key}"))
        return
    if isinstance(value, list) and field in _SETS:
        for item in value:
            yield (*path, "v:" + json.dumps(item)), item
        return
    if isinstance(value, list) and (keys := list_keys(field, value)):
        for item in value:
            step = (*path, item_step(item, keys))
            yield (*step, "."), None
            for key, inner in item.items():
                yield from walk(inner, (*step, f"f:{key}"))
        return
    yield path, value


def leaves(obj: Object) -> dict[Path, Any]:
    """The leaves of an object that can be owned, with their values."""
    return {path: value for path, value in walk(obj) if path and path not in _NOT_OWNED and path[:2] not in _NOT_OWNED}


def encode(fields: Iterable[Path]) -> Object:
    """The wire form of a set."""
    tree: Object = {}
    for path in sorted(fields):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
    return tree


def decode(tree: Object, path: Path = ()) -> Fields:
    """The inverse of `encode`."""
    if not tree:
        return frozenset([path]) if path else frozenset()
    found: set[Path] = set()
    for step, inner in tree.items():
        found |= decode(inner, (*path, step))
    return frozenset(found)


def dotted(path: Path) -> str:
    """A path as messages of conflicts show it: `.spec.containers[name="main"].image`."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += "." + step[2:]
        elif step.startswith("k:"):
            pairs = json.loads(step[2:])
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in pairs.items()) + "]"
        elif step.startswith("v:"):
            text += f"[={step[2:]}]"
    return text


def merge(live: Any, applied: Any, field: str = "") -> Any:
    """`live` with everything that `applied` says put into it; keyed lists are merged item by item, other lists replaced."""
    if isinstance(applied, dict) and isinstance(live, dict) and field not in _ATOMIC:
        result = dict(live)
        for key, value in applied.items():
            result[key] = merge(live.get(key), value, key)
        return result
    if isinstance(applied, list) and isinstance(live, list):
        if field in _SETS:
            return [*live, *(item for item in applied if item not in live)]
        if keys := list_keys(field, [*live, *applied]):
            return _merge_items(live, applied, keys)
    return applied


def _merge_items(live: list[Any], applied: list[Any], keys: tuple[str, ...]) -> list[Any]:
    wanted = {item_step(item, keys): item for item in applied}
    result = [merge(item, wanted.pop(step)) if (step := item_step(item, keys)) in wanted else item for item in live]
    return [*result, *wanted.values()]


def remove(value: Any, paths: Iterable[Path]) -> Any:
    """`value` without the leaves under `paths`; items and maps that this leaves empty go too."""
    for path in sorted(paths, key=len, reverse=True):
        value = _remove(value, path, "")
    return value


def _remove(value: Any, path: Path, field: str) -> Any:
    if isinstance(value, dict) and path[0].startswith("f:"):
        name = path[0][2:]
        if name not in value:
            return value
        if len(path) == 1:
            return {key: item for key, item in value.items() if key != name}
        inner = _remove(value[name], path[1:], name)
        emptied = inner in ({}, []) and value[name] not in ({}, [])
        return {key: inner if key == name else item for key, item in value.items() if not (emptied and key == name)}
    if isinstance(value, list) and path[0].startswith("v:"):
        return [item for item in value if "v:" + json.dumps(item) != path[0]]
    if isinstance(value, list) and path[0].startswith("k:"):
        keys = list_keys(field, value)
        result = []
        for item in value:
            if item_step(item, keys) != path[0]:
                result.append(item)
            elif path[1] != ".":
                result.append(_remove(item, path[1:], ""))
            elif set(item) - set(keys):
                result.append(item)
        return result
    return value
