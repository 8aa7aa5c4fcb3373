"""What a server fills in that a client left out."""

from __future__ import annotations

import base64
from typing import Any, Final

from tests.k8s.double.kinds import BUDGETS, CLAIMS, JOBS, NAMESPACES, PODS, SECRETS, SERVICES, STATEFULSETS, Resource
from tests.k8s.double.objects import Object, dig, name_of

NEEDED: Final[dict[Resource, tuple[tuple[str, ...], ...]]] = {
    PODS: (("spec",),),
    JOBS: (("spec",), ("spec", "template")),
    STATEFULSETS: (("spec",), ("spec", "template")),
    SERVICES: (("spec",),),
    CLAIMS: (("spec",),),
    BUDGETS: (("spec",),),
}
"""The parts without which an object is refused before anything else is looked at."""


def fill(resource: Resource, obj: Object) -> None:
    """Write the defaults of its kind into a new `obj`."""
    fill_spec(resource, obj)
    if resource is PODS:
        obj["status"]["phase"] = "Pending"
        obj["status"]["qosClass"] = qos_class(obj["spec"])
    elif resource is NAMESPACES:
        obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name_of(obj)
        obj["status"]["phase"] = "Active"
    elif resource is CLAIMS:
        obj["status"]["phase"] = "Pending"
    elif resource is BUDGETS:
        obj["status"].update({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})


def fill_spec(resource: Resource, obj: Object) -> None:
    """Write the defaults of its kind into everything but the status; writing them twice changes nothing."""
    if resource is PODS:
        pod_spec(obj["spec"], owner_policy="Always")
    elif resource is STATEFULSETS:
        _stateful_set(obj["spec"])
    elif resource is JOBS:
        _job(obj["spec"])
    elif resource is SECRETS:
        _secret(obj)
    elif resource is SERVICES:
        _service(obj["spec"])
    elif resource is CLAIMS:
        obj["spec"].setdefault("volumeMode", "Filesystem")


def pod_spec(spec: Object, *, owner_policy: str) -> None:
    """Fill in a pod's spec, alone or as a template."""
    defaults: dict[str, Any] = {
        "restartPolicy": owner_policy,
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
    }
    for key, value in defaults.items():
        if spec.get(key) is None:
            spec[key] = value
    for container in [*spec.get("containers", []), *(spec.get("initContainers") or [])]:
        _container(container)
    for volume in spec.get("volumes") or []:
        _volume(volume)


def _container(container: Object) -> None:
    image = str(container.get("image", ""))
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    container.setdefault("imagePullPolicy", "Always" if tag in ("", "latest") and "@" not in image else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    resources = container.setdefault("resources", {})
    if resources.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or []:
        if (reference := dig(variable, "valueFrom", "fieldRef")) is not None:
            reference.setdefault("apiVersion", "v1")
        if (reference := dig(variable, "valueFrom", "resourceFieldRef")) is not None:
            reference.setdefault("divisor", "0")


def _volume(volume: Object) -> None:
    for kind in ("configMap", "secret", "projected", "downwardAPI"):
        if volume.get(kind) is not None:
            volume[kind].setdefault("defaultMode", 420)
    for source in dig(volume, "projected", "sources", default=[]):
        if source.get("serviceAccountToken") is not None:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    if set(volume) == {"name"}:
        volume["emptyDir"] = {}


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, from cpu and memory of the containers."""
    containers = spec.get("containers", [])
    asked = [dig(each, "resources", kind, default={}) for each in containers for kind in ("requests", "limits")]
    if not any(name in each for each in asked for name in ("cpu", "memory")):
        return "BestEffort"
    for each in containers:
        requests, limits = dig(each, "resources", "requests", default={}), dig(each, "resources", "limits", default={})
        if any(name not in limits or requests.get(name, limits[name]) != limits[name] for name in ("cpu", "memory")):
            return "Burstable"
    return "Guaranteed"


def _stateful_set(spec: Object) -> None:
    spec.setdefault("replicas", 1)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    spec.setdefault("persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Retain", "whenScaled": "Retain"})
    pod_spec(spec["template"].setdefault("spec", {}), owner_policy="Always")


def _job(spec: Object) -> None:
    spec.setdefault("parallelism", 1)
    if "completions" not in spec and spec["parallelism"] == 1:
        spec["completions"] = 1
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    has_policy = spec.get("podFailurePolicy") is not None
    spec.setdefault("podReplacementPolicy", "Failed" if has_policy else "TerminatingOrFailed")
    template = spec["template"].setdefault("spec", {})
    # A template that names no restart policy is refused: Always, the default of pods, is none of a job's.
    pod_spec(template, owner_policy="Always")


def _secret(obj: Object) -> None:
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None) or {}
    if plain:
        coded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **coded}


def _service(spec: Object) -> None:
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
