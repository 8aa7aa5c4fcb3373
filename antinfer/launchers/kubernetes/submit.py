"""Creates the objects of a job, all of them or none."""

from __future__ import annotations

from typing import Any, Final

from antinfer.errors import InfraError, UsageError
from antinfer.launchers.kubernetes.api import Api, ApiError
from antinfer.launchers.kubernetes.manifests import JOB_LABEL
from antinfer.launchers.kubernetes.submission import Submission, objects, owned, suspended

COLLECTIONS: Final = {
    "Job": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "Secret": "/api/v1/namespaces/{namespace}/secrets",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
}
"""Where objects of each kind that a job consists of are."""


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
    return COLLECTIONS[obj["kind"]].format(namespace=obj["metadata"]["namespace"])


def _create(api: Api, what: Submission, obj: dict[str, Any]) -> dict[str, Any]:
    kind, name = obj["kind"], obj["metadata"]["name"]
    try:
        return {**obj, **api.ask("POST", _collection(obj), obj)}
    except ApiError as error:
        if error.status == 409:
            if kind == "ConfigMap" and _is_left(api, obj):
                api.ask("DELETE", f"{_collection(obj)}/{name}")
                return _create(api, what, obj)
            raise _clash(api, what, obj) from error
        if error.status == 404:
            raise UsageError(
                f"there is no namespace {what.namespace}: {error}", hint="Create it, or name another by --namespace."
            ) from error
        if error.may_pass:
            raise
        raise UsageError(f"{kind} {name} cannot be created: {error}") from error


def _is_left(api: Api, obj: dict[str, Any]) -> bool:
    """Tell whether an object is what was kept of the same job when it was cancelled."""
    found = api.ask("GET", f"{_collection(obj)}/{obj['metadata']['name']}")["metadata"]
    return not found.get("ownerReferences") and (found.get("labels") or {}).get(JOB_LABEL) == obj["metadata"]["labels"][JOB_LABEL]


def _clash(api: Api, what: Submission, obj: dict[str, Any]) -> UsageError:
    kind, name, where = obj["kind"], obj["metadata"]["name"], f"{what.name} -n {what.namespace}"
    found = api.ask("GET", f"{_collection(obj)}/{name}")
    if (found["metadata"].get("labels") or {}).get(JOB_LABEL) != what.job:
        return UsageError(
            f"{kind} {name} is in namespace {what.namespace} already, and belongs to something else",
            hint="Name the job otherwise: --set name=NAME.",
        )
    return UsageError(
        f"{kind} {name} is in namespace {what.namespace} already: the job was submitted before",
        hint=f"See how it is by `antinfer status {where}`. `antinfer resume {where}` submits it again once it has failed or was cancelled.",
    )
