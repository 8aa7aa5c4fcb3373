"""What kube-proxy does: connections to a service's address are carried to one of its pods."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Final

Target = tuple[str, int]

_CHUNK_BYTES: Final = 65536
_PATIENCE_S: Final = 5.0


class Proxy:
    """Listens on one address and port. `targets` says, for each new connection, where it may go; they take turns.

    Raises OSError where the address is taken.
    """

    def __init__(self, address: str, port: int, targets: Callable[[], Sequence[Target]]) -> None:
        self._targets = targets
        self._turn = itertools.count()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._listener = socket.create_server((address, port), backlog=128)
        self._thread = threading.Thread(target=self._accept, name=f"proxy {address}:{port}", daemon=True)
        self._thread.start()

    def stop_listening(self) -> None:
        """Refuse new connections; those that there are go on."""
        self._closed = True
        _shut(self._listener)
        self._listener.close()
        self._thread.join(_PATIENCE_S)

    def close(self) -> None:
        """Refuse new connections and break those that there are."""
        self.stop_listening()
        with self._lock:
            for each in self._open:
                _shut(each)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                # The listener has been closed.
                return
            threading.Thread(target=self._carry, args=(client,), name="proxied", daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client:
            targets = self._targets()
            if not targets:
                return
            try:
                server = socket.create_connection(targets[next(self._turn) % len(targets)], timeout=_PATIENCE_S)
            except OSError:
                # The pod does not listen: the client sees its connection closed.
                return
            with server:
                server.settimeout(None)
                with self._lock:
                    self._open |= {client, server}
                back = threading.Thread(target=_pump, args=(server, client), name="proxied back", daemon=True)
                back.start()
                _pump(client, server)
                back.join()
                with self._lock:
                    self._open -= {client, server}


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Carry bytes until `source` ends; the end is passed on, a breach breaks both."""
    try:
        while data := source.recv(_CHUNK_BYTES):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        _shut(source)
        _shut(sink)


def _shut(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It has been shut from the other side.
        return
