"""Patience with machines, disks and networks."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from antinfer.errors import FencedError, InfraError, Interrupted, OutputError
from antinfer.master.troubles import Troubles

_log = logging.getLogger("antinfer.master")
_PAUSES_S: Final = (0.1, 0.3, 1.0, 3.0, 10.0)
_HEALTHY_S: Final = 30.0
"""Work that went on for so long was well in between: its next trouble is a new one."""
T = TypeVar("T")


START_S: Final = 10.0
"""Patience of a master that begins: somebody may be watching, and what is wrong may have been wrong from the start."""


class Wait(Protocol):
    """How trouble with the output place is waited out."""

    def __call__(self, doing: str, work: Callable[[], T]) -> T: ...


def patiently(doing: str, work: Callable[[], T], stopped: threading.Event, patience_s: float, troubles: Troubles | None = None) -> T:
    """Do `work`, again with growing pauses while it raises `InfraError`; each trouble is logged, and noted while it lasts.

    Args:
        doing: what is done, for the log.
        work: safe to call again after a failure.
        stopped: set when nobody wants the result any more.
        patience_s: how long to try, in seconds; with `START_S` or less, what does not pass by itself is not tried again.
        troubles: told what is waited for.

    Raises:
        Interrupted: `stopped` was set.
        AntinferError: what `work` raised when that was no `InfraError`, or a `FencedError`, or patience was over.
    """
    me = (doing, threading.get_ident())
    try:
        return _patiently(doing, work, stopped, patience_s, lambda text: None if troubles is None else troubles.note(me, text))
    finally:
        if troubles is not None:
            troubles.clear(me)


def _patiently(doing: str, work: Callable[[], T], stopped: threading.Event, patience_s: float, note: Callable[[str], None]) -> T:
    troubled_since: float | None = None
    tries = 0
    while True:
        began = time.monotonic()
        try:
            return work()
        except FencedError:
            raise
        except InfraError as error:
            now = time.monotonic()
            if troubled_since is None or now - began > _HEALTHY_S:
                troubled_since, tries = now, 0
            is_lasting = isinstance(error, OutputError) and error.lasting
            if (is_lasting and patience_s <= START_S) or now - troubled_since > patience_s:
                raise
            # Who failed together should not come back together.
            pause_s = _PAUSES_S[min(tries, len(_PAUSES_S) - 1)] * random.uniform(0.75, 1.25)
            note(error.text)
            _log.warning("%s failed (%s); trying again in %.1f s", doing, error, pause_s, extra={"action": "retry"})
            tries += 1
            if stopped.wait(pause_s):
                raise Interrupted(f"stopped while {doing} was tried again") from error
