"""The clients that people use: kubectl, and the official client for Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.watch
import pytest

from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.scenes import handler, history, pod_of, reason, wait_for_word
from tests.k8s.talk import config, pod

Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(cluster: Cluster, tmp_path: Path) -> Kubectl:
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not on this machine")
    path = cluster.kubeconfig(tmp_path / "kubeconfig")

    def call(*arguments: str, said: Any = None) -> str:
        text = json.dumps(said) if said is not None else None
        command = [program, "--kubeconfig", str(path), "--cache-dir", str(tmp_path / "cache"), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30)
        return done.stdout + done.stderr

    return call


def whole(kind: str, obj: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, **obj}


def test_kubectl_creates_shows_changes_and_deletes(kubectl: Kubectl) -> None:
    assert kubectl("create", "-f", "-", said=whole("Pod", pod("p"))) == "pod/p created\n"
    assert kubectl("get", "pods").split()[:-1] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "p", "0/1", "Pending", "0"]
    assert kubectl("label", "pod", "p", "a=b") == "pod/p labeled\n"
    assert json.loads(kubectl("get", "pod", "p", "-o", "json"))["metadata"]["labels"] == {"a": "b"}
    assert "Status:           Pending" in kubectl("describe", "pod", "p")
    assert "deleted" in kubectl("delete", "pod", "p")
    assert 'pods "p" not found' in kubectl("get", "pod", "p")


def test_kubectl_applies_on_either_side(kubectl: Kubectl) -> None:
    first = whole("ConfigMap", config("x", a="1", b="1"))
    assert kubectl("apply", "-f", "-", said=first) == "configmap/x created\n"
    assert kubectl("apply", "-f", "-", said=whole("ConfigMap", config("x", a="2"))) == "configmap/x configured\n"
    assert kubectl("get", "configmap", "x", "-o", "jsonpath={.data}") == '{"a":"2"}'
    other = whole("ConfigMap", config("y", a="1"))
    assert kubectl("apply", "--server-side", "-f", "-", said=other) == "configmap/y serverside-applied\n"
    conflict = kubectl("apply", "--server-side", "--field-manager=me", "-f", "-", said=whole("ConfigMap", config("y", a="2")))
    assert 'Apply failed with 1 conflict: conflict with "kubectl": .data.a' in conflict


def test_kubectl_is_told_of_unknown_fields(kubectl: Kubectl) -> None:
    assert 'strict decoding error: unknown field "spec.nodeselector"' in kubectl(
        "create", "-f", "-", said=whole("Pod", pod("p", nodeselector={}))
    )


def test_kubectl_follows_pods_and_marks_nodes(cluster: Cluster, kubectl: Kubectl) -> None:
    cluster.add_node(Node("n1"))
    kubectl("create", "-f", "-", said=whole("Pod", pod_of(handler())))
    assert kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=20s") == "pod/p condition met\n"
    wait_for_word(cluster, "ready")
    assert kubectl("logs", "p") == "ready\n"
    assert kubectl("cordon", "n1") == "node/n1 cordoned\n"
    assert kubectl("taint", "nodes", "n1", "leave=now:NoExecute") == "node/n1 tainted\n"
    assert kubectl("wait", "--for=delete", "pod/p", "--timeout=20s") in ("pod/p condition met\n", "")
    assert kubectl("get", "nodes").split()[5:7] == ["n1", "Ready,SchedulingDisabled"]
    assert "TaintManagerEviction" in kubectl("get", "events")


def test_kubectl_sends_what_it_builds_itself_in_protobuf(cluster: Cluster, kubectl: Kubectl) -> None:
    assert kubectl("create", "configmap", "c", "--from-literal=a=b") == "configmap/c created\n"
    assert kubectl("get", "configmap", "c", "-o", "jsonpath={.data}") == '{"a":"b"}'
    assert kubectl("create", "secret", "generic", "s", "--from-literal=token=abc") == "secret/s created\n"
    assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.token}") == "YWJj"
    assert kubectl("create", "namespace", "more") == "namespace/more created\n"
    assert kubectl("auth", "can-i", "delete", "pods") == "yes\n"
    assert "is not understood" in kubectl("create", "role", "r", "--verb=get", "--resource=pods")


def test_kubectl_drains_a_node(cluster: Cluster, kubectl: Kubectl) -> None:
    cluster.add_node(Node("n1"))
    kubectl("create", "-f", "-", said=whole("Pod", pod_of(handler())))
    wait_for_word(cluster, "ready")
    version = str(cluster.store.revision)
    said = kubectl("drain", "n1", "--force", "--timeout=20s")
    assert "node/n1 drained" in said, said
    assert reason(history(cluster, version)[-1]) == "EvictionByEvictionAPI"


def test_the_python_client_creates_lists_and_deletes(core: Any) -> None:
    created = core.create_namespaced_pod("default", whole("Pod", pod("p")))
    assert created.status.phase == "Pending" and created.metadata.creation_timestamp.year > 2000
    assert [each.metadata.name for each in core.list_namespaced_pod("default", label_selector="a!=b").items] == ["p"]
    core.patch_namespaced_pod("p", "default", {"metadata": {"labels": {"a": "b"}}})
    assert core.list_namespaced_pod("default", label_selector="a!=b").items == []
    core.delete_namespaced_pod("p", "default")
    with pytest.raises(kubernetes.client.ApiException) as caught:
        core.read_namespaced_pod("p", "default")
    assert json.loads(caught.value.body)["reason"] == "NotFound"


def test_the_python_client_watches_and_leaves_a_stream_that_expired(cluster: Cluster, core: Any) -> None:
    version = core.list_namespaced_config_map("default").metadata.resource_version
    core.create_namespaced_config_map("default", whole("ConfigMap", config("a")))
    watch = kubernetes.watch.Watch()
    for event in watch.stream(core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=10):
        assert (event["type"], event["object"].metadata.name) == ("ADDED", "a")
        watch.stop()
    cluster.compact()
    with pytest.raises(kubernetes.client.ApiException) as caught:
        next(iter(kubernetes.watch.Watch().stream(core.list_namespaced_config_map, "default", resource_version=version)))
    assert caught.value.status == 410


def test_leases_are_held_by_version(cluster: Cluster, core: Any) -> None:
    leases = kubernetes.client.CoordinationV1Api(core.api_client)
    body = {
        "metadata": {"name": "l"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2030-01-01T00:00:00.000001Z"},
    }
    lease = leases.create_namespaced_lease("default", body)
    leases.replace_namespaced_lease("l", "default", lease)
    lease.spec.holder_identity = "b"
    leases.replace_namespaced_lease("l", "default", lease)
    with pytest.raises(kubernetes.client.ApiException) as caught:
        leases.replace_namespaced_lease("l", "default", lease)
    assert caught.value.status == 409
