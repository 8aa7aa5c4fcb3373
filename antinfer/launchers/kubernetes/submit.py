"""Creates the objects of a job, all of them or none."""

from __future__ import annotations

from typing import Any, Final

from antinfer.errors import InfraError, UsageError
from antinfer.launchers.kubernetes.api import Api, ApiError
from antinfer.launchers.kubernetes.submission import Submission, objects, owned, suspended

_PLURALS: Final = {
    "Job": "jobs",
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ConfigMap": "configmaps",
    "Secret": "secrets",
    "Service": "services",
    "NetworkPolicy": "networkpolicies",
}


def submit(api: Api, what: Submission) -> None:
    """Create the job and what belongs to it, then let it begin. When something is refused the rest is removed again.

    Raises:
        UsageError: The job is there already, the namespace is not, or a right is missing.
        InfraError: The cluster cannot be reached.
    """
    job, *rest = objects(what)
    created = _create(api, what, suspended(job))
    path = f"{_collection(job)}/{what.name}"
    try:
        for obj in rest:
            _create(api, what, owned(obj, created))
        api.ask("PATCH", path, {"spec": {"suspend": False}})
    except (UsageError, InfraError):
        api.ask("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"})
        raise


def _collection(obj: dict[str, Any]) -> str:
    version = obj["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/namespaces/{obj['metadata']['namespace']}/{_PLURALS[obj['kind']]}"


def _create(api: Api, what: Submission, obj: dict[str, Any]) -> dict[str, Any]:
    kind, name = obj["kind"], obj["metadata"]["name"]
    try:
        return {**obj, **api.ask("POST", _collection(obj), obj)}
    except ApiError as error:
        if error.status == 409:
            raise UsageError(
                f"{kind} {name} is in namespace {what.namespace} already: the job was submitted before",
                hint=f"To submit it again, which resumes it: kubectl delete -n {what.namespace} job {what.name}",
            ) from error
        if error.status == 404:
            raise UsageError(
                f"there is no namespace {what.namespace}: {error}", hint="Create it, or name another by --namespace."
            ) from error
        if error.may_pass:
            raise
        raise UsageError(f"{kind} {name} cannot be created: {error}") from error
