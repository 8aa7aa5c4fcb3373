"""What a master waits for at this moment, said to whoever asks for its status."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable


class Troubles:
    """All methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: tells seconds."""
        self._clock = clock
        self._guard = threading.Lock()
        self._open: dict[Hashable, tuple[float, str]] = {}

    def note(self, key: Hashable, text: str) -> None:
        """Whoever goes by `key` waits, because of `text`; repeated, it still waits since it first said so."""
        with self._guard:
            since = self._open[key][0] if key in self._open else self._clock()
            self._open[key] = since, text

    def clear(self, key: Hashable) -> None:
        """Whoever goes by `key` waits no more, or never did."""
        with self._guard:
            self._open.pop(key, None)

    @property
    def text(self) -> str:
        """The trouble that has lasted longest, and since when; empty when there is none."""
        with self._guard:
            if not self._open:
                return ""
            since, text = min(self._open.values())
            others = len({text for _, text in self._open.values()}) - 1
            more = f"; and {others} more" if others else ""
            return f"waiting for {self._clock() - since:.0f} s: {text}{more}"
