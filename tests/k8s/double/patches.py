"""JSON patch (RFC 6902), JSON merge patch (RFC 7386) and strategic merge patch, over plain values."""

from __future__ import annotations

from typing import Any, Final

from tests.k8s.double.errors import ApiError
from tests.k8s.double.objects import clone

MERGE_KEYS: Final = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "conditions": "type",
    "ownerReferences": "uid",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "addresses": "type",
    "podIPs": "ip",
    "secrets": "name",
}
"""Lists that a strategic patch merges item by item; all others (args, tolerations and taints among them) it replaces."""
_SETS: Final = {"finalizers"}
_ORDER: Final = "$setElementOrder/"
_PRIMITIVES: Final = "$deleteFromPrimitiveList/"
_RETAIN: Final = "$retainKeys"


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` changed as RFC 7386 says: null removes, objects merge, anything else replaces."""
    if not isinstance(patch, dict):
        return clone(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def merge_key(field: str, items: list[Any]) -> str | None:
    """The key by which items of a list under `field` are matched, or None where the list is atomic."""
    if field == "ports":
        return "containerPort" if any("containerPort" in item for item in items if isinstance(item, dict)) else "port"
    return MERGE_KEYS.get(field)


def strategic_patch(target: Any, patch: Any, field: str = "") -> Any:
    """`target` changed as a strategic merge patch says. Raises 400 where an item lacks its merge key or a directive is unknown."""
    if isinstance(patch, dict):
        return _strategic_dict(target if isinstance(target, dict) else {}, patch)
    if isinstance(patch, list) and isinstance(target, list):
        return _strategic_list(target, patch, field)
    if isinstance(patch, list):
        return _strategic_list([], patch, field)
    return patch


def _strategic_dict(target: dict[str, Any], patch: dict[str, Any]) -> Any:
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: clone(value) for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise ApiError(400, f"unable to parse strategic merge patch: unknown patch type {directive!r}")
    result = dict(target)
    if _RETAIN in patch:
        result = {key: value for key, value in result.items() if key in patch[_RETAIN]}
    for key, value in patch.items():
        if key.startswith(_PRIMITIVES):
            name = key.removeprefix(_PRIMITIVES)
            result[name] = [item for item in result.get(name, []) if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = strategic_patch(result.get(key), value, key)
    for key, order in patch.items():
        name = key.removeprefix(_ORDER)
        if name != key and isinstance(result.get(name), list):
            result[name] = _ordered(result[name], order, name)
    return result


def _strategic_list(target: list[Any], patch: list[Any], field: str) -> list[Any]:
    if field in _SETS:
        return [*target, *(item for item in patch if item not in target)]
    key = merge_key(field, [*target, *patch])
    if key is None or not all(isinstance(item, dict) for item in [*target, *patch]):
        copied: list[Any] = clone(patch)
        return copied
    if any(item == {"$patch": "replace"} for item in patch):
        return [clone(item) for item in patch if item != {"$patch": "replace"}]
    result = list(target)
    for item in patch:
        if key not in item:
            raise ApiError(400, f"map: {item} does not contain declared merge key: {key}")
        places = [index for index, found in enumerate(result) if found.get(key) == item[key]]
        if item.get("$patch") == "delete":
            result = [found for found in result if found.get(key) != item[key]]
        elif places:
            result[places[0]] = strategic_patch(result[places[0]], item)
        else:
            result.append(strategic_patch({}, item))
    return result


def _ordered(items: list[Any], order: list[Any], field: str) -> list[Any]:
    """Items named in `order` come in that order, the others stay behind them."""
    key = merge_key(field, items)
    wanted = [each.get(key) if isinstance(each, dict) and key else each for each in order]

    def place(item: Any) -> int:
        value = item.get(key) if isinstance(item, dict) and key else item
        return wanted.index(value) if value in wanted else len(wanted)

    return sorted(items, key=place)


def json_patch(target: Any, operations: Any) -> Any:
    """`target` changed by the operations of RFC 6902. Raises 400 for malformed ones, 422 for one that does not apply."""
    if not isinstance(operations, list):
        raise ApiError(400, "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    result = clone(target)
    for operation in operations:
        result = _operate(result, operation)
    return result


def _operate(document: Any, operation: Any) -> Any:
    try:
        kind, path = operation["op"], _pointer(operation["path"])
        if kind in ("add", "replace", "test"):
            value = clone(operation["value"])
        elif kind in ("move", "copy"):
            source = _pointer(operation["from"])
            value = clone(_look(document, source))
            if kind == "move":
                document = _remove(document, source)
        elif kind != "remove":
            raise ApiError(400, f"Unexpected kind: {kind}")
        if kind == "test":
            if _look(document, path) != value:
                raise ApiError(422, f"the server rejected our request due to an error in our request: test of {operation['path']} failed")
            return document
        if kind == "remove":
            return _remove(document, path)
        if kind == "replace":
            _look(document, path)
            document = _remove(document, path) if path else document
        return _add(document, path, value)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ApiError(422, f"the server rejected our request due to an error in our request: {operation} ({error})") from error


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"path {text!r} does not begin with a slash")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _look(document: Any, path: list[str]) -> Any:
    for step in path:
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document


def _remove(document: Any, path: list[str]) -> Any:
    parent = _look(document, path[:-1])
    if isinstance(parent, list):
        del parent[int(path[-1])]
    else:
        del parent[path[-1]]
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _look(document, path[:-1])
    if isinstance(parent, list):
        index = len(parent) if path[-1] == "-" else int(path[-1])
        if not 0 <= index <= len(parent):
            raise IndexError(f"no place {index} in a list of {len(parent)}")
        parent.insert(index, value)
    else:
        parent[path[-1]] = value
    return document
