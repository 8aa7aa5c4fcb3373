"""What a server refuses in an object, in the words of a real one."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection
from typing import Any, Final

from tests.k8s.double import quantities
from tests.k8s.double.errors import ApiError, invalid
from tests.k8s.double.kinds import CONFIGMAPS, JOBS, NAMESPACES, PODS, SECRETS, SERVICES, STATEFULSETS, Resource
from tests.k8s.double.objects import Object, clone, dig, name_of

Causes = list[tuple[str, str, str]]

LARGEST_CONFIG_BYTES: Final = 1024 * 1024
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")
_SUBDOMAIN_WORDS: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_WORDS: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric "
    "character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_VALUE_WORDS: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_SETS_MAY_CHANGE: Final = {
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "minReadySeconds",
    "persistentVolumeClaimRetentionPolicy",
}
_LABELS_ARE_NAMES: Final = (NAMESPACES, SERVICES)


def check(resource: Resource, obj: Object, old: Object | None = None) -> None:
    """Raises 422 naming every field that is wrong, 400 for data that cannot be decoded."""
    causes: Causes = []
    _metadata(resource, obj, causes)
    if resource is PODS:
        _pod_spec(obj["spec"], "spec", causes)
    elif resource is CONFIGMAPS:
        _config(obj, causes)
    elif resource is SECRETS:
        _secret(obj, causes)
    elif resource in (JOBS, STATEFULSETS):
        _controller(resource, obj["spec"], causes)
    if old is not None:
        _immutable(resource, old, obj, causes)
    if causes:
        raise invalid(resource.group, resource.kind, name_of(obj), causes)


def _metadata(resource: Resource, obj: Object, causes: Causes) -> None:
    name = name_of(obj)
    if resource.group != "rbac.authorization.k8s.io":
        shape, words, longest = (_LABEL_NAME, _LABEL_WORDS, 63) if resource in _LABELS_ARE_NAMES else (_SUBDOMAIN, _SUBDOMAIN_WORDS, 253)
        if not shape.fullmatch(name):
            causes.append(("FieldValueInvalid", f'Invalid value: "{name}": {words}', "metadata.name"))
        if len(name) > longest:
            causes.append(("FieldValueInvalid", f'Invalid value: "{name}": must be no more than {longest} characters', "metadata.name"))
    for value in (obj["metadata"].get("labels") or {}).values():
        if not _LABEL_VALUE.fullmatch(value):
            causes.append(("FieldValueInvalid", f'Invalid value: "{value}": {_VALUE_WORDS}', "metadata.labels"))
        if len(value) > 63:
            causes.append(("FieldValueInvalid", f'Invalid value: "{value}": must be no more than 63 characters', "metadata.labels"))


def _required(causes: Causes, field: str) -> None:
    causes.append(("FieldValueRequired", "Required value", field))


def _pod_spec(spec: Object, path: str, causes: Causes, claimed: Collection[str] = ()) -> None:
    containers = spec.get("containers") or []
    if not containers:
        _required(causes, f"{path}.containers")
    volumes = {*claimed, *(each.get("name") for each in spec.get("volumes") or [])}
    seen: set[str] = set()
    for kind in ("containers", "initContainers"):
        for index, each in enumerate(spec.get(kind) or []):
            _container(each, f"{path}.{kind}[{index}]", volumes, seen, causes)
    if spec["restartPolicy"] not in ("Always", "OnFailure", "Never"):
        told = f'Unsupported value: "{spec["restartPolicy"]}": supported values: "Always", "OnFailure", "Never"'
        causes.append(("FieldValueNotSupported", told, f"{path}.restartPolicy"))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and deadline < 1:
        told = f"Invalid value: {deadline}: must be between 1 and 2147483647, inclusive"
        causes.append(("FieldValueInvalid", told, f"{path}.activeDeadlineSeconds"))


def _container(container: Object, path: str, volumes: set[Any], seen: set[str], causes: Causes) -> None:
    name = container.get("name")
    if not name:
        _required(causes, f"{path}.name")
    elif name in seen:
        causes.append(("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{path}.name"))
    elif not _LABEL_NAME.fullmatch(name):
        causes.append(("FieldValueInvalid", f'Invalid value: "{name}": {_LABEL_WORDS}', f"{path}.name"))
    seen.add(name or "")
    if not container.get("image"):
        _required(causes, f"{path}.image")
    for index, mount in enumerate(container.get("volumeMounts") or []):
        if mount.get("name") not in volumes:
            causes.append(("FieldValueNotFound", f'Not found: "{mount.get("name")}"', f"{path}.volumeMounts[{index}].name"))
    _resources(container.get("resources") or {}, f"{path}.resources", causes)


def _resources(resources: Object, path: str, causes: Causes) -> None:
    parsed: dict[str, dict[str, Any]] = {"limits": {}, "requests": {}}
    for kind, amounts in parsed.items():
        for name, quantity in (resources.get(kind) or {}).items():
            try:
                amounts[name] = quantities.parse(quantity)
            except ValueError as error:
                message = f"{kind[:-1].capitalize()} quantity {quantity!r} of {path}: {error}"
                raise ApiError(400, f"quantities must match: {message}") from error
    for name, amount in parsed["requests"].items():
        limit = parsed["limits"].get(name)
        if "/" in name and limit is None:
            told = "Limit must be set for non overcommitable resources"
            causes.append(("FieldValueRequired", f"Required value: {told}", f"{path}.limits"))
        elif "/" in name and limit != amount:
            shown = resources["requests"][name]
            told = f'Invalid value: "{shown}": must be equal to {name} limit of {resources["limits"][name]}'
            causes.append(("FieldValueInvalid", told, f"{path}.requests"))
        elif limit is not None and amount > limit:
            shown = resources["requests"][name]
            told = f'Invalid value: "{shown}": must be less than or equal to {name} limit of {resources["limits"][name]}'
            causes.append(("FieldValueInvalid", told, f"{path}.requests"))


def _config(obj: Object, causes: Causes) -> None:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    size = sum(len(value.encode()) for value in data.values()) + sum(len(_decoded(value)) for value in binary.values())
    for key in [*data, *binary]:
        if not _KEY.fullmatch(key):
            told = f"Invalid value: \"{key}\": a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
            causes.append(("FieldValueInvalid", told, f"data[{key}]"))
    if size > LARGEST_CONFIG_BYTES:
        causes.append(("FieldValueTooLong", f"Too long: may not be more than {LARGEST_CONFIG_BYTES} bytes", "[]"))


def _secret(obj: Object, causes: Causes) -> None:
    size = sum(len(_decoded(value)) for value in (obj.get("data") or {}).values())
    if size > LARGEST_CONFIG_BYTES:
        causes.append(("FieldValueTooLong", f"Too long: may not be more than {LARGEST_CONFIG_BYTES} bytes", "data"))


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ApiError(400, f"illegal base64 data: {error}") from error


def _controller(resource: Resource, spec: Object, causes: Causes) -> None:
    template = spec["template"]["spec"]
    claimed = {name_of(each) for each in spec.get("volumeClaimTemplates") or []}
    _pod_spec(template, "spec.template.spec", causes, claimed)
    allowed = ("OnFailure", "Never") if resource is JOBS else ("Always",)
    if template["restartPolicy"] not in allowed:
        listed = ", ".join(f'"{each}"' for each in allowed)
        told = f'Unsupported value: "{template["restartPolicy"]}": supported values: {listed}'
        if resource is JOBS:
            told = f"Required value: valid values: {listed}"
        causes.append(("FieldValueNotSupported", told, "spec.template.spec.restartPolicy"))
    if resource is STATEFULSETS:
        labels = dig(spec, "template", "metadata", "labels", default={})
        wanted = dig(spec, "selector", "matchLabels", default={})
        if any(labels.get(key) != value for key, value in wanted.items()):
            told = f"Invalid value: {labels}: `selector` does not match template `labels`"
            causes.append(("FieldValueInvalid", told, "spec.template.metadata.labels"))


def _immutable(resource: Resource, old: Object, new: Object, causes: Causes) -> None:
    if resource in (CONFIGMAPS, SECRETS) and old.get("immutable"):
        if any(old.get(key) != new.get(key) for key in ("data", "binaryData", "immutable")):
            causes.append(("FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set", "data"))
    elif resource is SECRETS and old.get("type") != new.get("type"):
        causes.append(("FieldValueInvalid", f'Invalid value: "{new.get("type")}": field is immutable', "type"))
    elif resource is PODS and _frozen(old["spec"], new["spec"]) != _frozen(new["spec"], new["spec"]):
        told = (
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
        )
        causes.append(("FieldValueForbidden", told, "spec"))
    elif resource is JOBS and not old["spec"].get("suspend"):
        for field in ("template", "selector", "completions", "completionMode"):
            if old["spec"].get(field) != new["spec"].get(field):
                causes.append(("FieldValueInvalid", f"Invalid value: {new['spec'].get(field)}: field is immutable", f"spec.{field}"))
    elif resource is STATEFULSETS and _without(old["spec"], _SETS_MAY_CHANGE) != _without(new["spec"], _SETS_MAY_CHANGE):
        told = (
            "Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
            "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        )
        causes.append(("FieldValueForbidden", told, "spec"))


def _without(spec: Object, fields: set[str]) -> Object:
    return {key: value for key, value in spec.items() if key not in fields}


def _frozen(spec: Object, new: Object) -> Object:
    """The part of a pod's spec that an update may not change. Tolerations may be added, never taken away."""
    kept: Object = clone(spec)
    kept.pop("activeDeadlineSeconds", None)
    for each in [*kept.get("containers", []), *(kept.get("initContainers") or [])]:
        each.pop("image", None)
    before, after = kept.pop("tolerations", None) or [], new.get("tolerations") or []
    kept["lost"] = [each for each in before if each not in after]
    return kept
