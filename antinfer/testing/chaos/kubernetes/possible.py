"""What of a plan can be done to a job on Kubernetes, and what it takes. Pure."""

from __future__ import annotations

from typing import Final

from antinfer.errors import UsageError
from antinfer.launchers.kubernetes.rights import Right
from antinfer.testing.chaos.plan import FaultPlan

TARGETS: Final = ("worker", "master")
KINDS: Final = ("kill", "term")
RIGHTS: Final = (
    *(Right("batch", "jobs", verb) for verb in ("create", "get", "patch", "delete")),
    *(Right("", resource, "create") for resource in ("serviceaccounts", "configmaps", "secrets", "services")),
    *(Right("rbac.authorization.k8s.io", resource, "create") for resource in ("roles", "rolebindings")),
    Right("networking.k8s.io", "networkpolicies", "create"),
    Right("", "secrets", "get"),
    *(Right("", "pods", verb) for verb in ("list", "watch", "delete")),
    *(Right("", "pods/portforward", verb) for verb in ("get", "create")),
    Right("", "pods/log", "get"),
)
"""Of whoever plays a plan."""


def check_plan(plan: FaultPlan) -> None:
    """Raise `UsageError` that names what of a plan the API of a cluster cannot do."""
    wrong = dict.fromkeys(str(rule) for rule in plan.rules if rule.kind not in KINDS or rule.target not in TARGETS)
    said = [f"{', '.join(wrong)}: needs hands on the processes of a pod"] if wrong else []
    if plan.store == "server":
        said.append("store: server: the store is in the pod of the master")
    if said:
        raise UsageError(
            f"plan {plan.name} cannot be played on Kubernetes: {'; '.join(said)}",
            hint="Possible there: kill and term, of worker and master. A rule with `launcher: local` is left out.",
        )
