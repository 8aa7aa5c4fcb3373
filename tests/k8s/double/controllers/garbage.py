"""Garbage collection by owner references, and the ways in which owners are deleted (background, foreground, orphan)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

from tests.k8s.double import kinds
from tests.k8s.double.deletion import FOREGROUND, ORPHAN
from tests.k8s.double.kinds import Resource
from tests.k8s.double.loop import Controller
from tests.k8s.double.objects import Object, is_terminating, uid_of
from tests.k8s.double.registry import Registry
from tests.k8s.double.store import Change, Key
from tests.k8s.double.timing import Timing

Place = tuple[Resource, Key]


class GarbageCollector(Controller):
    """Deletes what no longer has an owner. Keys are objects, and uids of owners that have gone."""

    def __init__(self, registry: Registry, timing: Timing) -> None:
        self._registry = registry
        self._timing = timing
        self._dependents: defaultdict[str, set[Place]] = defaultdict(set)
        self._places: dict[str, Place] = {}
        """Where the object with a uid is."""
        self._waited: set[Hashable] = set()

    def concerns(self, change: Change) -> Iterable[Hashable]:
        place = (change.resource, change.key)
        before = _owners(change.before.obj) if change.before else set()
        now = _owners(change.now.obj) if change.kind != "DELETED" else set()
        for uid in before - now:
            self._dependents[uid].discard(place)
        for uid in now - before:
            self._dependents[uid].add(place)
        uid = uid_of(change.now.obj)
        self._places[uid] = place
        if change.kind == "DELETED":
            del self._places[uid]
            # Those who wait for the end of their dependents look again as well.
            return [uid, *before]
        if now != before:
            return [place]
        if is_terminating(change.now.obj) and {ORPHAN, FOREGROUND} & set(change.now.obj["metadata"].get("finalizers", [])):
            return [place]
        return []

    def reconcile(self, key: Hashable) -> float | None:
        if key not in self._waited:
            self._waited.add(key)
            return self._timing.of(self._timing.collection)
        self._waited.discard(key)
        if isinstance(key, str):
            for place in list(self._dependents.get(key, ())):
                self._collect(place)
            if key in self._places:
                self._finish(self._places[key])
            return None
        assert isinstance(key, tuple)
        self._collect(key)
        self._finish(key)
        return None

    def _collect(self, place: Place) -> None:
        """Delete the object at `place` when all its owners are gone, or the last of them waits for it."""
        resource, (namespace, name) = place
        obj = self._registry.look(resource, namespace, name)
        if obj is None or not _owners(obj) or is_terminating(obj):
            return
        solid = waiting = 0
        for reference in obj["metadata"]["ownerReferences"]:
            owner = self._owner(reference, namespace)
            if owner is None:
                continue
            if is_terminating(owner) and FOREGROUND in owner["metadata"].get("finalizers", []) and reference.get("blockOwnerDeletion"):
                waiting += 1
            else:
                solid += 1
        if solid:
            return
        deeper = bool(self._dependents.get(uid_of(obj))) and waiting
        policy = "Foreground" if deeper else "Background"
        options = {"propagationPolicy": policy, "preconditions": {"uid": uid_of(obj)}}
        self._registry.delete(resource, namespace, name, options)

    def _owner(self, reference: Object, namespace: str) -> Object | None:
        resource = kinds.find_kind(reference["apiVersion"], reference["kind"])
        if resource is None:
            return None
        found = self._registry.look(resource, namespace if resource.namespaced else "", reference["name"])
        return found if found is not None and uid_of(found) == reference["uid"] else None

    def _finish(self, place: Place) -> None:
        """Take the finalizer off an owner whose dependents have been orphaned or have gone."""
        resource, (namespace, name) = place
        obj = self._registry.look(resource, namespace, name)
        if obj is None or not is_terminating(obj):
            return
        finalizers = obj["metadata"].get("finalizers", [])
        if ORPHAN in finalizers:
            for each in list(self._dependents.get(uid_of(obj), ())):
                self._disown(each, uid_of(obj))
            self._registry.edit(resource, namespace, name, lambda copy: copy["metadata"]["finalizers"].remove(ORPHAN))
        elif FOREGROUND in finalizers:
            for each in list(self._dependents.get(uid_of(obj), ())):
                self._collect(each)
            if not any(self._blocks(each, uid_of(obj)) for each in self._dependents.get(uid_of(obj), ())):
                self._registry.edit(resource, namespace, name, lambda copy: copy["metadata"]["finalizers"].remove(FOREGROUND))

    def _blocks(self, place: Place, uid: str) -> bool:
        obj = self._registry.look(place[0], *place[1])
        return obj is not None and any(
            each["uid"] == uid and each.get("blockOwnerDeletion") for each in obj["metadata"].get("ownerReferences", [])
        )

    def _disown(self, place: Place, uid: str) -> None:
        def change(obj: Object) -> None:
            obj["metadata"]["ownerReferences"] = [each for each in obj["metadata"]["ownerReferences"] if each["uid"] != uid]

        self._registry.edit(place[0], *place[1], change)


def _owners(obj: Object) -> set[str]:
    return {each["uid"] for each in obj["metadata"].get("ownerReferences", [])}
