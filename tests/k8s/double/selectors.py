"""Label and field selectors, in text and as objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.k8s.double.errors import ApiError
from tests.k8s.double.kinds import EVENTS, NAMESPACES, NODES, PODS, SECRETS, Resource
from tests.k8s.double.objects import Object, dig

Matcher = Callable[[Object], bool]

_LABEL: Final = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE: Final = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_SET: Final = re.compile(rf"({_LABEL})\s+(in|notin)\s+\(([^()]*)\)")
_EQUAL: Final = re.compile(rf"({_LABEL})\s*(==|=|!=)\s*({_VALUE})")
_EXISTS: Final = re.compile(rf"(!?)\s*({_LABEL})")
_FIELDS: Final[Mapping[Resource, tuple[str, ...]]] = {
    PODS: (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    NODES: ("spec.unschedulable",),
    NAMESPACES: ("status.phase",),
    SECRETS: ("type",),
    EVENTS: (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
}


def parse_labels(text: str) -> Matcher:
    """A matcher for a label selector as a query carries it. Raises 400 where it cannot be understood."""
    tests: list[Callable[[Mapping[str, str]], bool]] = [_label_test(part.strip(), text) for part in _split(text)]
    return lambda obj: all(test(obj["metadata"].get("labels") or {}) for test in tests)


def _split(text: str) -> list[str]:
    """Cut at the commas outside brackets."""
    return [part for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _label_test(part: str, whole: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _SET.fullmatch(part):
        key, operator, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values and key in labels
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.fullmatch(part):
        key, operator, value = found.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTS.fullmatch(part):
        negated, key = found.groups()
        return lambda labels: (key in labels) != bool(negated)
    raise ApiError(400, f"unable to parse requirement: {part!r} in selector {whole!r}")


def parse_fields(text: str, resource: Resource) -> Matcher:
    """A matcher for a field selector. Raises 400 for a field that a real server does not index for this resource."""
    tests: list[Matcher] = []
    for part in _split(text):
        found = re.fullmatch(r"([A-Za-z.]+)(==|=|!=)(.*)", part.strip())
        if found is None:
            raise ApiError(400, f"invalid selector: {part!r}; can't understand {text!r}")
        path, operator, value = found.groups()
        known = ("metadata.name", *(("metadata.namespace",) if resource.namespaced else ()), *_FIELDS.get(resource, ()))
        if path not in known:
            raise ApiError(400, f"field label not supported: {path}", details={})
        tests.append(_field_test(tuple(path.split(".")), operator, value))
    return lambda obj: all(test(obj) for test in tests)


def selected_name(text: str) -> str:
    """The one name that a field selector lets through, or nothing."""
    found = [part.strip() for part in _split(text) if re.match(r"metadata\.name==?[^=]", part.strip())] if text else []
    return found[0].rpartition("=")[2] if len(found) == 1 else ""


def _field_test(path: tuple[str, ...], operator: str, value: str) -> Matcher:
    def test(obj: Object) -> bool:
        found = dig(obj, *path, default="")
        text = str(found).lower() if isinstance(found, bool) else str(found)
        if value in ("true", "false") and text == "":
            text = "false"
        return (text == value) == (operator != "!=")

    return test


def matches_labels(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a selector as objects carry it (matchLabels, matchExpressions) takes these labels. None takes nothing, {} everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(matches_expression(each, labels) for each in selector.get("matchExpressions") or [])


def matches_expression(expression: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    """One requirement of a label selector or of a node selector term."""
    key, operator, wanted = expression["key"], expression["operator"], expression.get("values") or []
    if operator == "In":
        return key in values and values[key] in wanted
    if operator == "NotIn":
        return values.get(key) not in wanted
    if operator == "Exists":
        return key in values
    if operator == "DoesNotExist":
        return key not in values
    if operator in ("Gt", "Lt"):
        if key not in values:
            return False
        return int(values[key]) > int(wanted[0]) if operator == "Gt" else int(values[key]) < int(wanted[0])
    raise ValueError(f"unknown operator {operator!r}")
