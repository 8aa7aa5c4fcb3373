"""Credits in bytes: what a worker may hold of its leases at once, from the reader until it is staged for its commit."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Credits:
    """A budget of bytes: of rows that move through the pipeline, and of what open parts hold of them until they are staged.

    What moves comes to its part in the end, but for rows of a frame that wait for others (`overdraw`); so a demand for which there is no
    room is admitted when nothing else moves, and nothing waits for room that never comes.
    """

    def __init__(self, size_bytes: int) -> None:
        self._limit = size_bytes
        self.most_held = size_bytes // 2
        """What open parts should hold at most, so that the readers can read ahead."""
        self._moving = 0
        self._held = 0
        self._changed = threading.Condition()

    @property
    def used_bytes(self) -> int:
        """Credit that is taken."""
        with self._changed:
            return self._moving + self._held

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
            self._moving += size_bytes

    def give_back(self, size_bytes: int) -> None:
        with self._changed:
            self._moving -= size_bytes
            self._changed.notify_all()

    def hold(self, more_bytes: int) -> None:
        """Take note that open parts hold so many bytes more than before, or fewer; whether there is room or not."""
        with self._changed:
            self._held += more_bytes
            if more_bytes < 0:
                self._changed.notify_all()

    def wake_up(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _take(self, size_bytes: int) -> bool:
        if self._moving and self.used_bytes + size_bytes > self._limit:
            return False
        self._moving += size_bytes
        return True
