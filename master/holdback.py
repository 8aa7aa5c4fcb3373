"""Answers that wait for publication, for a store that may forget what it has confirmed (``durability: publish``)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from antinfer.core.commands import Send
from antinfer.core.events import StreamId
from antinfer.core.messages import Acceptance, Answer


class Holdback:
    """Keeps an answer that accepts a commit until the commit is published, and everything later on the same stream behind it."""

    def __init__(self) -> None:
        self._unpublished: set[str] = set()
        self._waiting: dict[StreamId, deque[Send]] = {}

    def expect(self, staged: Iterable[str]) -> None:
        """These are about to be published."""
        self._unpublished.update(staged)

    def offer(self, send: Send) -> bool:
        """Return True when `send` may leave now; otherwise it is kept."""
        waiting = self._waiting.get(send.stream)
        if waiting is None and self._is_safe(send):
            return True
        self._waiting.setdefault(send.stream, deque()).append(send)
        return False

    def published(self, staged: Iterable[str]) -> list[Send]:
        """Note publications; return what may leave now, in order."""
        self._unpublished.difference_update(staged)
        ready: list[Send] = []
        for stream, waiting in list(self._waiting.items()):
            while waiting and self._is_safe(waiting[0]):
                ready.append(waiting.popleft())
            if not waiting:
                del self._waiting[stream]
        return ready

    def _is_safe(self, send: Send) -> bool:
        if not isinstance(send.message, Answer):
            return True
        accepted = (outcome.staged for outcome in send.message.outcomes if outcome.acceptance is Acceptance.ACCEPTED)
        return self._unpublished.isdisjoint(accepted)
