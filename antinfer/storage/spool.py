"""Folders for files being written, one per process, that do not outlive their process for long.

A process holds an advisory lock on ``<name>.lock`` for as long as it lives, so whoever gets that lock knows that the folder ``<name>``
beside it is nobody's any more. No process id is trusted: the folder may be shared by several hosts.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import threading
import weakref
from pathlib import Path
from uuid import uuid4

_LOG = logging.getLogger("antinfer.storage")


class Spool:
    """The spool folder of this process below `root`, made when it is first asked for. Raises OSError when it cannot be made."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._guard = threading.Lock()
        self._pid = 0
        self._folder = ""
        self._release: weakref.finalize[..., Spool] | None = None

    def folder(self) -> str:
        """Return the folder; removes those of dead processes on the first call. A forked child gets a folder of its own."""
        with self._guard:
            if self._pid != os.getpid() or not os.path.isdir(self._folder):
                os.makedirs(self._root, exist_ok=True)
                collect_dead(self._root)
                descriptor, self._folder = _claim(self._root)
                self._pid = os.getpid()
                # Runs at the end of the process too, if it gets to an end.
                self._release = weakref.finalize(self, _give_up, self._folder, descriptor, self._pid)
            return self._folder

    def close(self) -> None:
        """Remove the folder with everything in it, or leave that to others where it is forbidden; asked for again, it is another one."""
        with self._guard:
            if self._release is not None:
                self._release()
            self._pid = 0


def collect_dead(root: str) -> None:
    """Remove the folders in `root` whose process is gone."""
    for folder in sorted(path for path in Path(root).glob("*") if path.is_dir()):
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


def _give_up(folder: str, descriptor: int, pid: int) -> None:
    if pid != os.getpid():
        return
    try:
        shutil.rmtree(folder, ignore_errors=True)
        Path(f"{folder}.lock").unlink(missing_ok=True)
    except OSError as error:
        # Rights were withdrawn, or the disk is gone: to the next process that asks for a folder this is one of the dead.
        _LOG.debug("a spool folder is left behind: %s", error, extra={"action": "close_spool"})
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
