"""Real Valkey and Redis servers with any settings, for jobs whose store is not the embedded one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from antinfer.errors import StoreError
from antinfer.master.store.embedded import find_server
from antinfer.testing.chaos.processes import wait_until


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ValkeyServer:
    """A server process on a loopback port whose settings its owner chooses; it can be killed, started again and wiped."""

    def __init__(self, directory: Path, *, program: str = "", **settings: str) -> None:
        """
        Args:
            directory: of its files; created.
            program: Valkey or Redis; empty: what the embedded store runs.
            settings: of its configuration file; several words in one value are separated by semicolons.
        """
        self.port = free_port()
        self.directory = directory
        self._program = program
        self._settings = {"appendonly": "yes", "appendfsync": "always", "save": "", **settings}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it on what its directory holds. Raises `StoreError` when it does not come up."""
        self.directory.mkdir(parents=True, exist_ok=True)
        settings = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.directory), "logfile": "log", **self._settings}
        words = [word for name, value in settings.items() for word in (f"--{name}", *value.split(";"))]
        self._process = subprocess.Popen([self._program or find_server(), *words], cwd=self.directory, stdin=subprocess.DEVNULL)
        wait_until(lambda: self._listens() or not self.is_alive, "the server listens", seconds=10)
        if not self.is_alive:
            raise StoreError(f"the server in {self.directory} did not start")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> int | None:
        """Kill it with SIGKILL; return its exit status, None when it did not run."""
        if self._process is None:
            return None
        self._process.kill()
        status = self._process.wait()
        self._process = None
        return status

    def restart(self) -> None:
        self.kill()
        self.start()

    def forget(self) -> int:
        """Delete all that it wrote; it must not run. Returns the number of bytes."""
        lost = 0
        for file in (self.directory / "appendonlydir").glob("*"):
            lost += file.stat().st_size
            file.unlink()
        return lost

    def cut(self, share: float) -> int:
        """Cut so much off the end of what it wrote last; it must not run. Returns the number of bytes."""
        files = sorted((self.directory / "appendonlydir").glob("*.incr.aof"))
        if not files:
            return 0
        size = files[-1].stat().st_size
        os.truncate(files[-1], int(size * (1 - share)))
        return size - files[-1].stat().st_size

    def wipe(self) -> None:
        """Start again with nothing."""
        self.kill()
        self.forget()
        self.start()


@contextlib.contextmanager
def valkey(directory: Path, *, program: str = "", **settings: str) -> Iterator[ValkeyServer]:
    """Run a server for the time of the block; see `ValkeyServer`."""
    server = ValkeyServer(directory, program=program, **settings)
    server.start()
    try:
        yield server
    finally:
        server.kill()
