"""The pods of workers. Pure: settings and an order in, an object out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from antinfer.errors import UsageError
from antinfer.launchers import pidfile
from antinfer.launchers.kubernetes import secret
from antinfer.launchers.kubernetes.facts import CLASS_LABEL, CONTAINER
from antinfer.launchers.kubernetes.merging import merged
from antinfer.launchers.kubernetes.settings import KubernetesSettings
from antinfer.launchers.port import WorkerOrder

JOB_LABEL: Final = "antinfer.io/job"
_LABELS: Final = {"app.kubernetes.io/name": "antinfer", "app.kubernetes.io/component": "worker"}
_USER: Final = 65_532
_GRACE: Final = "terminationGracePeriodSeconds"
_DEFAULT_GRACE_S: Final = 30
"""What an API server fills in."""
_LEAVE_S: Final = 5
"""Of the grace period, what is left to the system after a worker should be gone."""
_PID_FILE: Final = "/tmp/worker.pid"
_LEAVE: Final = f'read -r pid <"${pidfile.VARIABLE}" && kill -USR1 "$pid"; exit 0'
"""What is run before SIGTERM. That reaches the first process of the container alone, which need not be the worker: a shell or a script of
the image before it keeps the signal to itself, and the worker would work on until it is killed."""
_UNREACHABLE_S: Final = 30
"""How long a pod stays bound to a node that does not answer, instead of five minutes: a worker's replacement waits for nobody anyway."""


def worker_pod(
    settings: KubernetesSettings, order: WorkerOrder, *, job: str, master: str, owner: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the pod of a worker.

    Args:
        settings: how workers are made.
        order: which one.
        job: id of the job.
        master: where the master is found.
        owner: reference to the object with which it goes.

    Raises:
        UsageError: What the user lays over it leaves no container for the worker.
    """
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"labels": {}},
        "spec": _spec(settings, order, master, _grace_s(settings, order.worker_class)),
    }
    pod = _laid_over(pod, settings, order.worker_class)
    metadata = pod["metadata"]
    metadata["name"], metadata["namespace"] = order.name, settings.namespace
    metadata["labels"] = {**metadata["labels"], **_LABELS, JOB_LABEL: job, CLASS_LABEL: order.worker_class}
    if owner is not None:
        metadata["ownerReferences"] = [dict(owner)]
    pod["spec"]["restartPolicy"] = "Never"
    if order.memory_bytes:
        _limit_memory(pod, order.memory_bytes)
    if order.avoid:
        _avoid(pod["spec"], order.avoid)
    return pod


def restricted() -> dict[str, Any]:
    """Return the security context of a container that may do nothing but compute."""
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def unprivileged() -> dict[str, Any]:
    """Return the security context of a pod whose processes are nobody in particular."""
    return {"runAsNonRoot": True, "runAsUser": _USER, "runAsGroup": _USER, "fsGroup": _USER, "seccompProfile": {"type": "RuntimeDefault"}}


def impatient() -> list[dict[str, Any]]:
    """Return the tolerations of a pod that is not long bound to a node that does not answer."""
    return [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _UNREACHABLE_S}
        for key in ("not-ready", "unreachable")
    ]


def _laid_over(pod: dict[str, Any], settings: KubernetesSettings, worker_class: str) -> dict[str, Any]:
    laid: dict[str, Any] = merged(merged(pod, settings.template), settings.classes.get(worker_class, {}))
    return laid


def _grace_s(settings: KubernetesSettings, worker_class: str) -> int:
    """Return the grace period of a pod, of which what is laid over it has the last word."""
    pod = _laid_over({"spec": {_GRACE: settings.grace_s}}, settings, worker_class)
    return int(pod["spec"].get(_GRACE, _DEFAULT_GRACE_S))


def _spec(settings: KubernetesSettings, order: WorkerOrder, master: str, pod_grace_s: int) -> dict[str, Any]:
    grace_s = max(1, pod_grace_s - _LEAVE_S)
    # Apart from the command, so that a template can put something before that and need not know them.
    args = ["--master", master, "--name", order.name, "--grace", str(grace_s)]
    volumes: list[dict[str, Any]] = [
        {"name": "scratch", "emptyDir": {}},
        # Batches travel through shared memory, of which containers have 64 MiB unless told otherwise.
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    mounts: list[dict[str, Any]] = [{"name": "scratch", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]
    if settings.secret:
        args += [*secret.options("worker"), "--tls-name", settings.server_name]
        volumes.append(secret.volume(settings.secret, "worker"))
        mounts.append(secret.mount())
    container = {
        "name": CONTAINER,
        "image": settings.image,
        "command": ["python", "-m", "antinfer.worker"],
        "args": args,
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": pidfile.VARIABLE, "value": _PID_FILE}],
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", _LEAVE]}}},
        "securityContext": restricted(),
        # The kubelet's word about an end is then the worker's own.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    return {
        "restartPolicy": "Never",
        _GRACE: settings.grace_s,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": unprivileged(),
        "tolerations": impatient(),
        "containers": [container],
        "volumes": volumes,
    }


def _limit_memory(pod: dict[str, Any], memory_bytes: int) -> None:
    worker = next((each for each in pod["spec"].get("containers") or () if each["name"] == CONTAINER), None)
    if worker is None:
        raise UsageError(f"the pods of workers have no container {CONTAINER!r}", hint="Leave it in, and lay your own beside it.")
    amount = {"memory": str(memory_bytes)}
    resources = worker.get("resources") or {}
    worker["resources"] = merged(resources, {"limits": amount, "requests": amount})


def _avoid(spec: dict[str, Any], nodes: Sequence[str]) -> None:
    """Keep a pod off `nodes`, in each of the alternatives that it may be placed by."""
    wish = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": list(nodes)}
    path = ("nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    affinity = spec.get("affinity") or {}
    terms = ((affinity.get(path[0]) or {}).get(path[1]) or {}).get("nodeSelectorTerms") or [{}]
    terms = [{**term, "matchExpressions": [*term.get("matchExpressions", ()), wish]} for term in terms]
    spec["affinity"] = merged(affinity, {path[0]: {path[1]: {"nodeSelectorTerms": terms}}})
