"""The standing of disruption budgets and quotas, written into their status."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable

from tests.k8s.double import eviction, quantities
from tests.k8s.double.kinds import BUDGETS, PODS, QUOTAS
from tests.k8s.double.loop import Controller
from tests.k8s.double.objects import Object, dig
from tests.k8s.double.registry import Registry
from tests.k8s.double.store import Change


class Budgets(Controller):
    """Keys are namespaces."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def concerns(self, change: Change) -> Iterable[Hashable]:
        return [change.key[0]] if change.resource in (BUDGETS, PODS, QUOTAS) else []

    def reconcile(self, key: Hashable) -> float | None:
        namespace = str(key)
        budgets = self._registry.store.everything(BUDGETS, namespace)
        pods = eviction.pods_of(self._registry, namespace) if budgets else []
        for version in budgets:
            health = eviction.health_of(version.obj, pods)
            status: Object = {
                "currentHealthy": health.healthy,
                "desiredHealthy": health.desired,
                "disruptionsAllowed": health.allowed,
                "expectedPods": health.expected,
                "observedGeneration": version.obj["metadata"].get("generation", 1),
            }
            self._registry.edit_status(BUDGETS, version.obj, functools.partial(_update, status))
        for version in self._registry.store.everything(QUOTAS, namespace):
            hard = dig(version.obj, "spec", "hard", default={})
            used = self._registry.admission.used(namespace, {name: quantities.parse(each) for name, each in hard.items()})
            shown = {"hard": hard, "used": {name: quantities.show(amount) for name, amount in used.items()}}
            self._registry.edit_status(QUOTAS, version.obj, functools.partial(_update, shown))
        return None


def _update(status: Object, obj: Object) -> None:
    obj["status"].update(status)
