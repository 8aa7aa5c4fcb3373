"""Processes of a job under test: started with a mark that they cannot shake off, found again wherever they hang, ended for sure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import antinfer
from antinfer.errors import InfraError

PATIENCE_S: Final = 120.0
MARK: Final = "ANTINFER_CHAOS_RUN"
"""Variable that every process of a job inherits, so that none can hide by losing its parent."""


class NotInTime(InfraError):
    """Something that had to happen did not."""


def wait_until(condition: Callable[[], object], what: str, *, seconds: float = PATIENCE_S, pause_s: float = 0.01) -> None:
    """Look every `pause_s` seconds until `condition` holds. Raises `NotInTime` naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NotInTime(f"not in time: {what}")
        time.sleep(pause_s)


@dataclass
class Process:
    """One process of a job, and what it said."""

    name: str
    popen: subprocess.Popen[bytes]
    log_path: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def is_alive(self) -> bool:
        return self.popen.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.popen.poll()

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """Return the exit status. Raises `NotInTime` with what it said when it does not end."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise NotInTime(f"{self.name} did not end:\n{self.log[-8000:]}") from None

    def find(self, words: str = "") -> list[int]:
        """Return the living processes below this one whose command line holds `words`."""
        return [pid for pid in every_process() if self.pid in ancestors(pid) and words in command_of(pid)]

    def everything(self) -> list[int]:
        """Return this process and all below it."""
        return [self.pid, *self.find()]


def start(name: str, words: Sequence[str], log_path: Path, *, mark: str, environment: Mapping[str, str]) -> Process:
    """Start Python with `words`, marked with `mark`; what it says is added to `log_path`."""
    # Whatever this process runs, its parts run: an installed package, or a working tree.
    ours = str(Path(antinfer.__file__).parents[1])
    path = os.pathsep.join([ours, *filter(None, [os.environ.get("PYTHONPATH")])])
    with log_path.open("ab") as log:
        popen = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": path, **environment, MARK: mark},
        )
    return Process(name, popen, log_path)


def signal_all(pids: Iterable[int], number: signal.Signals) -> list[int]:
    """Send a signal to these processes; return those that were there to get it."""
    met = []
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        met.append(pid)
    return met


def every_process() -> list[int]:
    """Return the processes that run; zombies do not."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and state_of(int(entry.name)) not in ("Z", "X")]


def state_of(pid: int) -> str:
    """Return the kernel's letter for what a process does: ``T`` is stopped, ``Z`` a zombie, ``X`` gone."""
    return _stat(pid)[0]


def command_of(pid: int) -> str:
    """Return the command line of a process; empty when it is gone."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")


def ancestors(pid: int) -> list[int]:
    """Return the parent of a process, the parent's parent and so on; none when it is gone."""
    found = []
    while pid > 1:
        pid = int(_stat(pid)[1])
        found.append(pid)
    return found


def marked(mark: str, grounds: Iterable[Path] = ()) -> list[int]:
    """Return the living processes that carry `mark`, or work inside one of the folders `grounds`."""
    folders = [folder.resolve() for folder in grounds]
    return [pid for pid in every_process() if _is_marked(pid, mark) or any(_folder(pid).is_relative_to(folder) for folder in folders)]


def _is_marked(pid: int, mark: str) -> bool:
    return f"{MARK}={mark}".encode() in _read(pid, "environ").split(b"\0")


def _folder(pid: int) -> Path:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return Path("/")  # ended while we looked, or not ours


def _stat(pid: int) -> list[str]:
    return _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split() or ["X", "0"]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""  # ended while we looked, or not ours
