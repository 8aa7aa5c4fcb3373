"""Partial responses: the parameter ``fields`` names what a client wants of a resource, as in ``items(name,size),nextPageToken``."""

from __future__ import annotations

import re
from typing import Any

from tests.integration.gcs.errors import invalid

Wanted = dict[str, "Wanted"]  # what of each field is wanted; all of it where nothing is named


def selected(resource: dict[str, Any], fields: str) -> dict[str, Any]:
    """Return the fields of the resource that are named; raises ApiError when `fields` cannot be read."""
    tokens = re.findall(r"[\w*-]+|.", fields)
    wanted = _read(tokens)
    if tokens:
        raise invalid(f"Invalid field selection: {fields!r}", "fields")
    chosen: dict[str, Any] = _choose(resource, wanted)
    return chosen


def _read(tokens: list[str]) -> Wanted:
    wanted: Wanted = {}
    while True:
        place = wanted.setdefault(_name(tokens), {})
        while tokens[:1] == ["/"]:
            tokens.pop(0)
            place = place.setdefault(_name(tokens), {})
        if tokens[:1] == ["("]:
            tokens.pop(0)
            place.update(_read(tokens))
            if tokens[:1] != [")"]:
                raise invalid("Invalid field selection: a parenthesis is missing", "fields")
            tokens.pop(0)
        if tokens[:1] != [","]:
            return wanted
        tokens.pop(0)


def _name(tokens: list[str]) -> str:
    if not tokens or not re.fullmatch(r"[\w*-]+", tokens[0]):
        raise invalid("Invalid field selection: a name is missing", "fields")
    return tokens.pop(0)


def _choose(value: Any, wanted: Wanted) -> Any:
    if not wanted:
        return value
    if isinstance(value, list):
        return [_choose(each, wanted) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: _choose(each, wanted.get(name, wanted.get("*", {}))) for name, each in value.items() if name in wanted or "*" in wanted}
