"""A file that says which process a worker is, for those who have a signal for it and do not know where it runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

VARIABLE: Final = "ANTINFER_PID_FILE"
"""Environment variable with the path of the file."""

_log = logging.getLogger("antinfer.launchers")


@contextmanager
def kept(path: Path | None) -> Iterator[None]:
    """Have our process id in the file `path` meanwhile; None: nowhere.

    A file that cannot be written is no reason not to work: nobody needs it as long as nothing stands between us and who ends us.
    """
    if path is None or not _write(path):
        yield
        return
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _write(path: Path) -> bool:
    try:
        path.write_text(f"{os.getpid()}\n", encoding="ascii")
    except OSError as error:
        _log.warning("cannot say in %s which process this is: %s", path, error.strerror, extra={"action": "pid_file_refused"})
        return False
    return True
