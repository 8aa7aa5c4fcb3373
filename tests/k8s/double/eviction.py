"""Evictions by the API, and the disruption budgets that they ask first."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tests.k8s.double.errors import ApiError
from tests.k8s.double.kinds import BUDGETS, PODS
from tests.k8s.double.objects import Object, condition_of, dig, is_finished, is_terminating, name_of, namespace_of, set_condition
from tests.k8s.double.registry import INTERNAL, Registry, Write
from tests.k8s.double.selectors import matches_labels


@dataclass(frozen=True)
class Health:
    """How a budget stands, in pods."""

    expected: int
    healthy: int
    desired: int

    @property
    def allowed(self) -> int:
        return max(0, self.healthy - self.desired) if self.expected else 0


def health_of(budget: Object, pods: list[Object]) -> Health:
    """How `budget` stands over the pods of its namespace."""
    chosen = [pod for pod in pods if matches_labels(budget["spec"].get("selector"), pod["metadata"].get("labels") or {})]
    counted = [pod for pod in chosen if not is_finished(pod)]
    healthy = sum(1 for pod in counted if dig(condition_of(pod, "Ready"), "status") == "True" and not is_terminating(pod))
    expected = len(counted)
    spec = budget["spec"]
    if spec.get("maxUnavailable") is not None:
        return Health(expected, healthy, max(0, expected - _share(spec["maxUnavailable"], expected)))
    return Health(expected, healthy, _share(spec.get("minAvailable", 1), expected))


def _share(wanted: int | str, whole: int) -> int:
    if isinstance(wanted, str):
        return math.ceil(int(wanted.rstrip("%")) * whole / 100)
    return wanted


def pods_of(registry: Registry, namespace: str) -> list[Object]:
    return [version.obj for version in registry.store.everything(PODS, namespace)]


def evict(registry: Registry, namespace: str, name: str, options: Object | None = None, write: Write = INTERNAL) -> None:
    """Mark a pod as a target of disruption, then delete it: two events. Raises 429 where a budget forbids it."""
    with registry.store.lock:
        pod = registry.get(PODS, namespace, name)
        if is_finished(pod) or dig(pod, "status", "phase") == "Pending" or is_terminating(pod):
            registry.delete(PODS, namespace, name, options, write)
            return
        _ask_budgets(registry, pod)
        if write.dry_run:
            return
        mark_disrupted(registry, pod, "EvictionByEvictionAPI", "Eviction API: evicting")
        registry.delete(PODS, namespace, name, options, write)


def mark_disrupted(registry: Registry, pod: Object, reason: str, message: str) -> None:
    """Say in a pod's status that its coming end is nobody's fault; an event of its own, before any deletion."""
    registry.edit_status(PODS, pod, lambda copy: set_condition(copy, "DisruptionTarget", "True", reason=reason, message=message) and None)


def _ask_budgets(registry: Registry, pod: Object) -> None:
    labels = pod["metadata"].get("labels") or {}
    budgets = [each.obj for each in registry.store.everything(BUDGETS, namespace_of(pod))]
    budgets = [each for each in budgets if matches_labels(each["spec"].get("selector"), labels)]
    if len(budgets) > 1:
        told = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise ApiError(500, told, reason="InternalError")
    if not budgets:
        return
    health = health_of(budgets[0], pods_of(registry, namespace_of(pod)))
    ready = dig(condition_of(pod, "Ready"), "status") == "True"
    if not ready and health.healthy >= health.desired > 0:
        return
    if health.allowed <= 0:
        told = f"The disruption budget {name_of(budgets[0])} needs {health.desired} healthy pods and has {health.healthy} currently"
        causes = [{"reason": "DisruptionBudget", "message": told}]
        message = "Cannot evict pod as it would violate the pod's disruption budget."
        raise ApiError(429, message, details={"causes": causes})
