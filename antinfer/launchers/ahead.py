"""Imports ahead of need: a process that has yet to hear what to do makes itself ready for it."""

from __future__ import annotations

import gc
import importlib


def import_ahead(*modules: str) -> None:
    """Import `modules`, in this order.

    Nearly everything that an import makes lives as long as the process; the collector would look at it again and again while there comes
    more of it, a twelfth of the whole time, and once more whenever it looks at everything.
    """
    gc.disable()
    try:
        for module in modules:
            importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()
