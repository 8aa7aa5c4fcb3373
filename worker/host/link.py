"""The host's end of the socket pair to its agent."""

from __future__ import annotations

import socket
import threading

from antinfer.worker import hostlink


class AgentLink:
    """Messages from and to the agent. Any thread may send; one receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lines = end.makefile("rb")
        self._guard = threading.Lock()

    def send(self, message: hostlink.FromHost) -> None:
        """Send a message. That the agent is gone is not told here but by `receive_line`, where the host ends."""
        data = hostlink.encode(message)
        with self._guard:
            try:
                self._socket.sendall(data)
            except ConnectionError:
                return

    def receive_line(self) -> bytes:
        """Wait for one line; empty when the agent is gone."""
        try:
            return self._lines.readline()
        except ConnectionError:
            return b""

    def receive(self) -> hostlink.ToHost | None:
        """Wait for one message; None when the agent is gone."""
        line = self.receive_line()
        if not line:
            return None
        message = hostlink.decode(line)
        assert isinstance(message, hostlink.ToHost)
        return message
