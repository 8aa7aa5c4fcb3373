"""A port of a pod as a socket of this machine, by the API server: what `kubectl port-forward` does."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import threading
import time
from typing import Any, Final, Self

from antinfer.launchers.kubernetes.api import Api, ApiError
from antinfer.launchers.sockets import socket_folder

_log = logging.getLogger("antinfer.launchers.kubernetes")
_CHUNK_BYTES: Final = 1 << 16
_PATIENCE_S: Final = 5.0
_LIBRARY_THREAD: Final = "Kubernetes port forward proxy"


class Forwarding:
    """Leads connections to a Unix socket, which we alone can reach, to one port of a pod. Use as a context manager."""

    def __init__(self, api: Api, namespace: str, pod: str, port: int) -> None:
        """
        Args:
            api: the server.
            namespace: of the pod.
            pod: its name.
            port: what it listens on.

        Raises:
            ApiError: The server refuses, or the pod does not run.
        """
        from kubernetes.client import ApiClient, CoreV1Api

        self._api, self._namespace, self._pod, self._port = api, namespace, pod, port
        # A client of its own: for the time of a call the library changes how it sends.
        self._core = CoreV1Api(ApiClient(api.configuration))
        self.error = ""
        """What the node of the pod has said was wrong with the port."""
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        # The first is opened before anybody asks for it, so that a refusal is a clear error.
        self._ready: Any = self._forward()
        self._folder = socket_folder()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._folder}/master")
        self._listener.listen()
        self._accepting = threading.Thread(target=self._accept, name=f"forward {pod}:{port}", daemon=True)
        self._accepting.start()

    @property
    def address(self) -> str:
        """Where to connect to."""
        return f"unix://{self._folder}/master"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Break what is open, and take no more."""
        _shut(self._listener)
        self._accepting.join(_PATIENCE_S)
        self._listener.close()
        with self._guard:
            for each in self._open:
                _shut(each)
        if self._ready is not None:
            _end(self._ready, self._port)
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _forward(self) -> Any:
        from kubernetes.client import ApiException
        from kubernetes.stream import portforward

        ask = self._core.connect_get_namespaced_pod_portforward
        try:
            return portforward(ask, self._pod, self._namespace, ports=str(self._port))
        except ApiException as error:
            raise self._refusal(error.__context__ or error) from error

    def _refusal(self, error: BaseException) -> ApiError:
        """Return what a handshake failed with, in the words of the server if it said anything."""
        status = getattr(error, "status_code", 0)
        if not status:
            return self._api.unreachable(error)
        try:
            message = json.loads(getattr(error, "resp_body", None) or b"")["message"]
        except (ValueError, KeyError, TypeError):
            message = f"the API server answered {status} to a request for port {self._port} of pod {self._pod}"
        return ApiError(status, str(message))

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return  # we are being closed
            threading.Thread(target=self._carry, args=(peer,), name="forwarded", daemon=True).start()

    def _carry(self, peer: socket.socket) -> None:
        with peer:
            try:
                with self._guard:
                    forwarded, self._ready = self._ready, None
                forwarded = forwarded or self._forward()
            except ApiError as error:
                self.error = str(error)
                return
            with self._guard:
                self._open.add(peer)
            remote = forwarded.socket(self._port)
            back = threading.Thread(target=_pump, args=(remote, peer), name="forwarded back", daemon=True)
            back.start()
            _pump(peer, remote)
            back.join()
            self.error = forwarded.error(self._port) or self.error
            _end(forwarded, self._port)
            with self._guard:
                self._open.discard(peer)


def _pump(source: Any, sink: Any) -> None:
    """Carry bytes until either side ends; then both are over."""
    try:
        while data := source.recv(_CHUNK_BYTES):
            sink.sendall(data)
    except OSError as error:
        _log.debug("a forwarded connection broke: %s", error)
    _shut(source)
    _shut(sink)


def _end(forwarded: Any, port: int) -> None:
    forwarded.socket(port).close()
    until = time.monotonic() + _PATIENCE_S
    while forwarded.connected and time.monotonic() < until and any(each.name.startswith(_LIBRARY_THREAD) for each in threading.enumerate()):
        time.sleep(0.01)
    # The library leaves it open when it was the other side that hung up.
    forwarded.websocket.shutdown()


def _shut(each: Any) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was shut from the other side
