"""The stage host as a process: talk, watch, stop, and leave nothing of it behind."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Final, cast

from antinfer.worker import deaths, families, hostlink
from antinfer.worker.blackbox import WHERE_ARE_YOU
from antinfer.worker.deaths import Death, DeathKind
from antinfer.worker.hoststart import Spawned
from antinfer.worker.pipeline.deadlines import Stopwatch

_log = logging.getLogger("antinfer.worker")

_LINE_LIMIT: Final = 64 << 20
_PROC: Final = Path("/proc")
_LOOK_SECONDS: Final = 1.0
_SILENCE_SECONDS: Final = 120.0
"""A host at work says something every second; after so long without a word, user code keeps all of its threads from running."""
_STACK_SECONDS: Final = 1.0
"""Time for a host to write down where it is."""
_USER_CODE: Final = (DeathKind.SEGFAULT, DeathKind.ABORT, DeathKind.OUT_OF_MEMORY, DeathKind.HANG)


class HostProcess:
    """One stage host with everything it spawned, in a session of its own.

    Session of its own, so that Ctrl-C in a terminal reaches the agent alone and drains, and so that whatever a dead host leaves behind can
    be found and killed.
    """

    def __init__(
        self,
        spawned: Spawned,
        on_message: Callable[[HostProcess, hostlink.FromHost], None],
        on_end: Callable[[HostProcess, str], None],
        *,
        silence_seconds: float = _SILENCE_SECONDS,
    ) -> None:
        """
        Args:
            spawned: from `hoststart.spawn`.
            on_message: called from another thread for each message of the host.
            on_end: called once from another thread, after the last message, with how the host ended, for people.
            silence_seconds: a host that works and says nothing for so long is killed.
        """
        self._on_message = on_message
        self._on_end = on_end
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._process, self._link, self._box, self._ooms = spawned.process, spawned.link, spawned.box, spawned.ooms
        self._silence = silence_seconds
        self._clock = Stopwatch(time.monotonic(), _LOOK_SECONDS)
        self._is_working = False
        self._hung: Death | None = None
        self.death: Death | None = None
        """What it died of; None while it lives."""
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
        if not self._ended.is_set():
            families.end(self.pid)

    @property
    def blames_user_code(self) -> bool:
        """True when it died of something that user code in one of its threads may have done."""
        return self.death is not None and self.death.kind in _USER_CODE

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
                    message = cast(hostlink.FromHost, hostlink.decode(line))
                    self._clock.restart(time.monotonic())
                    self._is_working = self._is_working or isinstance(message, hostlink.Ready)
                    self._on_message(self, message)
        except OSError:
            pass  # reset by a host that died with unread messages; its exit status says more
        except (KeyError, TypeError, ValueError) as error:
            trouble = f", after a message that makes no sense: {error!r}"
        self.kill()
        status = self._process.wait()
        self._outbox.put(None)
        self._link.close()
        self.death = self._hung or deaths.of_status(status, ooms=self._ooms, box=self._box.text())
        self._box.close()
        if self.death.stack:
            extra = {"action": "host_stack", "cause": self.death.kind.value}
            _log.warning("where the stage host was when it %s:\n%s", self.death.how, self.death.stack, extra=extra)
        self._on_end(self, f"{self.death.kind.value}: it {self.death.how}{trouble}")
        self._ended.set()

    def _watch(self) -> None:
        """End a host that says nothing any more, and what a dead one left behind, which may hold the link open."""
        while True:
            try:
                self._process.wait(_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if self._is_working and self._clock.look(time.monotonic()) > self._silence:
                    self._end_hanging()
                    break
        families.end(self.pid)

    def _end_hanging(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, WHERE_ARE_YOU)
        time.sleep(_STACK_SECONDS)
        self._hung = deaths.hung(self._clock.seconds, "a host at work says something every second", self._box.text())


def resident_bytes(session: int | None) -> int:
    """Return the resident memory of this process and of all processes of `session`, in bytes; 0 where the system does not tell."""
    if not _PROC.is_dir():
        return 0
    pages = _resident_pages("self") + sum(_resident_pages(str(pid)) for pid in (families.members(session) if session is not None else ()))
    return pages * os.sysconf("SC_PAGE_SIZE")


def _resident_pages(pid: str) -> int:
    try:
        return int((_PROC / pid / "statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it ended while we looked
