"""Real Valkey servers with any settings, for tests that need what the embedded one does not offer."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from antinfer.master.store.embedded import find_server


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ValkeyServer:
    """A server process on a loopback port whose settings the test chooses."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.port = free_port()
        self.directory = directory
        self._settings = {"appendonly": "yes", "appendfsync": "always", "save": "", **settings}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        settings = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.directory), "logfile": "log", **self._settings}
        words = [word for name, value in settings.items() for word in (f"--{name}", *value.split(";"))]
        self._process = subprocess.Popen([find_server(), *words], cwd=self.directory, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def wipe(self) -> None:
        """Start again with nothing."""
        self.kill()
        for file in (self.directory / "appendonlydir").glob("*"):
            file.unlink()
        self.start()


@contextlib.contextmanager
def valkey(directory: Path, **settings: str) -> Iterator[ValkeyServer]:
    """Run a server for the time of the block."""
    server = ValkeyServer(directory, **settings)
    server.start()
    try:
        yield server
    finally:
        server.kill()
