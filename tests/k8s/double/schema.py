"""Which fields objects have, and of which types: read from the models of the official client.

So typing errors are found as a real server finds them.
"""

from __future__ import annotations

import datetime
import functools
import re
from typing import Any, Final

from tests.k8s.double.errors import ApiError
from tests.k8s.double.kinds import Resource
from tests.k8s.double.objects import Object

_LIST: Final = re.compile(r"[Ll]ist\[(.+)\]")
_DICT: Final = re.compile(r"[Dd]ict[\[(]str, (.+)[\])]")
_PRIMITIVES: Final[dict[str, tuple[type, ...]]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "bytes": (str,)}
_LOOSE: Final = {"object", "IntOrString"}
_TO_THE_MICROSECOND: Final = ("acquireTime", "renewTime", "eventTime", "lastObservedTime")
_MODELS: Final = {"Event": "CoreV1Event"}


@functools.cache
def _models() -> Any:
    from kubernetes.client import models

    return models


def check(resource: Resource, obj: Object, *, strict: bool) -> tuple[Object, list[str]]:
    """`obj` without the fields that its kind does not have, and a warning for each of them.

    Raises 400 for a value of a wrong type, and with `strict` for unknown fields as well.
    """
    unknown: list[str] = []
    kept: Object = _prune(obj, _MODELS.get(resource.kind, f"V1{resource.kind}"), "", unknown, resource)
    told = [f'unknown field "{path}"' for path in unknown]
    if told and strict:
        head = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
        message = f"{head}: strict decoding error: {', '.join(told)}"
        raise ApiError(400, message)
    return kept, told


def _prune(value: Any, kind: str, path: str, unknown: list[str], resource: Resource) -> Any:
    if value is None or kind in _LOOSE:
        return value
    if kind == "datetime":
        return _time(value, path, resource)
    if kind in _PRIMITIVES:
        wrong = not isinstance(value, _PRIMITIVES[kind]) or (isinstance(value, bool) and kind != "bool")
        quantity = kind == "str" and re.search(r"(^|\.)(limits|requests|capacity|allocatable|hard|used|sizeLimit|divisor)(\.|$)", path)
        if wrong and kind == "str" and quantity and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if wrong and not _is_int_or_string(path, value):
            raise _mismatch(resource, value, path, {"str": "string", "int": "int32", "float": "float64"}.get(kind, kind))
        return value
    if found := _LIST.fullmatch(kind):
        if not isinstance(value, list):
            raise _mismatch(resource, value, path, f"[]{found.group(1)}")
        return [_prune(item, found.group(1), f"{path}[{index}]", unknown, resource) for index, item in enumerate(value)]
    if found := _DICT.fullmatch(kind):
        if not isinstance(value, dict):
            raise _mismatch(resource, value, path, f"map[string]{found.group(1)}")
        return {key: _prune(item, found.group(1), f"{path}.{key}", unknown, resource) for key, item in value.items()}
    return _prune_model(value, kind, path, unknown, resource)


def _prune_model(value: Any, kind: str, path: str, unknown: list[str], resource: Resource) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(resource, value, path, kind.removeprefix("V1"))
    model = getattr(_models(), kind)
    names = {wire: model.openapi_types[attribute] for attribute, wire in model.attribute_map.items()}
    kept = {}
    for key, item in value.items():
        where = f"{path}.{key}".lstrip(".")
        if key not in names:
            unknown.append(where)
        else:
            kept[key] = _prune(item, names[key], where, unknown, resource)
    return kept


def _time(value: Any, path: str, resource: Resource) -> str:
    """A time as the server writes it, however the client wrote it: equal times are equal texts."""
    if not isinstance(value, str):
        raise _mismatch(resource, value, path, "string")
    try:
        moment = datetime.datetime.fromisoformat(value).astimezone(datetime.UTC)
    except ValueError as error:
        told = f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}"'
        raise ApiError(400, f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {told}') from error
    precise = path.rsplit(".", 1)[-1] in _TO_THE_MICROSECOND
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if precise else "%Y-%m-%dT%H:%M:%SZ")


def _is_int_or_string(path: str, value: Any) -> bool:
    last = path.rsplit(".", 1)[-1]
    return last in ("targetPort", "port", "minAvailable", "maxUnavailable", "maxSurge", "partition") and isinstance(value, int | str)


def _mismatch(resource: Resource, value: Any, path: str, wanted: str) -> ApiError:
    given = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}[type(value)]
    where = re.sub(r"\[\d+\]", "", path)
    message = (
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
        f"json: cannot unmarshal {given} into Go struct field {resource.kind}.{where} of type {wanted}"
    )
    return ApiError(400, message)
