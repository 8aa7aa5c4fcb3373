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
        if entry.name.isdigit():
            # It may end while we look.
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(int(entry.name)) == session:
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
