"""Starting predictor processes, with nothing imported that is slow: they load while their host does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field

from antinfer.worker.deaths import BlackBox, OomCounter

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Whence libraries take the number of their threads, when they are loaded."""


@dataclass(frozen=True, slots=True)
class Started:
    process: subprocess.Popen[bytes]
    end: socket.socket
    box: BlackBox
    ooms: OomCounter = field(default_factory=OomCounter)

    def discard(self) -> None:
        """End a process that nobody has spoken to yet."""
        self.end.close()
        self.box.close()
        self.process.kill()
        self.process.wait()


def start(threads: int) -> Started:
    """Start one predictor process, fresh and not forked, that computes with `threads` threads. It dies with the calling thread."""
    ours, theirs = socket.socketpair()
    box = BlackBox()
    limits = {name: str(threads) for name in THREAD_VARIABLES if name not in os.environ}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "antinfer.worker.predictors", str(theirs.fileno()), str(os.getpid()), str(box.descriptor)],
            pass_fds=[theirs.fileno(), box.descriptor],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **limits},
            # Of its own, so that whatever user code has started in it can be ended with it.
            process_group=0,
        )
    return Started(process, ours, box)


def start_spare() -> Started:
    """Start a predictor process before anybody knows whether one is wanted: nearly every job wants one, and it is what loads last."""
    return start(cores())


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
