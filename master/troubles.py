"""What a master waits for at this moment, and what it sees coming, said to whoever asks for its status."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator


class Troubles:
    """All methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: tells seconds."""
        self._clock = clock
        self._guard = threading.Lock()
        self._open: dict[Hashable, tuple[float, str]] = {}
        self._foreseen: dict[Hashable, str] = {}

    def note(self, key: Hashable, text: str) -> None:
        """Whoever goes by `key` waits, because of `text`; repeated, it still waits since it first said so."""
        with self._guard:
            since = self._open[key][0] if key in self._open else self._clock()
            self._open[key] = since, text

    def clear(self, key: Hashable) -> None:
        """Whoever goes by `key` waits no more, or never did."""
        with self._guard:
            self._open.pop(key, None)

    def foresee(self, key: Hashable, text: str) -> None:
        """Nobody waits, but `text` will come to pass; an empty one takes it back."""
        with self._guard:
            if text:
                self._foreseen[key] = text
            else:
                self._foreseen.pop(key, None)

    @property
    def text(self) -> str:
        """The trouble that has lasted longest, and since when, then all that is foreseen; empty when there is none."""
        with self._guard:
            return "; ".join((*self._waits(), *self._foreseen.values()))

    def _waits(self) -> Iterator[str]:
        if self._open:
            since, text = min(self._open.values())
            others = len({text for _, text in self._open.values()}) - 1
            yield f"waiting for {self._clock() - since:.0f} s: {text}"
            if others:
                yield f"and {others} more"
