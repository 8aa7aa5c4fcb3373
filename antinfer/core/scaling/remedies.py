"""What a controller does about each cause of an end, beside starting another worker: one line for each."""

from __future__ import annotations

from typing import Final, NamedTuple

from antinfer.core.causes import Cause


class Remedy(NamedTuple):
    """How an end of a worker is answered."""

    pauses: bool = False
    """Its place stays empty for a while, longer with each round of a crash loop; after some rounds in vain the job fails."""
    blames_node: bool = False
    """It counts against its node; one that it happens on repeatedly is avoided."""
    raises_memory: bool = False
    """The next one of its class gets more."""


_REPLACE: Final = Remedy()
"""At once, whatever the number."""
_BY_CAUSE: Final = {
    Cause.PREEMPTED: _REPLACE,
    Cause.DRAINED: _REPLACE,
    Cause.NO_CAPACITY: _REPLACE,
    Cause.NODE_LOST: Remedy(blames_node=True),
    Cause.NODE_REFUSED: Remedy(pauses=True, blames_node=True),
    Cause.OUT_OF_MEMORY: Remedy(pauses=True, raises_memory=True),
    Cause.WORKER_CRASHED: Remedy(pauses=True, blames_node=True),
    Cause.WORKER_KILLED: Remedy(pauses=True, blames_node=True),
    Cause.GPU_FAULT: Remedy(pauses=True, blames_node=True),
    Cause.START_ERROR: Remedy(pauses=True, blames_node=True),
}
_PAUSE: Final = Remedy(pauses=True)


def of(cause: Cause) -> Remedy:
    """Return what to do about `cause`. What nobody pays for is never paused; all else is, so that no loop runs unhindered."""
    found = _BY_CAUSE.get(cause)
    if found is not None:
        return found
    return _REPLACE if cause.is_blameless and cause is not Cause.UNKNOWN else _PAUSE
