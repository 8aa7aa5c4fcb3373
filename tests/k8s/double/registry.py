"""What can be done to objects: create, update, delete, with everything that a server does between a request and its store.

Both the HTTP side and the controllers of the double go through here. Every operation is one step under the store's lock.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.k8s.double import apply, defaults, deletion, errors, validation
from tests.k8s.double.addresses import Addresses
from tests.k8s.double.admission import Admission
from tests.k8s.double.errors import ApiError
from tests.k8s.double.kinds import EVENTS, LEASES, NAMESPACES, PODS, Resource
from tests.k8s.double.objects import Object, clone, dig, is_terminating, stamp
from tests.k8s.double.store import Key, Store

_SUFFIX_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
_NAMES_TRIED: Final = 8
_SERVERS_OWN: Final = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink")


@dataclass(frozen=True)
class Write:
    """How a write is to be done."""

    manager: str = ""
    """Who is entered as the owner of the fields that change; empty: nobody (the double's own controllers)."""
    dry_run: bool = False
    managed_fields: tuple[Object, ...] = ()
    """For a new object that server-side apply has made: its book of owners."""


INTERNAL: Final = Write()


class Registry:
    """Objects as the API serves them."""

    def __init__(self, store: Store, addresses: Addresses) -> None:
        self.store = store
        self.addresses = addresses
        self.admission = Admission(store, addresses)

    # ---- reading

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """The object, which must not be changed. Raises 404."""
        version = self.store.get(resource, (namespace, name))
        if version is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return version.obj

    def look(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """The object, which must not be changed, or None."""
        version = self.store.get(resource, (namespace, name))
        return version.obj if version else None

    # ---- writing

    def create(self, resource: Resource, namespace: str, obj: Object, write: Write = INTERNAL) -> Object:
        """Store a new object. Raises 403, 404 (no namespace), 409 and 422 as a server does."""
        obj = clone(obj)
        with self.store.lock:
            metadata = self._fresh_metadata(resource, namespace, obj)
            if resource.has_status:
                obj["status"] = {}
            self._check_namespace(resource, namespace)
            _require_spec(resource, obj)
            defaults.fill(resource, obj)
            self.admission.before_create(resource, obj)
            validation.check(resource, obj)
            if self.store.get(resource, (namespace, metadata["name"])) is not None:
                raise errors.already_exists(resource.group, resource.plural, metadata["name"])
            self.admission.check_quota(resource, namespace, obj)
            if write.managed_fields:
                metadata["managedFields"] = list(write.managed_fields)
            elif write.manager:
                apply.record_update(resource, None, obj, manager=write.manager)
            if write.dry_run:
                return obj
            return self.store.put(resource, (namespace, metadata["name"]), obj)

    def _generate_name(self, resource: Resource, namespace: str, base: str) -> str:
        """Make up a name; a server since 1.31 makes up another one when it is taken, eight in all."""
        for _ in range(_NAMES_TRIED):
            name = base + "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(5))
            if self.store.get(resource, (namespace, name)) is None:
                break
        return name

    def _fresh_metadata(self, resource: Resource, namespace: str, obj: Object) -> Object:
        metadata: Object = obj.setdefault("metadata", {})
        obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
        if metadata.get("resourceVersion"):
            raise ApiError(400, "resourceVersion should not be set on objects to be created")
        metadata.pop("managedFields", None)
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                told = ("FieldValueRequired", "Required value: name or generateName is required", "metadata.name")
                raise errors.invalid(resource.group, resource.kind, "", [told])
            metadata["name"] = self._generate_name(resource, namespace, metadata["generateName"])
        for field in _SERVERS_OWN:
            metadata.pop(field, None)
        drop_empty(metadata)
        if resource.namespaced:
            metadata["namespace"] = namespace
        else:
            metadata.pop("namespace", None)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = stamp()
        if "spec" in obj and resource is not LEASES:
            metadata["generation"] = 1
        return metadata

    def _check_namespace(self, resource: Resource, namespace: str) -> None:
        if not resource.namespaced:
            return
        found = self.look(NAMESPACES, "", namespace)
        if found is None:
            raise errors.not_found("", "namespaces", namespace)
        if is_terminating(found) and resource is not EVENTS:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise errors.forbidden(resource.group, resource.plural, "", why)

    def update(
        self, resource: Resource, namespace: str, name: str, obj: Object, *, subresource: str = "", write: Write = INTERNAL
    ) -> Object:
        """Replace an object. Raises 409 when `obj` names a version or uid other than the present one."""
        with self.store.lock:
            old = self.get(resource, namespace, name)
            new = clone(obj)
            metadata = new.setdefault("metadata", {})
            wanted = metadata.get("resourceVersion")
            if wanted and wanted != old["metadata"]["resourceVersion"]:
                raise errors.stale(resource.group, resource.plural, name)
            if metadata.get("uid") and metadata["uid"] != old["metadata"]["uid"]:
                why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {old['metadata']['uid']}"
                raise errors.conflict(resource.group, resource.plural, name, why)
            if metadata.get("name", name) != name:
                told = f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
                raise ApiError(400, told)
            return self._replace(resource, (namespace, name), old, new, subresource=subresource, write=write)

    def edit(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Callable[[Object], Any],
        *,
        subresource: str = "",
        write: Write = INTERNAL,
    ) -> Object:
        """Change an object by `change`, which gets a copy and may return another one. Nothing is written when nothing changed."""
        with self.store.lock:
            old = self.get(resource, namespace, name)
            copy = clone(old)
            answer = change(copy)
            new = answer if isinstance(answer, dict) else copy
            wanted = dig(new, "metadata", "resourceVersion")
            if wanted and wanted != old["metadata"]["resourceVersion"]:
                raise errors.stale(resource.group, resource.plural, name)
            return self._replace(resource, (namespace, name), old, new, subresource=subresource, write=write)

    def _replace(self, resource: Resource, key: Key, old: Object, new: Object, *, subresource: str, write: Write) -> Object:
        new["apiVersion"], new["kind"] = resource.api_version, resource.kind
        self._keep_metadata(old, new)
        if subresource == "status":
            fixed = {each: value for each, value in old.items() if each not in ("metadata", "status")}
            new = {**fixed, "metadata": new["metadata"], "status": new.get("status") or {}}
            new["metadata"]["ownerReferences"] = old["metadata"].get("ownerReferences", [])
        elif resource.has_status:
            new["status"] = old.get("status", {})
        if not new["metadata"].get("ownerReferences"):
            new["metadata"].pop("ownerReferences", None)
        if not subresource:
            _require_spec(resource, new)
            defaults.fill_spec(resource, new)
            validation.check(resource, new, old)
            if "spec" in new and new["spec"] != old.get("spec") and "generation" in old["metadata"]:
                new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if write.manager and _content(new) != _content(old):
            apply.record_update(resource, old, new, manager=write.manager, subresource=subresource)
        if new == old or write.dry_run:
            return new if write.dry_run else old
        if is_terminating(new) and not new["metadata"].get("finalizers") and deletion.is_over(resource, new):
            self.store.remove(resource, key, new)
            return new
        return self.store.put(resource, key, new)

    @staticmethod
    def _keep_metadata(old: Object, new: Object) -> None:
        metadata = new.setdefault("metadata", {})
        for field in ("name", "namespace", "generateName", "resourceVersion", *_SERVERS_OWN):
            metadata.pop(field, None)
            if field in old["metadata"]:
                metadata[field] = old["metadata"][field]
        drop_empty(metadata)
        if "managedFields" not in metadata and "managedFields" in old["metadata"]:
            metadata["managedFields"] = old["metadata"]["managedFields"]
        if is_terminating(old):
            added = set(metadata.get("finalizers", [])) - set(old["metadata"].get("finalizers", []))
            if added:
                told = f"Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}"
                raise errors.invalid("", "metadata", str(metadata["name"]), [("FieldValueForbidden", told, "metadata.finalizers")])

    # ---- removing

    def delete(self, resource: Resource, namespace: str, name: str, options: Object | None = None, write: Write = INTERNAL) -> Object:
        """Delete an object at once, or mark it where finalizers or a pod's grace period delay it. Returns its last known state.

        `options` are DeleteOptions. Raises 404, and 409 for a precondition that does not hold.
        """
        options = options or {}
        with self.store.lock:
            old = self.get(resource, namespace, name)
            deletion.check_preconditions(resource, old, options.get("preconditions") or {})
            plan = deletion.plan(resource, old, options)
            if write.dry_run:
                return plan.obj
            if plan.removes:
                self.store.remove(resource, (namespace, name), plan.obj)
                return plan.obj
            if plan.obj != old:
                return self.store.put(resource, (namespace, name), plan.obj)
            return old

    def still(self, resource: Resource, obj: Object) -> Object | None:
        """The present state of the very object `obj` was a state of; None when it is gone or has been replaced."""
        metadata = obj["metadata"]
        found = self.look(resource, metadata.get("namespace", ""), metadata["name"])
        return found if found is not None and found["metadata"]["uid"] == metadata["uid"] else None

    def edit_status(self, resource: Resource, obj: Object, change: Callable[[Object], Any]) -> Object | None:
        """Change the status of the very object `obj`; None when it is gone."""
        with self.store.lock:
            if self.still(resource, obj) is None:
                return None
            return self.edit(resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], change, subresource="status")

    def delete_pod(self, pod: Object, *, grace_s: int | None = None) -> None:
        """Delete the very pod `pod`, if it still exists. Default: its own grace period."""
        with self.store.lock:
            if self.still(PODS, pod) is not None:
                options: Object = {} if grace_s is None else {"gracePeriodSeconds": grace_s}
                self.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], options)


def drop_empty(metadata: Object) -> None:
    """An empty map or list in the metadata is one that was not given."""
    for field in ("finalizers", "labels", "annotations", "ownerReferences"):
        if field in metadata and not metadata[field]:
            del metadata[field]


def _content(obj: Object) -> Object:
    kept = {key: value for key, value in obj.items() if key != "metadata"}
    skipped = ("resourceVersion", "managedFields", "generation")
    return {**kept, "metadata": {key: value for key, value in obj["metadata"].items() if key not in skipped}}


def _require_spec(resource: Resource, obj: Object) -> None:
    """Refuse an object without the parts that defaults are written into."""
    for path in defaults.NEEDED.get(resource, ()):
        if not isinstance(dig(obj, *path), dict):
            name = str(dig(obj, "metadata", "name", default=""))
            raise errors.invalid(resource.group, resource.kind, name, [("FieldValueRequired", "Required value", ".".join(path))])
