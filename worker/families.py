"""A stage host and all that descends from it: found by the session it began, whatever process groups they made, and ended together."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_ROUNDS: Final = 8
"""Who is ended may have started somebody a moment before."""


def members(session: int) -> Iterator[int]:
    """Yield the processes of `session`; none where the system does not tell."""
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if entry.name.isdigit() and _is_in(int(entry.name), session):
            yield int(entry.name)


def end(session: int) -> None:
    """Kill all processes of `session`, those that they start meanwhile too, but for the caller itself."""
    killed = {os.getpid()}
    for _ in range(_ROUNDS):
        left = set(members(session)) - killed
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= left


def end_orphans() -> None:
    """Kill those in the session of this process, which began it, whose parents are gone; elsewhere nothing is known of them."""
    session = os.getpid()
    if os.getsid(0) != session:
        return
    for pid in list(members(session)):
        parent = _parent(pid)
        if pid != session and parent is not None and not _is_in(parent, session):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _is_in(pid: int, session: int) -> bool:
    try:
        return os.getsid(pid) == session
    except ProcessLookupError:
        return False  # it ended while we looked


def _parent(pid: int) -> int | None:
    try:
        # Behind the name, which may hold anything: state, parent.
        return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
