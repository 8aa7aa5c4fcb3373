"""Server-side apply, and the book of field managers that every other write keeps for it."""

from __future__ import annotations

from typing import Any

from tests.k8s.double import fieldsets
from tests.k8s.double.errors import ApiError
from tests.k8s.double.fieldsets import Fields
from tests.k8s.double.kinds import Resource
from tests.k8s.double.objects import Object, clone, dig, stamp


def _entries(obj: Object) -> list[Object]:
    return list(dig(obj, "metadata", "managedFields", default=[]))


def _owned(entry: Object) -> Fields:
    return fieldsets.decode(entry.get("fieldsV1") or {})


def _is(entry: Object, manager: str, operation: str, subresource: str) -> bool:
    return (entry["manager"], entry["operation"], entry.get("subresource", "")) == (manager, operation, subresource)


def _entry(resource: Resource, manager: str, operation: str, subresource: str, fields: Fields) -> Object:
    entry: Object = {
        "manager": manager,
        "operation": operation,
        "apiVersion": resource.api_version,
        "time": stamp(),
        "fieldsType": "FieldsV1",
        "fieldsV1": fieldsets.encode(fields),
    }
    if subresource:
        entry["subresource"] = subresource
    return entry


def _write(obj: Object, entries: list[Object]) -> None:
    kept = [entry for entry in entries if entry["fieldsV1"]]
    if kept:
        obj["metadata"]["managedFields"] = kept
    else:
        obj["metadata"].pop("managedFields", None)


def record_update(resource: Resource, old: Object | None, new: Object, *, manager: str, subresource: str = "") -> None:
    """Give the fields that a create, update or patch changed to `manager`, and take them from all others. Changes `new`."""
    before = fieldsets.leaves(old) if old else {}
    after = fieldsets.leaves(new)
    absent = object()
    changed = frozenset(path for path, value in after.items() if before.get(path, absent) != value)
    entries = _entries(old) if old else []
    mine = next((_owned(each) for each in entries if _is(each, manager, "Update", subresource)), frozenset())
    result = []
    for each in entries:
        if not _is(each, manager, "Update", subresource):
            owned = _owned(each)
            kept = frozenset(path for path in owned if path in after and path not in changed)
            result.append(each if kept == owned else {**each, "fieldsV1": fieldsets.encode(kept)})
    mine = frozenset(path for path in mine | changed if path in after)
    earlier = next((each for each in entries if _is(each, manager, "Update", subresource)), None)
    if earlier is not None and mine == _owned(earlier):
        result.append(earlier)
    else:
        result.append(_entry(resource, manager, "Update", subresource, mine))
    _write(new, result)


def apply(resource: Resource, live: Object | None, wanted: Object, *, manager: str, force: bool, subresource: str = "") -> Object:
    """The object after `manager` has applied `wanted`: fields that it applied before and no longer names are gone, if no one else has them.

    Raises 409 naming every field that another manager owns with another value, unless `force`.
    """
    entries = _entries(live) if live else []
    asked = fieldsets.leaves(wanted)
    base: Object = clone(live) if live else {}
    have = fieldsets.leaves(base)
    contested = _contested(entries, asked, have, manager, subresource)
    if contested and not force:
        raise _conflict(contested)
    lost = {path for _, path in contested}
    before: Fields = frozenset()
    others = []
    for each in entries:
        if _is(each, manager, "Apply", subresource):
            before = _owned(each)
            continue
        owned = _owned(each)
        kept = owned - lost
        others.append(each if kept == owned else {**each, "fieldsV1": fieldsets.encode(kept)})
    still_owned: set[Any] = set(asked).union(*(_owned(each) for each in others))
    result: Object = fieldsets.remove(fieldsets.merge(base, clone(wanted)), before - still_owned)
    result["metadata"].pop("managedFields", None)
    mine = _entry(resource, manager, "Apply", subresource, frozenset(asked))
    earlier = next((each for each in entries if _is(each, manager, "Apply", subresource)), None)
    if earlier is not None and earlier["fieldsV1"] == mine["fieldsV1"]:
        mine = earlier
    _write(result, [mine, *others])
    return result


def _contested(entries: list[Object], asked: dict[Any, Any], have: dict[Any, Any], manager: str, subresource: str) -> list[Any]:
    found = []
    for each in entries:
        if _is(each, manager, "Apply", subresource):
            continue
        for path in _owned(each):
            if path in asked and path[-1] != "." and asked[path] != have.get(path):
                found.append((each, path))
    return sorted(found, key=lambda pair: (pair[0]["manager"], pair[1]))


def _conflict(contested: list[Any]) -> ApiError:
    causes = []
    for entry, path in contested:
        using = f" using {entry['apiVersion']}" if entry["operation"] == "Update" else ""
        told = f'conflict with "{entry["manager"]}"{using}'
        causes.append({"reason": "FieldManagerConflict", "message": told, "field": fieldsets.dotted(path)})
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        listed = "\n".join(f"{each['message']}:\n- {each['field']}" for each in causes)
        message = f"Apply failed with {len(causes)} conflicts: {listed}"
    return ApiError(409, message, details={"causes": causes})
