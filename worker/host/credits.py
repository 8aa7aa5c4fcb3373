"""Credits in bytes: what the readers may hold in the pipeline at once."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Credits:
    """A budget of bytes. A demand larger than all of it is admitted alone, so nothing waits for room that never comes."""

    def __init__(self, size_bytes: int) -> None:
        self._limit = size_bytes
        self._used = 0
        self._changed = threading.Condition()

    def try_take(self, size_bytes: int) -> bool:
        """Take credit if there is room now."""
        with self._changed:
            return self._take(size_bytes)

    def take(self, size_bytes: int, unwanted: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait for room and take credit; False, with nothing taken, once it is `unwanted` (looked at again on every `wake_up`).

        With `timeout`, false as well when for so many seconds nothing has changed.
        """
        with self._changed:
            while not unwanted():
                if self._take(size_bytes):
                    return True
                if not self._changed.wait(timeout):
                    return False
            return False

    def overdraw(self, size_bytes: int) -> None:
        """Take credit whether there is room or not: for what all the others wait for."""
        with self._changed:
            self._used += size_bytes

    def give_back(self, size_bytes: int) -> None:
        with self._changed:
            self._used -= size_bytes
            self._changed.notify_all()

    def wake_up(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _take(self, size_bytes: int) -> bool:
        if self._used and self._used + size_bytes > self._limit:
            return False
        self._used += size_bytes
        return True
