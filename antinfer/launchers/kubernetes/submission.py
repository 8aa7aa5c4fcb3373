"""The objects of a job on Kubernetes, all but the pods of its workers, which its master makes. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from antinfer.errors import UsageError
from antinfer.launchers.kubernetes import policies, secret
from antinfer.launchers.kubernetes.manifests import JOB_LABEL, impatient, restricted, unprivileged
from antinfer.launchers.kubernetes.merging import merged
from antinfer.launchers.kubernetes.secret import Secrets
from antinfer.launchers.kubernetes.settings import KubernetesSettings

PORT: Final = 7_077
CONTAINER: Final = "master"
_JOB_DIR: Final = "/etc/antinfer/job"
_CODE_DIR: Final = "/etc/antinfer/code"
_SUBMISSION: Final = "submission.json"
_WORKERS: Final = "-worker"
"""Ends the names of what is there for workers alone."""
_MOST_BYTES: Final = 1_000_000
"""Of a config map: a server takes 1 MiB, names and all."""
_NAME_LENGTH: Final = 40
_RESTARTS: Final = 20
"""Deaths of the master that the cluster is not to blame for, after which the job is given up."""
_USER_ERRORS: Final = (1, 2)
"""Exit codes of a master that starting it again would not help."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to run, and where."""

    job: str
    """Id of the job."""
    title: str
    """Its name, for people."""
    document: str
    """The job as JSON, without secrets."""
    code: Mapping[str, bytes]
    """The user's source files, by path relative to the folder of the job file."""
    image: str
    secrets: Secrets
    namespace: str = "default"
    grace_s: int = 30
    worker: Mapping[str, Any] = field(default_factory=dict)
    """Laid over the pods of workers."""
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Laid over those of one class."""
    master: Mapping[str, Any] = field(default_factory=dict)
    """Laid over the pod of the master."""
    egress: tuple[int, ...] = ()
    """More ports that the master may connect to."""

    @classmethod
    def restored(cls, data: Mapping[str, bytes], namespace: str, secrets: Secrets) -> Submission:
        """Return what was submitted, from what its config map says; it needs new secrets. Raises as `noted`."""
        told = dict(noted(data))
        code = {path: data[_key(path)] for path in told.pop("code")}
        del told["secrets"]
        egress = tuple(told.pop("egress"))
        return cls(**told, document=data["job.json"].decode(), code=code, egress=egress, namespace=namespace, secrets=secrets)

    @property
    def name(self) -> str:
        """Name of all its objects."""
        return object_name(self.title, self.job)


def noted(data: Mapping[str, bytes]) -> Mapping[str, Any]:
    """Return what `submit` noted of a job in its config map. Raises `UsageError` when something else has made it."""
    if _SUBMISSION not in data:
        raise UsageError(
            "this job was not made by `antinfer submit`",
            hint="What made it, Helm or kustomize, removes it and brings it back; then it goes on from its output.",
        )
    found: dict[str, Any] = json.loads(data[_SUBMISSION])
    return found


def secrets_named(data: Mapping[str, bytes]) -> list[str]:
    """Return which of the secrets that cannot be made anew a job had, as its config map says. Raises as `noted`."""
    return list(noted(data)["secrets"])


def object_name(title: str, job: str) -> str:
    """Return the name of a job's objects: what people call it, and enough of its id that no two jobs share one."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower())[: _NAME_LENGTH - 16].strip("-")
    return f"antinfer-{slug}-{job[:6]}" if slug else f"antinfer-{job[:6]}"


def server_names(name: str, namespace: str) -> list[str]:
    """Return the names by which a cluster's DNS knows the master of a job, the one that workers expect first."""
    return [f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local", name]


def master_rules(name: str) -> list[dict[str, Any]]:
    """Return what the master of the job whose objects have that name may do in its namespace."""
    return [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete", "get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "resourceNames": [name], "verbs": ["list", "watch"]},
    ]


