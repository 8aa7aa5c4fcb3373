"""Accounts that may do little."""

from __future__ import annotations

from typing import Any

from tests.k8s.double.cluster import Cluster
from tests.k8s.talk import Talk


def limited(cluster: Cluster, rules: list[dict[str, Any]], name: str = "limited") -> str:
    """Make a service account with these rights, and return its token."""
    talk = Talk(cluster.url)
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    talk.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": name}})
    talk.create(f"{rbac}/roles", {"metadata": {"name": name}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": "default"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    talk.create(f"{rbac}/rolebindings", {"metadata": {"name": name}, "subjects": [subject], "roleRef": reference})
    return cluster.service_account_token("default", name)
