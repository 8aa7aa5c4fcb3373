"""Pages of names: which objects and prefixes a list request gets, and where the next page begins."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.integration.gcs.conditions import number
from tests.integration.gcs.errors import invalid
from tests.integration.gcs.objects import StoredObject

Entry = tuple[bytes, int]  # a name and PREFIX or ITEM: the order of listing
PREFIX, ITEM = 0, 1


@dataclass(frozen=True)
class Page:
    items: list[StoredObject]
    prefixes: list[str]
    next_token: str | None


def page_of(objects: Iterable[StoredObject], query: Mapping[str, str], page_size: int) -> Page:
    """Choose the page that `query` asks for; items and prefixes count alike. Raises ApiError for parameters that mean nothing."""
    by_entry = _entries(objects, query)
    after = _after(query.get("pageToken", ""))
    left = sorted(entry for entry in by_entry if after is None or entry > after)
    chosen = left[: limit_of(query, page_size)]
    items = [found for entry in chosen if (found := by_entry[entry]) is not None]
    prefixes = [name.decode() for name, kind in chosen if kind == PREFIX]
    return Page(items, prefixes, token_of(chosen[-1]) if len(chosen) < len(left) else None)


def limit_of(query: Mapping[str, str], page_size: int) -> int:
    """Return how many entries a page has; raises ApiError for what is no number above 0."""
    asked = number(query, "maxResults") if "maxResults" in query else page_size
    if asked == 0:
        raise invalid("Invalid value for maxResults: 0", "maxResults")
    return min(asked, page_size)


def token_of(entry: Entry) -> str:
    return base64.urlsafe_b64encode(json.dumps([entry[0].decode(), entry[1]]).encode()).decode()


def _after(token: str) -> Entry | None:
    if not token:
        return None
    try:
        name, kind = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, binascii.Error) as error:
        raise invalid(f"Invalid page token: {token!r}", "pageToken") from error
    return name.encode(), kind


def _entries(objects: Iterable[StoredObject], query: Mapping[str, str]) -> dict[Entry, StoredObject | None]:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    start, end = query.get("startOffset", "").encode(), query.get("endOffset", "").encode()
    trailing = _flag(query, "includeTrailingDelimiter")
    entries: dict[Entry, StoredObject | None] = {}
    for each in objects:
        name = each.name
        if not name.startswith(prefix) or name.encode() < start or (end and name.encode() >= end):
            continue
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        folder = name[: cut + len(delimiter)] if cut >= 0 else None
        if folder is not None:
            entries[folder.encode(), PREFIX] = None
        if folder is None or (trailing and folder == name):
            entries[name.encode(), ITEM] = each
    return entries


def _flag(query: Mapping[str, str], parameter: str) -> bool:
    value = query.get(parameter, "false")
    if value not in ("true", "false"):
        raise invalid(f"Invalid value for {parameter}: {value!r}", parameter)
    return value == "true"
