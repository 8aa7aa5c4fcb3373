"""Whether we may do what we are about to: asked before it is begun, as `kubectl auth can-i` does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from antinfer.errors import UsageError
from antinfer.launchers.kubernetes.api import Api
from antinfer.launchers.kubernetes.rights import Right

_PATH: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def check_rights(api: Api, namespace: str, rights: Iterable[Right]) -> None:
    """Raise `UsageError` with the rules that are missing in a namespace; `ApiError` when the server cannot be asked."""
    missing = [right for right in rights if not _has(api, namespace, right)]
    if missing:
        told = ", ".join(f"{right.verb} {right.resource}" for right in missing)
        raise UsageError(
            f"missing rights in namespace {namespace}: {told}",
            hint=f"A Role in namespace {namespace} with: {', '.join(right.rule for right in missing)}.",
        )


def _has(api: Api, namespace: str, right: Right) -> bool:
    resource, _, subresource = right.resource.partition("/")
    asked = {"namespace": namespace, "group": right.group, "resource": resource, "verb": right.verb}
    asked |= {"subresource": subresource} if subresource else {}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": asked}}
    return bool(api.ask("POST", _PATH, body)["status"]["allowed"])
