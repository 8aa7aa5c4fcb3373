"""The stage host as a process: talk, watch, stop, and leave nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Final, cast

from antinfer.worker import hostlink
from antinfer.worker.hoststart import Spawned

_LINE_LIMIT: Final = 64 << 20
_PROC: Final = Path("/proc")


class HostProcess:
    """One stage host with everything it spawned, in a process group of its own.

    Group of its own, so that Ctrl-C in a terminal reaches the agent alone and drains, and so that whatever a dead host leaves behind can be
    killed.
    """

    def __init__(
        self,
        spawned: Spawned,
        on_message: Callable[[HostProcess, hostlink.FromHost], None],
        on_end: Callable[[HostProcess, str], None],
    ) -> None:
        """
        Args:
            spawned: from `hoststart.spawn`.
            on_message: called from another thread for each message of the host.
            on_end: called once from another thread, after the last message, with how the host ended, for people.
        """
        self._on_message = on_message
        self._on_end = on_end
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._process, self._link = spawned.process, spawned.link
        self._ended = threading.Event()
        for name, body in (("writer", self._write), ("reader", self._read), ("watcher", self._watch)):
            threading.Thread(target=body, name=f"host-{name}-{self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: hostlink.ToHost) -> None:
        """Queue a message; a host that is gone or does not read delays nobody."""
        self._outbox.put(hostlink.encode(message))

    def stop(self, patience_s: float) -> None:
        """Ask the host to end, and kill it when it has not after `patience_s`; returns at once."""
        self.send(hostlink.Stop())
        timer = threading.Timer(patience_s, self.kill)
        timer.daemon = True
        timer.start()

    def kill(self) -> None:
        """Kill the host and everything it spawned."""
        with contextlib.suppress(ProcessLookupError):  # all of them are gone already
            os.killpg(self.pid, signal.SIGKILL)

    def join(self, timeout_s: float) -> bool:
        """Wait until the host is gone and `on_end` was called; False when it is not by then."""
        return self._ended.wait(timeout_s)

    def _write(self) -> None:
        while (line := self._outbox.get()) is not None:
            try:
                self._link.sendall(line)
            except OSError:
                return  # the host is gone; `on_end` tells

    def _read(self) -> None:
        trouble = ""
        try:
            with self._link.makefile("rb") as lines:
                while line := lines.readline(_LINE_LIMIT):
                    if not line.endswith(b"\n"):
                        break  # it died in the middle of a word
                    self._on_message(self, cast(hostlink.FromHost, hostlink.decode(line)))
        except OSError:
            pass  # reset by a host that died with unread messages; its exit status says more
        except (KeyError, TypeError, ValueError) as error:
            trouble = f", after a message that makes no sense: {error!r}"
        self.kill()
        status = self._process.wait()
        self._outbox.put(None)
        self._link.close()
        self._on_end(self, describe_exit(status) + trouble)
        self._ended.set()

    def _watch(self) -> None:
        """End what a dead host left behind, which may hold the link open."""
        self._process.wait()
        self.kill()


def describe_exit(status: int) -> str:
    """Say for people how a process ended, from its `subprocess` return code."""
    if status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"killed by {name}" + (" (out of memory?)" if status == -signal.SIGKILL else "")


def resident_bytes(group: int | None) -> int:
    """Return the resident memory of this process and of all processes of `group`, in bytes; 0 where the system does not tell."""
    if not _PROC.is_dir():
        return 0
    pages = _resident_pages("self")
    for entry in _PROC.iterdir() if group is not None else ():
        if entry.name.isdigit() and _group_of(entry.name) == group:
            pages += _resident_pages(entry.name)
    return pages * os.sysconf("SC_PAGE_SIZE")


def _group_of(pid: str) -> int | None:
    try:
        return os.getpgid(int(pid))
    except ProcessLookupError:
        return None


def _resident_pages(pid: str) -> int:
    try:
        return int((_PROC / pid / "statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it ended while we looked
