"""Laying what a user says about pods over what we say: as `kubectl patch` would, as far as pods need it."""

from __future__ import annotations

from typing import Any, Final

_KEYS: Final = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
"""Lists whose members are known by a key; members of others take the place of ours, but for tolerations, which are added."""
_HOOKS: Final = ("postStart", "preStop")
"""Of one kind each: another kind beside ours would be refused."""


def merged(ours: Any, theirs: Any, name: str = "") -> Any:
    """Return `ours` with `theirs` laid over it; null removes. `name` is that of the field. Neither is changed."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and name not in _HOOKS:
        result = {key: value for key, value in ours.items() if key not in theirs}
        for key, value in theirs.items():
            if value is not None:
                result[key] = merged(ours[key], value, key) if ours.get(key) is not None else value
        return result
    if isinstance(ours, list) and isinstance(theirs, list):
        if name == "tolerations":
            return ours + theirs
        key = _KEYS.get(name)
        if key is not None:
            return _by_key(ours, theirs, key)
    return theirs


def _by_key(ours: list[Any], theirs: list[Any], key: str) -> list[Any]:
    patches = {each[key]: each for each in theirs}
    known = {each[key] for each in ours}
    return [merged(each, patches[each[key]]) if each[key] in patches else each for each in ours] + [
        each for each in theirs if each[key] not in known
    ]
