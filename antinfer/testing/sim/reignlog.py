"""The event log of a simulated reign: written as `antinfer.master.journal` writes it, and lived again by a fresh engine at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from antinfer.core import journal
from antinfer.core.documents import Changes
from antinfer.core.engine import Engine
from antinfer.core.events import Event


class ReignLog:
    """Lines of text, one reign long; a reign that was killed has no end."""

    def __init__(self, engine: Engine, at: int, documents: Mapping[str, str] | None, *, trusted: bool) -> None:
        """Describe an engine that is about to be started with these arguments."""
        engine.story.keep_fresh()
        self._engine = engine
        self._encoder = journal.Encoder()
        self._next = 1
        self._lines = [self._encoder.line(journal.Begin.of(engine, at, documents, trusted=trusted, owner="sim"))]

    def note(self, events: Sequence[Event], changes: Changes, commands: int, lost: str = "") -> None:
        """Take in a batch; `lost` says why it did not become durable."""
        told = tuple(self._engine.story.take_fresh())
        first, self._next = self._next, self._next + len(events)
        proof = journal.digest(changes, whole=journal.worth_whole(first, changes))
        self._lines.append(self._encoder.line(journal.Batch(first, tuple(events), proof, commands, lost), changes.puts))
        if told:
            self._lines.append(self._encoder.line(journal.Told(told)))

    def live_again(self) -> None:
        """Read the log and tell a fresh engine what it says. Raises `Divergence` and ValueError."""
        decoder = journal.Decoder()
        journal.replay(map(decoder.item, self._lines))
