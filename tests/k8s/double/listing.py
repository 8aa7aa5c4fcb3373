"""Lists: selected, cut into pages that all show one version."""

from __future__ import annotations

import base64
import binascii
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.k8s.double import routes
from tests.k8s.double.errors import ApiError, expired
from tests.k8s.double.kinds import Resource
from tests.k8s.double.selectors import Matcher, parse_fields, parse_labels
from tests.k8s.double.store import Store, Version

_MOST_SNAPSHOTS: Final = 64
_EXPIRED: Final = (
    "The provided continue parameter is too old to display a consistent list result. "
    "You can start a new list without the continue parameter."
)


def matcher_of(query: Mapping[str, str], resource: Resource) -> Matcher:
    """What the selectors of a query let through. Raises 400 for those that cannot be understood."""
    tests = []
    if query.get("labelSelector"):
        tests.append(parse_labels(query["labelSelector"]))
    if query.get("fieldSelector"):
        tests.append(parse_fields(query["fieldSelector"], resource))
    return lambda obj: all(test(obj) for test in tests)


@dataclass(frozen=True)
class Page:
    """A part of a list. `remaining` counts what follows it; `token` leads there."""

    versions: list[Version]
    revision: int
    token: str = ""
    remaining: int = 0

    def encode(self, resource: Resource) -> bytes:
        """The page as a client gets it."""
        metadata: dict[str, object] = {"resourceVersion": str(self.revision)}
        if self.token:
            metadata.update({"continue": self.token, "remainingItemCount": self.remaining})
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
        return json.dumps(head)[:-1].encode() + b', "items": [' + b",".join(each.encoded for each in self.versions) + b"]}"


class Lists:
    """Answers list requests, and keeps what later pages of a list need until the history before it is forgotten."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._snapshots: OrderedDict[int, tuple[int, list[Version]]] = OrderedDict()
        self._next = 0

    def page(self, resource: Resource, namespace: str, query: Mapping[str, str]) -> Page:
        """Raises 410 for a page of a list that is too old, 504 for a version that has not been reached yet."""
        limit = routes.number(query, "limit") or 0
        with self._store.lock:
            if query.get("continue"):
                return self._following(query["continue"], limit)
            self._check_version(query)
            matches = matcher_of(query, resource)
            found = [each for each in self._store.everything(resource, namespace) if matches(each.obj)]
            return self._cut(found, self._store.revision, limit)

    def _check_version(self, query: Mapping[str, str]) -> None:
        asked = routes.number(query, "resourceVersion")
        if query.get("resourceVersionMatch") and asked is None:
            told = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
            raise ApiError(422, f'ListOptions.meta.k8s.io "" is invalid: {told}')
        if asked is None:
            return
        if asked > self._store.revision:
            raise ApiError(504, f"Too large resource version: {asked}, current: {self._store.revision}", retry_after_s=1)
        if query.get("resourceVersionMatch") == "Exact" and asked != self._store.revision:
            raise expired("The resourceVersion for the provided list is too old.")

    def _cut(self, found: list[Version], revision: int, limit: int) -> Page:
        if not limit or len(found) <= limit:
            return Page(found, revision)
        rest = found[limit:]
        self._next += 1
        self._snapshots[self._next] = (revision, rest)
        if len(self._snapshots) > _MOST_SNAPSHOTS:
            self._snapshots.popitem(last=False)
        token = base64.urlsafe_b64encode(json.dumps({"v": "meta.k8s.io/v1", "rv": revision, "n": self._next}).encode()).decode()
        return Page(found[:limit], revision, token, len(rest))

    def _following(self, token: str, limit: int) -> Page:
        try:
            number = int(json.loads(base64.urlsafe_b64decode(token))["n"])
        except (binascii.Error, ValueError, KeyError, TypeError) as error:
            raise ApiError(400, f"continue key is not valid: {error}") from error
        revision, rest = self._snapshots.get(number, (-1, []))
        if revision < self._store.compacted:
            raise expired(_EXPIRED)
        return self._cut(rest, revision, limit)
