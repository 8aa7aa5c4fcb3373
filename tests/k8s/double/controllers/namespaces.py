"""What every namespace gets, and what its deletion takes along."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from tests.k8s.double.errors import ApiError
from tests.k8s.double.kinds import CONFIGMAPS, NAMESPACES, RESOURCES, SERVICEACCOUNTS
from tests.k8s.double.loop import Controller
from tests.k8s.double.objects import Object, is_terminating, name_of
from tests.k8s.double.registry import Registry
from tests.k8s.double.store import Change

ROOT_CERTIFICATES = "kube-root-ca.crt"


class Namespaces(Controller):
    """Gives each namespace its default service account and root certificates; empties one that is being deleted."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.root_certificates = ""

    def concerns(self, change: Change) -> Iterable[Hashable]:
        if change.resource is NAMESPACES:
            return [change.key[1]]
        if change.kind == "DELETED" and change.resource.namespaced:
            return [change.key[0]]
        return []

    def reconcile(self, key: Hashable) -> float | None:
        name = str(key)
        namespace = self._registry.look(NAMESPACES, "", name)
        if namespace is None:
            return None
        if not is_terminating(namespace):
            self.furnish(name)
            return None
        everything = self._registry.store.everything
        left = [(resource, each.obj) for resource in RESOURCES if resource.namespaced for each in everything(resource, name)]
        for resource, obj in left:
            if not is_terminating(obj):
                self._registry.delete(resource, name, name_of(obj), {"propagationPolicy": "Background"})
        if not any(self._registry.still(resource, obj) for resource, obj in left):
            self._registry.edit(NAMESPACES, "", name, _without_finalizers)
        return None

    def furnish(self, name: str) -> None:
        """Create what a namespace must have and lacks."""
        account: Object = {"metadata": {"name": "default"}}
        certificates: Object = {"metadata": {"name": ROOT_CERTIFICATES}, "data": {"ca.crt": self.root_certificates}}
        for resource, obj in ((SERVICEACCOUNTS, account), (CONFIGMAPS, certificates)):
            try:
                self._registry.create(resource, name, obj)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise


def _without_finalizers(namespace: Object) -> None:
    namespace["spec"]["finalizers"] = []
