"""Watches: the changes of one resource as a client sees them through its selectors, with bookmarks and an end."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.k8s.double import routes
from tests.k8s.double.errors import ApiError
from tests.k8s.double.kinds import Resource
from tests.k8s.double.listing import matcher_of
from tests.k8s.double.selectors import Matcher
from tests.k8s.double.store import Change, Store, Version

_SHORTEST_DEFAULT_S: Final = 1800
_LONGEST_WAIT_S: Final = 5.0

Event = tuple[str, Version]


def error_event(error: ApiError) -> bytes:
    return json.dumps({"type": "ERROR", "object": error.status()}).encode() + b"\n"


class Watch:
    """One watch. Iterating gives lines for the client, and None when there is nothing to say, so that a gone client is noticed."""

    def __init__(self, store: Store, resource: Resource, namespace: str, query: Mapping[str, str], *, bookmark_interval_s: float) -> None:
        """Raises 400 for selectors and numbers that cannot be understood."""
        self._store = store
        self._resource = resource
        self._namespace = namespace
        self._matches: Matcher = matcher_of(query, resource)
        self._bookmarks = routes.is_true(query, "allowWatchBookmarks")
        self._sends_initial = routes.is_true(query, "sendInitialEvents")
        self._from = routes.number(query, "resourceVersion")
        seconds = routes.number(query, "timeoutSeconds")
        now = time.monotonic()
        self._ends = now + (seconds if seconds else _SHORTEST_DEFAULT_S * (1 + random.random()))
        self._interval_s = bookmark_interval_s
        self._next_bookmark = now + bookmark_interval_s

    def __iter__(self) -> Iterator[bytes | None]:
        try:
            yield from self._lines()
        except ApiError as error:
            yield error_event(error)

    def _lines(self) -> Iterator[bytes | None]:
        events, position, seen = self._begin()
        for kind, version in events:
            yield self._line(kind, version)
        if self._sends_initial and self._bookmarks:
            yield self._bookmark(seen, {"k8s.io/initial-events-end": "true"})
        while True:
            with self._store.lock:
                changes, position = self._store.read(position)
                if not changes:
                    if time.monotonic() >= self._ends:
                        break
                    self._store.changed.wait(self._patience_s())
                    changes, position = self._store.read(position)
                seen = self._store.revision
            told = [event for change in changes if (event := self._seen_as(change)) is not None]
            for kind, version in told:
                yield self._line(kind, version)
            if not told:
                yield None
            if self._bookmarks and time.monotonic() >= self._next_bookmark:
                self._next_bookmark = time.monotonic() + self._interval_s
                yield self._bookmark(seen)
            if time.monotonic() >= self._ends:
                break
        if self._bookmarks:
            yield self._bookmark(seen)

    def _begin(self) -> tuple[list[Event], int, int]:
        """The events with which the watch begins, its place in the history, and the version that these events show."""
        with self._store.lock:
            if self._from and not self._sends_initial:
                if self._from > self._store.revision:
                    raise ApiError(504, f"Too large resource version: {self._from}, current: {self._store.revision}", retry_after_s=1)
                return [], self._store.position(self._from), self._from
            found = [each for each in self._store.everything(self._resource, self._namespace) if self._matches(each.obj)]
            return [("ADDED", each) for each in found], self._store.position(self._store.revision), self._store.revision

    def _patience_s(self) -> float:
        until = min(self._ends, self._next_bookmark) if self._bookmarks else self._ends
        return max(0.0, min(until - time.monotonic(), _LONGEST_WAIT_S))

    def _seen_as(self, change: Change) -> Event | None:
        """The event that a client with these selectors gets, for whom an object that stops matching is deleted."""
        if change.resource is not self._resource or (self._namespace and change.key[0] != self._namespace):
            return None
        before = change.before is not None and self._matches(change.before.obj)
        now = change.kind != "DELETED" and self._matches(change.now.obj)
        if change.kind == "DELETED":
            return ("DELETED", change.now) if before else None
        if now:
            return ("MODIFIED" if before else "ADDED", change.now)
        return ("DELETED", change.now) if before else None

    def _line(self, kind: str, version: Version) -> bytes:
        return b'{"type":"' + kind.encode() + b'","object":' + version.encoded + b"}\n"

    def _bookmark(self, revision: int, annotations: Mapping[str, Any] | None = None) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        bookmark = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": metadata}
        return json.dumps({"type": "BOOKMARK", "object": bookmark}).encode() + b"\n"
