"""Patience with storage: trouble that may pass is waited out here, before work is thrown away because of it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from antinfer.errors import InfraError, OutputError

_log = logging.getLogger("antinfer.host")
_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""A minute in all."""
_LOOK_S: Final = 0.1
T = TypeVar("T")


class Patience:
    """One trouble with one lease; used by one thread."""

    def __init__(self, doing: str, unwanted: Callable[[], bool]) -> None:
        """
        Args:
            doing: what is tried, for the log.
            unwanted: tells whether nobody waits for the result any more.
        """
        self._doing = doing
        self._unwanted = unwanted
        self._tries = 0

    def again(self, work: Callable[[], T]) -> T:
        """Do `work`, which is safe to call again after a failure, until it succeeds. Raises what it raised last when patience is over."""
        while True:
            try:
                done = work()
            except InfraError as error:
                if not self.outlasts(error):
                    raise
            else:
                self.end()
                return done

    def outlasts(self, error: InfraError) -> bool:
        """Wait after `error`; true when it should be tried again, false when patience is over or waiting would not help."""
        if self._tries == len(_PAUSES_S) or self._unwanted() or (isinstance(error, OutputError) and error.lasting):
            return False
        if not self._tries:
            _log.warning("%s: %s; trying again", self._doing, error, extra={"action": "storage_retry"})
        # Who failed together should not come back together.
        until = time.monotonic() + _PAUSES_S[self._tries] * random.uniform(0.75, 1.25)
        self._tries += 1
        while (left := until - time.monotonic()) > 0:
            if self._unwanted():
                return False
            time.sleep(min(_LOOK_S, left))
        return True

    def end(self) -> None:
        """It works: the next trouble is a new one."""
        if self._tries:
            _log.info("%s: it works again", self._doing, extra={"action": "storage_back"})
            self._tries = 0
