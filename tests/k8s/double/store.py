"""What the cluster knows: objects under one global version, and the history from which watches are fed.

Stored objects are never changed in place, so that readers and watchers share them without copies. One lock guards all;
it is re-entrant, and whoever decides and writes in one step holds it from the look to the write.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from tests.k8s.double.errors import expired
from tests.k8s.double.kinds import Resource
from tests.k8s.double.objects import Object

ChangeKind = Literal["ADDED", "MODIFIED", "DELETED"]
Key = tuple[str, str]
"""Namespace (empty for resources of the whole cluster) and name."""


@dataclass(eq=False)
class Version:
    """One version of one object. `encoded` is its JSON, made once for all who read it."""

    obj: Object
    revision: int
    _encoded: bytes = b""

    @property
    def encoded(self) -> bytes:
        if not self._encoded:
            self._encoded = json.dumps(self.obj, separators=(",", ":")).encode()
        return self._encoded


@dataclass(frozen=True)
class Change:
    """Something that happened to one object; `before` is None for a new one, `now` is the last state of a removed one."""

    kind: ChangeKind
    resource: Resource
    key: Key
    now: Version
    before: Version | None


@dataclass
class Store:
    """Objects, the global version, and the history of changes down to `compacted`."""

    history_limit: int = 20_000
    """Changes that are kept; older ones are compacted away by themselves."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)
        self.revision = 1
        self.compacted = 0
        """A watch may begin at this version or later."""
        self._objects: dict[Resource, dict[Key, Version]] = {}
        self._history: list[Change] = []
        self._dropped = 0
        self._listeners: list[Callable[[Change], None]] = []

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Have `listener` called, under the lock, with every change. It must be quick and write nothing."""
        self._listeners.append(listener)

    def get(self, resource: Resource, key: Key) -> Version | None:
        return self._objects.get(resource, {}).get(key)

    def everything(self, resource: Resource, namespace: str = "") -> list[Version]:
        """All objects of a resource, in one namespace or (empty) in all, in the order of namespace and name."""
        with self.lock:
            kept = self._objects.get(resource, {})
            return [kept[key] for key in sorted(kept) if not namespace or key[0] == namespace]

    def each(self, resource: Resource) -> Iterator[Object]:
        """All objects of a resource, in no order; for those who hold the lock or need no consistency with later looks."""
        with self.lock:
            versions = list(self._objects.get(resource, {}).values())
        return (version.obj for version in versions)

    def put(self, resource: Resource, key: Key, obj: Object) -> Object:
        """Store `obj`, which the store owns from here on, under the next version. Returns it with that version in it."""
        with self.lock:
            before = self.get(resource, key)
            self.revision += 1
            obj["metadata"]["resourceVersion"] = str(self.revision)
            now = Version(obj, self.revision)
            self._objects.setdefault(resource, {})[key] = now
            self._record(Change("MODIFIED" if before else "ADDED", resource, key, now, before))
            return obj

    def remove(self, resource: Resource, key: Key, last: Object) -> None:
        """Take an object away; `last` is the state that watchers are told."""
        with self.lock:
            before = self._objects[resource].pop(key)
            self.revision += 1
            last["metadata"]["resourceVersion"] = str(self.revision)
            self._record(Change("DELETED", resource, key, Version(last, self.revision), before))

    def _record(self, change: Change) -> None:
        self._history.append(change)
        if len(self._history) > self.history_limit:
            self._drop(len(self._history) // 2)
        for listener in self._listeners:
            listener(change)
        self.changed.notify_all()

    def _drop(self, count: int) -> None:
        self.compacted = self._history[count - 1].now.revision
        del self._history[:count]
        self._dropped += count

    def compact(self) -> None:
        """Forget the whole history: a watch from any version before this one is answered with 410."""
        with self.lock:
            if self._history:
                self._drop(len(self._history))
            self.compacted = self.revision

    def position(self, revision: int) -> int:
        """Where in the history a reader stands who has seen everything up to `revision`. Raises 410 Expired when that is forgotten."""
        with self.lock:
            if revision < self.compacted:
                raise expired(f"too old resource version: {revision} ({self.compacted})")
            low, high = 0, len(self._history)
            while low < high:
                middle = (low + high) // 2
                if self._history[middle].now.revision <= revision:
                    low = middle + 1
                else:
                    high = middle
            return self._dropped + low

    def read(self, position: int) -> tuple[list[Change], int]:
        """The changes from `position` on, and the position after them. Raises 410 Expired for a reader left behind by compaction."""
        with self.lock:
            start = position - self._dropped
            if start < 0:
                raise expired("The resourceVersion for the provided watch is too old.")
            return self._history[start:], self._dropped + len(self._history)
