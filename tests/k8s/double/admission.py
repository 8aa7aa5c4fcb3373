"""What is added to and refused of new objects on account of others: service accounts, priorities, tolerations, quotas."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Final

from tests.k8s.double import quantities
from tests.k8s.double.addresses import Addresses
from tests.k8s.double.errors import forbidden
from tests.k8s.double.kinds import JOBS, PODS, PRIORITYCLASSES, QUOTAS, RESOURCES, SERVICEACCOUNTS, SERVICES, Resource
from tests.k8s.double.objects import Object, dig, is_finished, name_of, namespace_of, uid_of
from tests.k8s.double.store import Store

SYSTEM_PRIORITIES: Final = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
TOKEN_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_NODE_TAINTS: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_DEFAULT_TOLERATION_S: Final = 300


class Admission:
    """The admission plug-ins; `hook`, when a test sets it, sees every object before it is stored and may raise an `ApiError`."""

    def __init__(self, store: Store, addresses: Addresses) -> None:
        self._store = store
        self._addresses = addresses
        self.hook: Callable[[Resource, Object], None] | None = None

    def before_create(self, resource: Resource, obj: Object) -> None:
        """Complete `obj`. Raises 403 where something that it names does not exist."""
        if self.hook is not None:
            self.hook(resource, obj)
        if resource is PODS:
            self._priority(obj)
            self._service_account(obj)
            _tolerate_nodes(obj["spec"])
        elif resource is JOBS:
            _label_job(obj)
        elif resource is SERVICES and obj["spec"].get("type") != "ExternalName":
            # A service without an address of its own (`None`) has none to show.
            address = obj["spec"].setdefault("clusterIP", self._addresses.of(namespace_of(obj), name_of(obj)))
            obj["spec"]["clusterIPs"] = [address]

    def _priority(self, pod: Object) -> None:
        spec = pod["spec"]
        name = spec.get("priorityClassName")
        if not name:
            default = next((each for each in self._store.each(PRIORITYCLASSES) if each.get("globalDefault")), None)
            if default is not None:
                spec["priorityClassName"] = name_of(default)
            spec["priority"] = default["value"] if default else 0
            spec.setdefault("preemptionPolicy", (default or {}).get("preemptionPolicy", "PreemptLowerPriority"))
            return
        found = self._store.get(PRIORITYCLASSES, ("", name))
        if found is None and name not in SYSTEM_PRIORITIES:
            raise forbidden("", "pods", name_of(pod), f"no PriorityClass with name {name} was found")
        spec["priority"] = found.obj["value"] if found else SYSTEM_PRIORITIES[name]
        policy = found.obj.get("preemptionPolicy") if found else None
        spec["preemptionPolicy"] = policy or "PreemptLowerPriority"

    def _service_account(self, pod: Object) -> None:
        spec, namespace = pod["spec"], pod["metadata"]["namespace"]
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        found = self._store.get(SERVICEACCOUNTS, (namespace, name))
        if found is None:
            why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
            raise forbidden("", "pods", name_of(pod), why)
        wanted = spec.get("automountServiceAccountToken", found.obj.get("automountServiceAccountToken", True))
        if wanted:
            _mount_token(pod)

    def check_quota(self, resource: Resource, namespace: str, obj: Object) -> None:
        """Raises 403 when `obj` would take its namespace over a ResourceQuota."""
        asked = usage_of(resource, obj)
        for quota in self._store.everything(QUOTAS, namespace):
            hard = {name: quantities.parse(amount) for name, amount in dig(quota.obj, "spec", "hard", default={}).items()}
            missing = _missing(resource, obj, hard)
            if missing:
                for_each = "; ".join(f"{name} for: {','.join(containers)}" for name, containers in missing.items())
                raise forbidden(
                    resource.group, resource.plural, name_of(obj), f"failed quota: {name_of(quota.obj)}: must specify {for_each}"
                )
            used = self.used(namespace, hard)
            over = sorted(name for name in hard if name in asked and used[name] + asked[name] > hard[name])
            if over:
                shown = [",".join(f"{name}={quantities.show(each[name])}" for name in over) for each in (asked, used, hard)]
                why = f"exceeded quota: {name_of(quota.obj)}, requested: {shown[0]}, used: {shown[1]}, limited: {shown[2]}"
                raise forbidden(resource.group, resource.plural, name_of(obj), why)

    def used(self, namespace: str, names: dict[str, Fraction]) -> dict[str, Fraction]:
        """What a namespace uses of each of `names`."""
        total = dict.fromkeys(names, Fraction(0))
        for resource in RESOURCES:
            for version in self._store.everything(resource, namespace) if resource.namespaced else ():
                for name, amount in usage_of(resource, version.obj).items():
                    if name in total:
                        total[name] += amount
        return total


def usage_of(resource: Resource, obj: Object) -> dict[str, Fraction]:
    """What one object counts for in quotas. A pod that has finished counts for its existence alone."""
    one = Fraction(1)
    usage = {f"count/{resource.qualified}": one}
    if not resource.group:
        usage[resource.plural] = one
    if resource is PODS and is_finished(obj):
        return {"count/pods": one}
    if resource is PODS:
        for container in obj["spec"]["containers"]:
            for kind in ("requests", "limits"):
                for name, quantity in (dig(container, "resources", kind, default={})).items():
                    for key in _quota_names(kind, name):
                        usage[key] = usage.get(key, Fraction(0)) + quantities.parse(quantity)
    return usage


def _quota_names(kind: str, name: str) -> list[str]:
    if kind == "requests":
        return [f"requests.{name}", name] if "/" not in name else [f"requests.{name}"]
    return [f"limits.{name}"] if "/" not in name else []


def _missing(resource: Resource, pod: Object, hard: dict[str, Fraction]) -> dict[str, list[str]]:
    """Names that a quota counts and a pod's containers do not state, with those containers."""
    if resource is not PODS:
        return {}
    missing: dict[str, list[str]] = {}
    for name in sorted(hard):
        kind, _, what = name.rpartition(".")
        if what not in ("cpu", "memory") or kind not in ("", "requests", "limits"):
            continue
        for container in pod["spec"]["containers"]:
            if what not in dig(container, "resources", kind or "requests", default={}):
                missing.setdefault(name, []).append(container["name"])
    return missing


def _tolerate_nodes(spec: Object) -> None:
    tolerations = spec.setdefault("tolerations", [])
    for key in _NODE_TAINTS:
        covered = any(each.get("key") in (key, None, "") and each.get("effect") in ("NoExecute", None, "") for each in tolerations)
        if not covered:
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _DEFAULT_TOLERATION_S})


def _mount_token(pod: Object) -> None:
    containers = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
    lacking = [each for each in containers if all(mount["mountPath"] != TOKEN_PATH for mount in each.get("volumeMounts") or [])]
    if not lacking:
        return
    name = f"kube-api-access-{uid_of(pod)[:5]}"
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]
    pod["spec"]["volumes"] = [*(pod["spec"].get("volumes") or []), {"name": name, "projected": {"defaultMode": 420, "sources": sources}}]
    for container in lacking:
        mounts = container.get("volumeMounts") or []
        container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": TOKEN_PATH}]


def _label_job(job: Object) -> None:
    """A job chooses its pods by its own uid, unless it says how."""
    spec = job["spec"]
    if spec.get("manualSelector"):
        return
    uid, name = uid_of(job), name_of(job)
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels.update({"batch.kubernetes.io/controller-uid": uid, "controller-uid": uid})
    labels.update({"batch.kubernetes.io/job-name": name, "job-name": name})