def objects(what: Submission) -> list[dict[str, Any]]:
    """Return everything that is created, the job itself first: the rest belongs to it, and goes when it is deleted.

    Raises:
        UsageError: The user code does not fit into a config map, or lies outside of the folder of the job file.
    """
    ports = policies.master_ports([what.document, json.dumps(what.master)], what.secrets.store_url, what.egress)
    return [
        _job(what),
        _object(what, "v1", "ServiceAccount", automountServiceAccountToken=False),
        # Bound to nothing: what somebody may have bound to the namespace's own account is none of the workers' business.
        _object(what, "v1", "ServiceAccount", _WORKERS, automountServiceAccountToken=False),
        _object(
            what,
            "rbac.authorization.k8s.io/v1",
            "Role",
            rules=master_rules(what.name),
        ),
        _object(
            what,
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            subjects=[{"kind": "ServiceAccount", "name": what.name, "namespace": what.namespace}],
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": what.name},
        ),
        _config_map(what),
        _object(what, "v1", "Secret", type="Opaque", stringData=what.secrets.data()),
        _object(
            what,
            "v1",
            "Service",
            spec={"selector": _labels(what, "master"), "ports": [{"name": "grpc", "port": PORT, "targetPort": "grpc"}]},
        ),
        _network_policy(
            what,
            "master",
            ingress=policies.ingress_to_master(_labels(what, "worker"), _labels(what, policies.SUBMITTER)),
            egress=policies.egress_of_master(ports),
        ),
        _network_policy(what, "worker", ingress=[]),
    ]


# -- parts ------------------------------------------------------------------------------------------------------------------------------
def _object(what: Submission, version: str, kind: str, suffix: str = "", **content: Any) -> dict[str, Any]:
    metadata = {"name": what.name + suffix, "namespace": what.namespace, "labels": _labels(what)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}


def _labels(what: Submission, component: str = "") -> dict[str, str]:
    labels = {"app.kubernetes.io/name": "antinfer", JOB_LABEL: what.job}
    return {**labels, "app.kubernetes.io/component": component} if component else labels


def _job(what: Submission) -> dict[str, Any]:
    rules = [
        {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(_USER_ERRORS)}},
        # Nodes that are taken away cost a job nothing.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    pod = merged({"metadata": {"labels": _labels(what, "master")}, "spec": _master(what)}, what.master)
    pod["metadata"]["labels"] |= _labels(what, "master")
    spec = {"backoffLimit": _RESTARTS, "podFailurePolicy": {"rules": rules}, "template": pod}
    return _object(what, "batch/v1", "Job", spec=spec)


def _master(what: Submission) -> dict[str, Any]:
    document = f"{secret.DIR}/{secret.DOCUMENT}" if what.secrets.document else f"{_JOB_DIR}/job.json"
    command = ["python", "-m", "antinfer.master", "--job", document, "--base-dir", _CODE_DIR]
    # On all addresses: what is forwarded by the API server comes to the loopback interface of the pod.
    command += ["--kubernetes", f"{_JOB_DIR}/kubernetes.json", "--listen", f"0.0.0.0:{PORT}"]
    command += [*secret.options("master"), "--admin-token-file", f"{secret.DIR}/admin-token"]
    keys = ["admin-token"]
    if what.secrets.store_url:
        command += ["--store-file", f"{secret.DIR}/{secret.STORE_URL}"]
        keys.append(secret.STORE_URL)
    if what.secrets.document:
        keys.append(secret.DOCUMENT)
    env: list[dict[str, Any]] = [
        {"name": "HOME", "value": "/tmp"},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    container = {
        "name": CONTAINER,
        "image": what.image,
        "command": command,
        "env": env,
        "ports": [{"name": "grpc", "containerPort": PORT}],
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}},
        "securityContext": restricted(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/tmp"},
            {"name": "job", "mountPath": _JOB_DIR, "readOnly": True},
            {"name": "code", "mountPath": _CODE_DIR, "readOnly": True},
            secret.mount(),
        ],
    }
    documents = [{"key": key, "path": key} for key in ("job.json", "kubernetes.json")]
    return {
        "restartPolicy": "Never",
        "serviceAccountName": what.name,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "securityContext": unprivileged(),
        "tolerations": impatient(),
        "containers": [container],
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "job", "configMap": {"name": what.name, "items": documents}},
            _code_volume(what),
            secret.volume(what.name, "master", keys),
        ],
    }


