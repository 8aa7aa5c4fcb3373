"""``python -m antinfer.worker.predictors FD PARENT BOX``: a predictor process, started by a stage host."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import io
import os
import sys
from collections.abc import Iterator
from itertools import compress
from typing import Any

from antinfer.launchers.parent import die_with_parent
from antinfer.worker import blackbox

_owner = os.getpid()
_code = 1
"""Of the exit, unless there was a better end."""


def _open_files() -> Iterator[Any]:
    """Return all files that may hold something back."""
    kinds: list[type] = [io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom]
    for kind in kinds:
        kinds += kind.__subclasses__()
    # There are hundreds of thousands of objects: a loop over them would take long.
    objects = gc.get_objects()
    return compress(objects, map(frozenset(kinds).__contains__, map(type, objects)))


def _leave() -> None:
    """End the process here: to take apart what large libraries have built takes half a second, and ends with it anyway."""
    if os.getpid() != _owner:
        # A child that user code has forked, with a code of its own.
        return
    # Whoever has not closed a file relies on what the interpreter and the C library would write at their end.
    for file in _open_files():
        with contextlib.suppress(OSError, ValueError):
            file.flush()
    ctypes.CDLL(None).fflush(None)
    os._exit(_code & 0xFF)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    blackbox.keep(int(sys.argv[3]))
    # Registered first, it comes last, behind all that user code wants to see done at the end.
    atexit.register(_leave)

    from antinfer.worker.predictors.serve import serve

    try:
        _code = serve(int(sys.argv[1]), int(sys.argv[3]))
    except SystemExit as end:
        # User code may exit; what it died of is told with its code.
        _code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    sys.exit(_code)
