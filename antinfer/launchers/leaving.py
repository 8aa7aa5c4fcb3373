"""The end of our own processes."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End the process now, with exit status `code`.

    Taking the interpreter apart object by object costs a fifth of what starting it did, and nobody uses the result. Not for processes
    that run user code, which may have asked to be called at exit.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            continue  # whoever read us has gone, as in `antinfer verify ... | head`
    os._exit(code)
