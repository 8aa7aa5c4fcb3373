"""What a DELETE means for an object: gone at once, or marked and waiting for its finalizers or, a pod, for its kubelet."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from tests.k8s.double.errors import ApiError, conflict, invalid
from tests.k8s.double.kinds import JOBS, NAMESPACES, PODS, Resource
from tests.k8s.double.objects import Object, clone, dig, is_finished, is_terminating, name_of, stamp

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"
_POLICIES: Final = ("Background", "Foreground", "Orphan")
JOBS_WARNING: Final = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)


@dataclass(frozen=True)
class Plan:
    """The state of an object after a DELETE, and whether it leaves the store with it."""

    obj: Object
    removes: bool


def check_preconditions(resource: Resource, obj: Object, preconditions: Object) -> None:
    """Raises 409 for a uid or version other than the object's."""
    for field, words in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        wanted, found = preconditions.get(field), obj["metadata"][field]
        if wanted and wanted != found:
            why = f"Precondition failed: {words} in precondition: {wanted}, {words} in object meta: {found}"
            raise conflict(resource.group, resource.plural, name_of(obj), why)


def is_over(resource: Resource, obj: Object) -> bool:
    """Whether nothing but finalizers holds a marked object."""
    if resource is PODS:
        return bool(dig(obj, "metadata", "deletionGracePeriodSeconds", default=0) == 0)
    return resource is not NAMESPACES or not dig(obj, "spec", "finalizers", default=[])


def plan(resource: Resource, old: Object, options: Object) -> Plan:
    """Decide on a DELETE with these DeleteOptions. Raises 422 for options that contradict."""
    obj: Object = clone(old)
    metadata = obj["metadata"]
    finalizers = _finalizers(resource, obj, options)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    grace_s = _grace_s(obj, options) if resource is PODS else 0
    if is_terminating(old):
        # A second DELETE can only bring the end nearer.
        grace_s = min(grace_s, metadata.get("deletionGracePeriodSeconds", 0))
    waits = bool(finalizers) or grace_s > 0 or (resource is NAMESPACES and bool(dig(obj, "spec", "finalizers", default=[])))
    if not waits:
        return Plan(obj, removes=True)
    if not is_terminating(old) or grace_s != metadata.get("deletionGracePeriodSeconds", 0):
        begun = time.time()
        metadata["deletionTimestamp"] = stamp(begun + grace_s)
        metadata["deletionGracePeriodSeconds"] = grace_s
        if "generation" in metadata:
            metadata["generation"] += 1
    if resource is NAMESPACES:
        obj["status"]["phase"] = "Terminating"
    return Plan(obj, removes=False)


def _grace_s(pod: Object, options: Object) -> int:
    if not dig(pod, "spec", "nodeName") or is_finished(pod):
        return 0
    asked = options.get("gracePeriodSeconds")
    return int(pod["spec"]["terminationGracePeriodSeconds"] if asked is None else asked)


def _finalizers(resource: Resource, obj: Object, options: Object) -> list[Any]:
    policy = options.get("propagationPolicy")
    orphans = options.get("orphanDependents")
    if policy is not None and orphans is not None:
        told = ("FieldValueInvalid", 'Invalid value: "": orphanDependents and deletionPropagation cannot be both set', "propagationPolicy")
        raise invalid("", "DeleteOptions", "", [told])
    if policy not in (None, *_POLICIES):
        raise ApiError(422, f'DeleteOptions "" is invalid: propagationPolicy: Unsupported value: "{policy}"')
    if policy is None and orphans is not None:
        policy = "Orphan" if orphans else "Background"
    present = list(obj["metadata"].get("finalizers", []))
    if policy is None and ORPHAN not in present and FOREGROUND not in present:
        policy = "Orphan" if resource is JOBS else "Background"
    if policy is None:
        return present
    kept = [each for each in present if each not in (ORPHAN, FOREGROUND)]
    return [*kept, *{"Orphan": [ORPHAN], "Foreground": [FOREGROUND]}.get(policy, [])]
