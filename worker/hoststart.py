"""Starting a stage host, with nothing imported that is slow: the host imports more than its agent does, and can do it at the same time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from antinfer.worker.deaths import BlackBox, OomCounter

HOST_COMMAND: Final = (sys.executable, "-m", "antinfer.worker.host")
# Arrow's allocator soon gives pages back and takes fresh ones for the next batch, which the kernel has to clear first.
_ALLOCATOR: Final = {"MIMALLOC_PURGE_DELAY": "10000"}
"""Milliseconds for which the host and its predictors keep what they have freed; a user's own setting wins."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process that was started, and our end of the link to it."""

    process: subprocess.Popen[bytes]
    link: socket.socket
    box: BlackBox
    ooms: OomCounter = field(default_factory=OomCounter)


def spawn(command: Sequence[str] = HOST_COMMAND) -> Spawned:
    """Start a stage host; the numbers of its end of the link and of its black box are appended to `command`.

    Call it from the thread that lives as long as the agent: the kernel kills the host when the thread that started it ends.
    """
    ours, theirs = socket.socketpair()
    box = BlackBox()
    with theirs:
        process = subprocess.Popen(
            [*command, str(theirs.fileno()), str(box.descriptor)],
            pass_fds=(theirs.fileno(), box.descriptor),
            stdin=subprocess.DEVNULL,
            # Standard output belongs to whoever started the agent and may be read by a program; what user code prints is for people.
            stdout=2,
            start_new_session=True,
            env={**_ALLOCATOR, **os.environ},
        )
    return Spawned(process, ours, box)
