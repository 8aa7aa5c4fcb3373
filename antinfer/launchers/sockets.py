"""Where sockets of this machine's processes lie."""

from __future__ import annotations

import os
import tempfile
from typing import Final

_LONGEST: Final = 90
"""The path of a socket has 107 bytes at most; this leaves some for its name."""


def socket_folder() -> str:
    """Make a folder for sockets, for its owner alone, among the temporary files; elsewhere if their folder has too long a path.

    Raises OSError when it cannot be made.
    """
    folder = tempfile.mkdtemp(prefix="antinfer-")
    if len(os.fsencode(folder)) <= _LONGEST:
        return folder
    os.rmdir(folder)
    return tempfile.mkdtemp(prefix="antinfer-", dir="/tmp")
