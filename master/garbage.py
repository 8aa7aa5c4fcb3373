"""The garbage collector of a process that rules."""

from __future__ import annotations

import gc
from typing import Final

_YOUNG: Final = 20_000
_OLDER: Final = 20
_ALL: Final = 100


def collect_rarely() -> None:
    """Look for garbage far less often than an interpreter does by itself, and never again among what is there already.

    A master makes half a dozen objects for every request and keeps most of them until the range is committed; none of them hold each
    other in a circle. At the usual thresholds a sixth of its time goes into looking through them.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG, _OLDER, _ALL)
