"""Folders for files being written, one per process, that do not outlive their process for long.

A process holds an advisory lock on ``<name>.lock`` for as long as it lives, so whoever gets that lock knows that the folder ``<name>``
beside it is nobody's any more. No process id is trusted: the folder may be shared by several hosts.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from pathlib import Path
from uuid import uuid4


class Spool:
    """The spool folder of this process below `root`, made when it is first asked for. Raises OSError when it cannot be made."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._guard = threading.Lock()
        self._pid = 0
        self._folder = ""
        self._lock = -1

    def folder(self) -> str:
        """Return the folder; removes those of dead processes on the first call. A forked child gets a folder of its own."""
        with self._guard:
            if self._pid != os.getpid() or not os.path.isdir(self._folder):
                os.makedirs(self._root, exist_ok=True)
                collect_dead(self._root)
                self._lock, self._folder = _claim(self._root)
                self._pid = os.getpid()
            return self._folder

    def close(self) -> None:
        """Remove the folder and give up its lock."""
        with self._guard:
            if self._pid == os.getpid():
                shutil.rmtree(self._folder, ignore_errors=True)
                Path(f"{self._folder}.lock").unlink(missing_ok=True)
                os.close(self._lock)
            self._pid = 0


def collect_dead(root: str) -> None:
    """Remove the folders in `root` whose process is gone."""
    for folder in Path(root).glob("*/"):
        lock = Path(f"{folder}.lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if _try_lock(descriptor):
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _claim(root: str) -> tuple[int, str]:
    """Take the lock first and make the folder second: a folder that exists is always somebody's, or dead."""
    folder = os.path.join(root, uuid4().hex)
    descriptor = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.mkdir(folder)
    return descriptor, folder


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
