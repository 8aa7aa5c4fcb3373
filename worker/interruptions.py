"""What a worker tells its master of interruptions that it has mended itself, and how much of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from antinfer.core.causes import Cause
from antinfer.core.messages import AtWork, Interruption
from antinfer.core.ranges import Rows
from antinfer.worker.leases import HeldLease

_MOST: Final = 50
"""So many are kept with all that is known of them: a process may be started afresh after every batch, and the master be away for hours."""
_MOST_TEXT: Final = 300
"""Characters of one that the event log is to keep."""


def add(waiting: list[Interruption], told: Interruption) -> None:
    """Put what happened behind what waits to be told; when that is too much already, only count it with the last of its cause."""
    told = replace(told, detail=told.detail[:_MOST_TEXT])
    if len(waiting) >= _MOST:
        for at in reversed(range(len(waiting))):
            if waiting[at].cause is told.cause:
                waiting[at] = replace(told, times=waiting[at].times + told.times)
                return
    waiting.append(told)


def of_host(cause: Cause, detail: str, first: HeldLease | None) -> Interruption:
    """Return the death of a stage host; `first`: the lease that was first in line."""
    ranges = () if first is None else (AtWork(first.id, Rows(first.frontier, first.rows.stop)),)
    return Interruption(cause, detail=f"the stage host is started again: {detail}", ranges=ranges)