def _config_map(what: Submission) -> dict[str, Any]:
    """Return the job, how its workers are made, and the user's code."""
    for path in what.code:
        if path.startswith("..") or os.path.isabs(path):
            raise UsageError(
                f"the user code {path} lies outside of the folder of the job file", hint="Move it there, or put it into the image."
            )
    mounts = [{"name": "code", "mountPath": _CODE_DIR, "readOnly": True}]
    ours = {
        "spec": {
            "serviceAccountName": what.name + _WORKERS,
            "containers": [{"name": "worker", "volumeMounts": mounts}],
            "volumes": [_code_volume(what)],
        }
    }
    settings = KubernetesSettings(
        image=what.image,
        namespace=what.namespace,
        master=f"{what.name}.{what.namespace}.svc:{PORT}",
        secret=what.name,
        server_name=what.secrets.certificates.server_name,
        grace_s=what.grace_s,
        template=merged(ours, what.worker),
        classes=what.classes,
    )
    data = {"job.json": what.document, "kubernetes.json": settings.to_json(), _SUBMISSION: _submission(what)}
    # Text is text, for people; Python also reads files in other encodings that say so.
    binary: dict[str, bytes] = {}
    for path, content in what.code.items():
        try:
            data[_key(path)] = content.decode("utf-8")
        except UnicodeDecodeError:
            binary[_key(path)] = content
    size = sum(len(key) + len(text.encode()) for key, text in data.items()) + sum(len(key) + len(each) for key, each in binary.items())
    if size > _MOST_BYTES:
        largest = max(what.code, key=lambda path: len(what.code[path]), default="job.json")
        raise UsageError(
            f"job file and user code are {size:,} bytes, and a config map holds {_MOST_BYTES:,}; the largest file is {largest}",
            hint="Install the code in the image: modules that are found there are not sent along.",
        )
    contents: dict[str, Any] = {"data": data}
    if binary:
        contents["binaryData"] = {key: base64.b64encode(content).decode() for key, content in binary.items()}
    return _object(what, "v1", "ConfigMap", **contents)


def _submission(what: Submission) -> str:
    """Return all that a job can be submitted by again, but for what stands beside it and for secrets."""
    plain = {key: getattr(what, key) for key in ("job", "title", "image", "grace_s", "worker", "classes", "master", "egress")}
    lasting = {secret.STORE_URL: what.secrets.store_url, secret.DOCUMENT: what.secrets.document}
    told = {**plain, "code": list(what.code), "secrets": [key for key, value in lasting.items() if value]}
    return json.dumps(told, indent=1, sort_keys=True)


def _code_volume(what: Submission) -> dict[str, Any]:
    items = [{"key": _key(path), "path": path} for path in what.code]
    # Without items a config map is mounted whole, job and all.
    return {"name": "code", "configMap": {"name": what.name, "items": items}} if items else {"name": "code", "emptyDir": {}}


def _key(path: str) -> str:
    """Return the key of a file: names of folders may hold what keys may not."""
    return f"code-{hashlib.sha256(path.encode()).hexdigest()[:16]}"


def _network_policy(what: Submission, component: str, **rules: list[dict[str, Any]]) -> dict[str, Any]:
    spec = {"podSelector": {"matchLabels": _labels(what, component)}, "policyTypes": [kind.capitalize() for kind in rules], **rules}
    return _object(what, "networking.k8s.io/v1", "NetworkPolicy", f"-{component}", spec=spec)


def suspended(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job as it is created: it begins when everything that it needs is there."""
    return {**job, "spec": {**job["spec"], "suspend": True}}


def owned(obj: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as one that belongs to the job that was created."""
    reference = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    return {**obj, "metadata": {**obj["metadata"], "ownerReferences": [reference]}}
