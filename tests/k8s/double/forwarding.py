"""``pods/portforward`` over a WebSocket: for each port a channel of data and one of errors, as a kubelet serves them."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.k8s.double.errors import ApiError
from tests.k8s.double.objects import Object, dig, name_of, uid_of
from tests.k8s.double.websockets import Closed, WebSocket

PROTOCOLS: Final = ("v4.channel.k8s.io",)
_CHUNK_BYTES: Final = 32 * 1024
_PATIENCE_S: Final = 5.0


def ports_of(query: Mapping[str, str]) -> list[int]:
    """The ports that are asked for. Raises 400 for none, and for what is none."""
    ports = []
    for text in query.get("ports", "").split(","):
        if not text:
            raise ApiError(400, 'query parameter "port" is required')
        if not text.isdecimal() or not 0 < int(text) < 1 << 16:
            raise ApiError(400, f'unable to parse "{text}" as a port')
        ports.append(int(text))
    return ports


def address_of(pod: Object, is_reachable: Callable[[str], bool]) -> str:
    """Where the ports of a pod are. Raises `ApiError` for one that has no node, whose node is away, or that does not run."""
    node = dig(pod, "spec", "nodeName")
    if not node:
        raise ApiError(400, f"pod {name_of(pod)} does not have a host assigned")
    if not is_reachable(node):
        raise ApiError(500, f"error dialing backend: dial tcp {node}:10250: connect: no route to host")
    if dig(pod, "status", "phase") != "Running" or not dig(pod, "status", "podIP"):
        raise ApiError(500, f'sandbox of pod "{name_of(pod)}" is not running')
    return str(pod["status"]["podIP"])


def forward(connection: WebSocket, pod: Object, address: str, ports: Sequence[int]) -> None:
    """Serve a connection until either side closes it, or a port cannot be reached.

    On a real node the other end is `localhost` inside the pod; here a pod that listens on all addresses has just its own.
    """
    for index, port in enumerate(ports):
        for channel in (2 * index, 2 * index + 1):
            connection.send(bytes((channel,)) + struct.pack("<H", port))
    targets: dict[int, socket.socket] = {}
    pumps = []
    try:
        for index, port in enumerate(ports):
            try:
                targets[2 * index] = target = socket.create_connection((address, port), timeout=_PATIENCE_S)
            except OSError as error:
                told = (
                    f"error forwarding port {port} to pod {name_of(pod)}, uid {uid_of(pod)}: dial tcp4 127.0.0.1:{port}: {error.strerror}"
                )
                connection.send(bytes((2 * index + 1,)) + told.encode())
                return
            target.settimeout(None)
            pumps.append(threading.Thread(target=_pump, args=(target, connection, 2 * index), name="forwarded", daemon=True))
            pumps[-1].start()
        while True:
            message = connection.receive()
            # What is sent to other channels goes nowhere, as with a kubelet.
            if message and message[0] in targets:
                targets[message[0]].sendall(message[1:])
    except (Closed, OSError):
        # Either end has hung up.
        return
    finally:
        for target in targets.values():
            _shut(target)
        for pump in pumps:
            pump.join()
        for target in targets.values():
            target.close()
        _close(connection)


def _pump(target: socket.socket, connection: WebSocket, channel: int) -> None:
    """Carry what a pod says until it hangs up; then the client is told."""
    try:
        while data := target.recv(_CHUNK_BYTES):
            connection.send(bytes((channel,)) + data)
    except OSError:
        pass
    _close(connection)


def _shut(target: socket.socket) -> None:
    try:
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It has been shut from the other side.
        return


def _close(connection: WebSocket) -> None:
    try:
        connection.close()
    except (OSError, ValueError):
        # The client has gone.
        return
