"""``python -m antinfer.worker.predictors FD PARENT BOX``: a predictor process, started by a stage host."""

from __future__ import annotations

import atexit
import os
import sys

from antinfer.launchers.parent import die_with_parent
from antinfer.worker import blackbox

_code = 1
"""Of the exit, unless there was a better end."""


def _leave() -> None:
    """End the process here: to take apart what large libraries have built takes half a second, and ends with it anyway."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_code)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    blackbox.keep(int(sys.argv[3]))
    # Registered first, it comes last, behind all that user code wants to see done at the end.
    atexit.register(_leave)

    from antinfer.worker.predictors.serve import serve

    _code = serve(int(sys.argv[1]), int(sys.argv[3]))
    sys.exit(_code)
