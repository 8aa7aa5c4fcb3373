"""The resources that this server knows, and the discovery documents by which clients learn of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tests.k8s.double.objects import Object

_VERBS: Final = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True)
class Resource:
    """One resource of the API. `subresources` are served beside it; `verbs` is shortened for those that keep nothing."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    returns_deleted: bool = False
    """Whether DELETE answers with the object that went, not with a Status."""
    verbs: tuple[str, ...] = tuple(_VERBS)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As `kubectl` and messages name it: `pods`, `jobs.batch`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources

    @property
    def root(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


_RBAC: Final = "rbac.authorization.k8s.io"
_KEPT_NOT: Final = ("create",)

PODS: Final = Resource(
    "", "v1", "pods", "Pod", short=("po",), subresources=("status", "log", "eviction", "binding", "portforward"), returns_deleted=True
)
CONFIGMAPS: Final = Resource("", "v1", "configmaps", "ConfigMap", short=("cm",))
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
SERVICES: Final = Resource("", "v1", "services", "Service", short=("svc",), subresources=("status",), returns_deleted=True)
EVENTS: Final = Resource("", "v1", "events", "Event", short=("ev",))
NODES: Final = Resource("", "v1", "nodes", "Node", namespaced=False, short=("no",), subresources=("status",))
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False, short=("ns",), subresources=("status",))
SERVICEACCOUNTS: Final = Resource(
    "", "v1", "serviceaccounts", "ServiceAccount", short=("sa",), subresources=("token",), returns_deleted=True
)
CLAIMS: Final = Resource(
    "", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",), subresources=("status",), returns_deleted=True
)
QUOTAS: Final = Resource("", "v1", "resourcequotas", "ResourceQuota", short=("quota",), subresources=("status",), returns_deleted=True)
STATEFULSETS: Final = Resource("apps", "v1", "statefulsets", "StatefulSet", short=("sts",), subresources=("status", "scale"))
JOBS: Final = Resource("batch", "v1", "jobs", "Job", subresources=("status",))
BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", short=("pdb",), subresources=("status",))
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
ROLES: Final = Resource(_RBAC, "v1", "roles", "Role")
ROLEBINDINGS: Final = Resource(_RBAC, "v1", "rolebindings", "RoleBinding")
CLUSTERROLES: Final = Resource(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTERROLEBINDINGS: Final = Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)
NETWORKPOLICIES: Final = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",))
PRIORITYCLASSES: Final = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False, short=("pc",))
ACCESSREVIEWS: Final = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False, verbs=_KEPT_NOT
)

RESOURCES: Final = (
    PODS,
    CONFIGMAPS,
    SECRETS,
    SERVICES,
    EVENTS,
    NODES,
    NAMESPACES,
    SERVICEACCOUNTS,
    CLAIMS,
    QUOTAS,
    STATEFULSETS,
    JOBS,
    BUDGETS,
    LEASES,
    ROLES,
    ROLEBINDINGS,
    CLUSTERROLES,
    CLUSTERROLEBINDINGS,
    NETWORKPOLICIES,
    PRIORITYCLASSES,
    ACCESSREVIEWS,
)
_BY_PATH: Final = {(each.group, each.version, each.plural): each for each in RESOURCES}
_BY_KIND: Final = {(each.api_version, each.kind): each for each in RESOURCES}

VERSION: Final[Object] = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
_SUBRESOURCE_KINDS: Final = {
    "eviction": ("policy", "v1", "Eviction", ["create"]),
    "binding": ("", "v1", "Binding", ["create"]),
    "log": ("", "", "Pod", ["get"]),
    "portforward": ("", "", "PodPortForwardOptions", ["create", "get"]),
    "token": ("authentication.k8s.io", "v1", "TokenRequest", ["create"]),
    "scale": ("autoscaling", "v1", "Scale", ["get", "patch", "update"]),
}


def find(group: str, version: str, plural: str) -> Resource | None:
    return _BY_PATH.get((group, version, plural))


def find_kind(api_version: str, kind: str) -> Resource | None:
    return _BY_KIND.get((api_version, kind))


def _groups() -> list[tuple[str, str]]:
    return sorted({(each.group, each.version) for each in RESOURCES if each.group})


def discovery(path: str) -> Object | None:
    """The discovery document under `path`, or None where there is none."""
    if path == "/version":
        return VERSION
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*each) for each in _groups()]}
    for group, version in [("", "v1"), *_groups()]:
        root = f"/apis/{group}/{version}" if group else "/api/v1"
        if path == root:
            listed = [entry for each in RESOURCES if (each.group, each.version) == (group, version) for entry in _entries(each)]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": root.split("/", 2)[2], "resources": listed}
        if group and path == f"/apis/{group}":
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, version)}
    return openapi(path)


def _group(group: str, version: str) -> Object:
    only = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [only], "preferredVersion": only}


def _entries(resource: Resource) -> Iterable[Object]:
    entry: Object = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short:
        entry["shortNames"] = list(resource.short)
    if resource is PODS:
        entry["categories"] = ["all"]
    yield entry
    for name in resource.subresources:
        group, version, kind, verbs = _SUBRESOURCE_KINDS.get(name, ("", "", resource.kind, ["get", "patch", "update"]))
        more: Object = {"group": group, "version": version} if version else {}
        yield {
            "name": f"{resource.plural}/{name}",
            "singularName": "",
            "namespaced": resource.namespaced,
            **more,
            "kind": kind,
            "verbs": verbs,
        }


def openapi(path: str) -> Object | None:
    """As much of OpenAPI v3 as `kubectl` reads: which paths take `fieldValidation`, so that it leaves validation to the server."""
    if path == "/openapi/v3":
        roots = sorted({each.root for each in RESOURCES})
        return {"paths": {root[1:]: {"serverRelativeURL": f"/openapi/v3{root}"} for root in roots}}
    root = path.removeprefix("/openapi/v3")
    found = [each for each in RESOURCES if each.root == root and "patch" in each.verbs]
    if root == path or not found:
        return None
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("dryRun", "fieldManager", "fieldValidation")]
    paths: Object = {}
    for each in found:
        where = f"{root}/namespaces/{{namespace}}/{each.plural}" if each.namespaced else f"{root}/{each.plural}"
        kind = {"group": each.group, "version": each.version, "kind": each.kind}
        answers = {"200": {"description": "OK"}}
        for suffix, verb in (("", "post"), ("/{name}", "patch")):
            paths[where + suffix] = {
                verb: {"parameters": parameters, "responses": answers, "x-kubernetes-group-version-kind": kind},
            }
    info = {"title": "Kubernetes", "version": VERSION["gitVersion"]}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}
