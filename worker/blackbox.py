"""The process's side of `deaths.BlackBox`: what it writes down when it crashes, or when somebody wants to know where it hangs.

Written by C code in a signal handler, so it works while user code holds the GIL. Kept apart since it is imported first of all.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from typing import Final

WHERE_ARE_YOU: Final = signal.SIGRTMIN + 11
"""Have a process write down the Python stacks of all of its threads."""


def keep(descriptor: int | None = None) -> None:
    """Write stacks into `descriptor` (None: standard error) at crashes, and whenever `WHERE_ARE_YOU` comes."""
    target = sys.stderr.fileno() if descriptor is None else descriptor
    if descriptor is not None:
        os.set_inheritable(descriptor, False)
    faulthandler.enable(target, all_threads=True)
    faulthandler.register(WHERE_ARE_YOU, target, all_threads=True)
