"""Services: names and addresses that stay, and lead to the pods that are ready."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.k8s.double.addresses import Addresses
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.double.timing import Timing
from tests.k8s.scenes import pod_of, shell, wait_for_phase, wait_for_word
from tests.k8s.talk import PODS, Talk

SERVICES = "/api/v1/namespaces/default/services"
PORT = 7070
ECHO = """
import os, socket, signal
listener = socket.create_server((os.environ["IP"], 7071))
print("ready", flush=True)
while True:
    with listener.accept()[0] as connection:
        connection.sendall(os.environ["NAME"].encode() + b" " + connection.recv(100))
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster([Node("n1", labels={"is": "n1"}), Node("n2")], timing=Timing(scale=0.003)) as cluster:
        yield cluster


def echo(name: str, **spec: Any) -> dict[str, Any]:
    fields = {"IP": "status.podIP", "NAME": "metadata.name"}
    env = [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()]
    ports = [{"name": "talk", "containerPort": 7071}]
    container = {"name": "main", "image": "i", "command": [sys.executable, "-I", "-S", "-c", ECHO], "env": env, "ports": ports}
    return pod_of(container, name=name, labels={"app": "echo"}, terminationGracePeriodSeconds=0, **spec)


def service(name: str = "echo", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"selector": {"app": "echo"}, "ports": [{"port": PORT, "targetPort": "talk"}], **spec}}


def say(address: str) -> str:
    """What the pod behind an address answers; nothing where the connection is refused."""
    try:
        with closing(socket.create_connection((address, PORT), timeout=5)) as connection:
            connection.sendall(b"hello")
            return connection.recv(100).decode()
    except ConnectionRefusedError:
        return ""
    except ConnectionResetError:
        return "reset"


def test_an_address_leads_to_ready_pods_and_refuses_without_them(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    address = talk.create(SERVICES, service())["spec"]["clusterIP"]
    assert say(address) == ""

    talk.create(PODS, echo("a"))
    wait_for_word(cluster, "ready", "a")
    cluster.wait(lambda: say(address) == "a hello", "the first pod to answer")
    talk.create(PODS, echo("b"))
    wait_for_word(cluster, "ready", "b")
    cluster.wait(lambda: {say(address), say(address)} == {"a hello", "b hello"}, "both to answer")
    talk.delete(PODS)
    cluster.wait(lambda: say(address) == "", "the connection to be refused")


def test_a_lost_pod_takes_no_new_connections_and_keeps_the_old_ones(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    address = talk.create(SERVICES, service())["spec"]["clusterIP"]
    talk.create(PODS, echo("a", nodeSelector={"is": "n1"}, tolerations=[{"operator": "Exists"}]))
    wait_for_word(cluster, "ready", "a")
    cluster.wait(lambda: say(address) == "a hello", "the pod to answer")

    with closing(socket.create_connection((address, PORT), timeout=5)) as connection:
        cluster.lose_node("n1")
        cluster.wait(lambda: is_refused(address), "new connections to be refused")
        connection.sendall(b"still here")
        assert connection.recv(100) == b"a still here"


def is_refused(address: str) -> bool:
    try:
        socket.create_connection((address, PORT), timeout=5).close()
    except ConnectionError as error:
        # A reset is a connection that came in the moment in which the listener was closed.
        return isinstance(error, ConnectionRefusedError)
    return False


def test_containers_reach_a_service_by_its_name(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    caller = (
        "import os, socket\n"
        "host, port = os.environ['MASTER'].split(':')\n"
        "c = socket.create_connection((host, int(port)))\n"
        "c.sendall(b'hi'); print(c.recv(100).decode())"
    )
    talk.create(SERVICES, service(clusterIP="None"))
    talk.create(PODS, echo("a"))
    wait_for_word(cluster, "ready", "a")
    wait_for_phase(cluster, "Running", "a")
    env = [{"name": "MASTER", "value": f"a.echo.default.svc.cluster.local:{PORT}"}]
    command = [sys.executable, "-I", "-S", "-c", caller]
    talk.create(PODS, pod_of({**shell(""), "command": command, "env": env}, restartPolicy="OnFailure"))
    wait_for_phase(cluster, "Succeeded")
    assert talk.get(f"{PODS}/p/log") == "a hi\n"


def test_addresses_are_given_back_and_run_out() -> None:
    addresses = Addresses()
    addresses.net = Addresses.net_of(0x8001)
    taken = [addresses.take() for _ in range(204)]
    assert len(set(taken)) == 204 and taken[0] == "127.128.1.51"
    with pytest.raises(IndexError):
        addresses.take()
    addresses.give_back(taken[7])
    assert addresses.take() == taken[7]


def test_names_are_resolved_where_they_stand_alone() -> None:
    addresses = Addresses()
    addresses.net = Addresses.net_of(40_000)
    one = addresses.of("default", "one")
    assert addresses.resolve("one.default.svc:80,http://one.default.svc.cluster.local/x") == f"{one}:80,http://{one}/x"
    assert addresses.resolve("pod-0.one.default.svc") == one
    assert addresses.resolve("one.default.svcs one.default svc") == "one.default.svcs one.default svc"
    assert addresses.of("default", "two") != one
