"""Ports of pods over WebSockets: with the official client, and what is refused."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
from kubernetes.stream import portforward

from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.scenes import pod_of, wait_for_phase, wait_for_word
from tests.k8s.talk import PODS, Talk, pod

ECHO = """
import os, socket
server = socket.create_server((os.environ["HOST"], 5000))
print("ready", flush=True)
while True:
    peer, _ = server.accept()
    while data := peer.recv(65536):
        peer.sendall(data)
        if data.endswith(b"end"):
            break
    peer.close()
"""
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "v4.channel.k8s.io",
}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster([Node("n1")]) as cluster:
        variables = [{"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
        echo = {"name": "main", "image": "i:1", "command": [sys.executable, "-I", "-S", "-c", ECHO], "env": variables}
        Talk(cluster.url).create(PODS, pod_of(echo))
        wait_for_word(cluster, "ready")
        wait_for_phase(cluster, "Running")
        yield cluster


def read(source: Any, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := source.recv(65536)):
        data += more
    return data


def test_the_python_client_speaks_to_a_port(core: Any) -> None:
    forwarded = portforward(core.connect_get_namespaced_pod_portforward, "p", "default", ports="5000")
    port = forwarded.socket(5000)
    port.settimeout(20)
    for message in (b"a" * 5, b"b" * 1_000, b"c" * 300_000, b"the end"):
        port.sendall(message)
        assert read(port, len(message)) == message
    assert port.recv(1) == b"", "the pod has hung up"
    assert forwarded.error(5000) is None
    port.close()
    forwarded.websocket.shutdown()


def test_a_port_that_nobody_listens_on_says_so(core: Any) -> None:
    forwarded = portforward(core.connect_get_namespaced_pod_portforward, "p", "default", ports="5001")
    port = forwarded.socket(5001)
    port.settimeout(20)
    assert port.recv(1) == b""
    assert "error forwarding port 5001 to pod p" in forwarded.error(5001)
    port.close()
    forwarded.websocket.shutdown()


def raw(cluster: Cluster, path: str, headers: dict[str, str]) -> socket.socket:
    parts = urlsplit(cluster.url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=20)
    lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items())]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def refusal(cluster: Cluster, path: str, headers: dict[str, str]) -> tuple[int, str]:
    parts = urlsplit(cluster.url)
    assert parts.hostname
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, str(json.loads(answer.read())["message"])


@pytest.mark.parametrize(
    ("path", "changes", "code", "told"),
    [
        (f"{PODS}/p/portforward?ports=5000", {"Connection": "close", "Upgrade": ""}, 400, "Upgrade request required"),
        (f"{PODS}/p/portforward", {}, 400, "is required"),
        (f"{PODS}/p/portforward?ports=0", {}, 400, "as a port"),
        (f"{PODS}/p/portforward?ports=5000", {"Sec-WebSocket-Protocol": "v5.channel.k8s.io"}, 403, "not supported"),
        (f"{PODS}/p/portforward?ports=5000", {"Sec-WebSocket-Version": "8"}, 400, "version 13"),
        (f"{PODS}/nobody/portforward?ports=5000", {}, 404, "not found"),
        (f"{PODS}/waiting/portforward?ports=5000", {}, 400, "does not have a host assigned"),
    ],
    ids=["plain", "no-port", "bad-port", "protocol", "version", "missing", "unplaced"],
)
def test_what_is_no_forwarding_is_refused(cluster: Cluster, path: str, changes: dict[str, str], code: int, told: str) -> None:
    Talk(cluster.url).create(PODS, pod("waiting", nodeSelector={"pool": "none"}))
    status, message = refusal(cluster, path, {**UPGRADE, **changes})
    assert status == code and told in message


def test_frames_that_are_not_masked_end_the_connection(cluster: Cluster) -> None:
    with raw(cluster, f"{PODS}/p/portforward?ports=5000", UPGRADE) as connection:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        assert read(connection, 10) == b"\x82\x03\x00\x88\x13\x82\x03\x01\x88\x13", "both channels begin with the number of the port"
        connection.sendall(b"\x82\x03\x00hi")
        assert read(connection, 4) == b"\x88\x02\x03\xea", "closed: a protocol error"


def test_forwarding_takes_two_rights(cluster: Cluster) -> None:
    admin = Talk(cluster.url)
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    token = cluster.service_account_token("default", "default")
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    subjects = [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]
    admin.create(f"{rbac}/rolebindings", {"metadata": {"name": "r"}, "roleRef": reference, "subjects": subjects})
    rule = {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get"]}
    admin.create(f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": [rule]})
    headers = {**UPGRADE, "Authorization": f"Bearer {token}"}
    status, message = refusal(cluster, f"{PODS}/p/portforward?ports=5000", headers)
    assert status == 403 and 'cannot create resource "pods/portforward"' in message
    admin.patch(f"{rbac}/roles/r", {"rules": [{**rule, "verbs": ["get", "create"]}]})
    with raw(cluster, f"{PODS}/p/portforward?ports=5000", headers) as connection:
        assert read(connection, 12).startswith(b"HTTP/1.1 101 ")
