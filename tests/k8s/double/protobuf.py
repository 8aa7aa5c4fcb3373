"""The few bodies that `kubectl` sends in protobuf alone: what it builds itself, evictions, and questions about rights.

Only reading, and only the kinds in the table; answers are JSON, which every client takes as well.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Final

from tests.k8s.double.errors import ApiError
from tests.k8s.double.objects import Object

CONTENT_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"
_PASSED_OVER: Final = ""

Fields = dict[int, tuple[str, Any]]
"""Number of a field to its name and kind: `text`, `number`, `flag`, `texts`, `map`, `bytes map`, or the fields of a message."""

_METADATA: Final[Fields] = {
    1: ("name", "text"),
    2: ("generateName", "text"),
    3: ("namespace", "text"),
    4: (_PASSED_OVER, "text"),
    5: ("uid", "text"),
    6: ("resourceVersion", "text"),
    7: (_PASSED_OVER, "number"),
    8: (_PASSED_OVER, "text"),
    11: ("labels", "map"),
    12: ("annotations", "map"),
}
_OPTIONS: Final[Fields] = {
    1: ("gracePeriodSeconds", "number"),
    2: ("preconditions", {1: ("uid", "text"), 2: ("resourceVersion", "text")}),
    3: ("orphanDependents", "flag"),
    4: ("propagationPolicy", "text"),
    5: ("dryRun", "texts"),
}
_ASKED: Final[Fields] = {
    number: (name, "text")
    for number, name in enumerate(("namespace", "verb", "group", "version", "resource", "subresource", "name"), start=1)
}
_STATUS: Final[Fields] = {1: (_PASSED_OVER, "flag"), 2: (_PASSED_OVER, "text"), 3: (_PASSED_OVER, "text"), 4: (_PASSED_OVER, "flag")}
_KINDS: Final[dict[str, Fields]] = {
    "Eviction": {1: ("metadata", _METADATA), 2: ("deleteOptions", _OPTIONS)},
    "DeleteOptions": _OPTIONS,
    "ConfigMap": {1: ("metadata", _METADATA), 2: ("data", "map"), 3: ("binaryData", "bytes map"), 4: ("immutable", "flag")},
    "Secret": {
        1: ("metadata", _METADATA),
        2: ("data", "bytes map"),
        3: ("type", "text"),
        4: ("stringData", "map"),
        5: ("immutable", "flag"),
    },
    "Namespace": {1: ("metadata", _METADATA), 2: (_PASSED_OVER, "text"), 3: (_PASSED_OVER, "text")},
    "ServiceAccount": {1: ("metadata", _METADATA)},
    "SelfSubjectAccessReview": {1: ("metadata", _METADATA), 2: ("spec", {1: ("resourceAttributes", _ASKED)}), 3: ("status", _STATUS)},
}


def decode(body: bytes) -> Object:
    """The object in a body. Raises 415 for a kind, or a field of one, that is not in the table, 400 for what is no protobuf."""
    if not body.startswith(_MAGIC):
        raise ApiError(400, "the body is not in the protobuf encoding of Kubernetes")
    try:
        envelope = dict(_fields(body[len(_MAGIC) :]))
        names = dict(_fields(envelope[1]))
        api_version, kind = names[1].decode(), names[2].decode()
        if kind not in _KINDS:
            raise ApiError(415, f"{kind} is not understood in {CONTENT_TYPE}, send it as application/json")
        return {"apiVersion": api_version, "kind": kind, **_message(envelope.get(2, b""), _KINDS[kind], kind)}
    except (KeyError, IndexError, AttributeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is broken protobuf: {error!r}") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Each field's number with its value: an integer, or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _varint(data, at)
        if tag & 7 == 2:
            if at + value > len(data):
                raise IndexError("a field goes beyond the end")
            yield tag >> 3, data[at : at + value]
            at += value
        elif tag & 7 == 0:
            yield tag >> 3, value
        else:
            raise IndexError(f"wire type {tag & 7}")


def _message(data: bytes, fields: Fields, where: str) -> Object:
    message: Object = {}
    for number, value in _fields(data):
        if number not in fields:
            raise ApiError(415, f"field {number} of {where} is not understood in {CONTENT_TYPE}, send it as application/json")
        name, kind = fields[number]
        if name == _PASSED_OVER:
            continue
        if isinstance(kind, dict):
            message[name] = _message(value, kind, f"{where}.{name}")
        elif kind == "texts":
            message.setdefault(name, []).append(value.decode())
        elif kind in ("map", "bytes map"):
            entry = dict(_fields(value))
            content = entry.get(2, b"")
            text = content.decode() if kind == "map" else base64.b64encode(content).decode()
            message.setdefault(name, {})[entry.get(1, b"").decode()] = text
        elif kind == "text":
            # An empty text is one that was not given.
            message.update({name: value.decode()} if value else {})
        else:
            message[name] = bool(value) if kind == "flag" else value
    return message
