"""The writer of the event log: takes in what the loop did, and brings it to the output place behind the loop's back.

Nothing of the job waits for it and nothing of the job depends on it. When the place cannot be written it keeps what fits into its memory,
says so once, and marks in the log what had to be left out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from antinfer.core.documents import Changes
from antinfer.core.engine import Engine
from antinfer.core.events import Event
from antinfer.core.journal import Batch, Begin, Encoder, End, Gap, Item, Told, digest, shapes, worth_whole
from antinfer.core.story import Entry
from antinfer.errors import OutputError
from antinfer.storage import layout
from antinfer.storage.place import OutputPlace

Level = Literal["full", "story", "off"]

_log = logging.getLogger("antinfer.journal")
_ROUND_S: Final = 0.2
"""How often what was taken in is put into words: little at a time, because the loop has to share the interpreter with it."""
_WRITE_S: Final = 1.0
"""Shortest time between two writes; also about what a killed master's log lacks."""
_QUIET_S: Final = 10.0
"""The same where nothing happened but heart-beats and ticks."""
_BYTES_PER_S: Final = 1 << 20
"""A chunk is written anew whenever something was added: the larger, the less often."""
_CHUNK_BYTES: Final = 4 << 20
"""Size at which a chunk is left alone and the next one begun."""
_MOST_BYTES: Final = 16 << 20
"""Most that is kept, as stored, while the place cannot be written."""
_MOST_EVENTS: Final = 50_000
"""Most events that wait to be put into words..."""
_MOST_TEXT: Final = 64 << 20
"""...and most characters in the documents that they changed."""
_END_S: Final = 5.0
"""How long the end of a reign waits for the last write."""


class _Noted(NamedTuple):
    """What came of one batch."""

    first: int
    events: Sequence[Event]
    lines: list[Entry]
    changes: Changes
    commands: int
    size: int
    lost: str


class Journal:
    """Writes the event log of one reign. `note` and `begin` are called from the thread of the loop alone."""

    def __init__(self, place: OutputPlace, epoch: int, now_ms: Callable[[], int], level: Level = "full") -> None:
        """
        Args:
            place: the output place.
            epoch: of this reign.
            now_ms: the clock that stamps events.
            level: ``full``: everything; ``story``: only what happened to ranges, without the events that brought it about.
        """
        self._place = place
        self._epoch = epoch
        self._now_ms = now_ms
        self._is_full = level == "full"
        self._thread = threading.Thread(target=self._run, name="antinfer-journal", daemon=True)
        self._ending = threading.Event()
        self._why = ""
        self._noted: deque[_Noted | Gap | Callable[[], Item]] = deque()
        # Each counter has one thread that writes it.
        self._events_in = self._events_out = 0
        self._text_in = self._text_out = 0
        self._dropped = self._left_out = 0
        self._engine: Engine | None = None
        self._next = 1
        self._chunk = _Chunk(place, epoch, now_ms)
        self.seconds = 0.0
        """Processor time that the writer took, once it has ended."""

    # -- the loop's side ---------------------------------------------------------------------------------------------------------------
    def begin(self, engine: Engine, at: int, documents: dict[str, str] | None, *, trusted: bool, owner: str) -> None:
        """Open the log of `engine`, which is about to be started with these arguments."""
        self._engine = engine
        engine.story.keep_fresh()
        plan = (len(engine.plan), engine.plan.complete) if self._is_full else (0, False)
        known = documents if self._is_full else None
        # Made in the other thread: a plan may have millions of shards. Those that are there now do not change.
        self._noted.append(lambda: Begin.of(engine, at, known, trusted=trusted, owner=owner, version=_version(), plan=plan))
        self._thread.start()

    def note(self, events: Sequence[Event], changes: Changes, commands: int, lost: str = "") -> None:
        """Take in a batch: what the engine was told, what that changed, and how many commands followed.

        `lost` says why the batch did not become durable, when it did not.
        """
        assert self._engine is not None
        lines = self._engine.story.take_fresh()
        count = len(events)
        first, self._next = self._next, self._next + count
        size = sum(map(len, changes.puts.values()))
        if self._events_in - self._events_out > _MOST_EVENTS or self._text_in - self._text_out > _MOST_TEXT:
            self._dropped += count
            return
        if self._dropped:
            self._noted.append(Gap(self._dropped, "the log could not be written as fast as things happened"))
            self._dropped = 0
        self._events_in += count
        self._text_in += size
        self._noted.append(_Noted(first, events, lines, changes, commands, size, lost))

    def end(self, why: str) -> None:
        """Write what is left and close the log; blocks for a moment, and no longer when the place does not answer."""
        self._why = why
        self._ending.set()
        if self._engine is not None:
            self._thread.join(_END_S)

    # -- the writer's side -------------------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            encoder = Encoder()
            while not self._ending.wait(_ROUND_S):
                self._round(encoder)
            self._round(encoder)
            self._chunk.add([encoder.line(End(self._now_ms(), self._why))], matters=True)
            self._chunk.write(force=True)
            self.seconds = time.thread_time()
        except Exception:  # noqa: BLE001 - logged whole
            # A job is worth more than its log; and what is noted from now on is dropped once there is too much of it.
            _log.exception("the event log of reign %d ends here", self._epoch, extra={"action": "journal_broken"})

    def _round(self, encoder: Encoder) -> None:
        chunk = self._chunk
        if chunk.is_fresh:
            encoder.restart()
        lines: list[str] = []
        matters = False
        while self._noted:
            noted = self._noted.popleft()
            if isinstance(noted, _Noted):
                self._events_out += len(noted.events)
                self._text_out += noted.size
                matters = matters or bool(noted.lines or noted.changes or noted.lost)
            else:
                matters = True
            if chunk.has_room and self._left_out:
                lines.append(encoder.line(Gap(self._left_out, "the output place could not be written")))
                self._left_out = 0
            if chunk.has_room:
                lines += self._lines(noted, encoder)
            elif isinstance(noted, _Noted):
                self._left_out += len(noted.events)
        if lines:
            chunk.add(lines, matters=matters)
        chunk.write()

    def _lines(self, noted: _Noted | Gap | Callable[[], Item], encoder: Encoder) -> list[str]:
        if not isinstance(noted, _Noted):
            return [encoder.line(noted if isinstance(noted, Gap) else noted())]
        lines = []
        if self._is_full:
            proof = digest(noted.changes, whole=worth_whole(noted.first, noted.changes))
            batch = Batch(noted.first, tuple(noted.events), proof, noted.commands, noted.lost)
            lines.append(encoder.line(batch, noted.changes.puts))
        if noted.lines:
            lines.append(encoder.line(Told(tuple(noted.lines))))
        return lines


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("antinfer")
    except PackageNotFoundError:
        return "not installed"


class _Chunk:
    """The last chunk of the log, in memory until it is full."""

    def __init__(self, place: OutputPlace, epoch: int, now_ms: Callable[[], int]) -> None:
        self._place = place
        self._epoch = epoch
        self._now_ms = now_ms
        self._n = 0
        self._data = bytearray()
        self._unwritten = 0
        """Bytes that the place does not have yet."""
        self._matters = False
        self._written_at = time.monotonic()
        self._failures = 0

    @property
    def is_fresh(self) -> bool:
        """True when what is added next can be read without what was added before."""
        return not self._data

    @property
    def has_room(self) -> bool:
        return len(self._data) <= _MOST_BYTES

    def add(self, lines: list[str], *, matters: bool) -> None:
        """Take lines in; `matters`: they should not wait long."""
        from antinfer.storage import eventlog

        if not self._data:
            self._n += 1
            head = eventlog.Head(self._epoch, self._n, self._now_ms(), time.time_ns() // 1_000_000, shapes())
            lines = [head.line(), *lines]
        frame = eventlog.encode_frame(lines)
        self._data += frame
        self._unwritten += len(frame)
        self._matters = self._matters or matters

    def write(self, *, force: bool = False) -> None:
        """Bring the chunk to the place, if it is time to."""
        if not self._unwritten:
            return
        waited = time.monotonic() - self._written_at
        if not force and waited < (self._pause_s if self._matters or len(self._data) > _CHUNK_BYTES else _QUIET_S):
            return
        try:
            self._place.write(layout.events_name(self._epoch, self._n), bytes(self._data))
        except OutputError as error:
            self._written_at = time.monotonic()
            self._failures += 1
            if self._failures == 1:
                _log.warning("the event log cannot be written: %s", error, extra={"action": "journal_behind"})
            return
        if self._failures:
            _log.info("the event log is written again", extra={"action": "journal_caught_up"})
        self._written_at = time.monotonic()
        self._failures = self._unwritten = 0
        self._matters = False
        if len(self._data) > _CHUNK_BYTES:
            self._data = bytearray()

    @property
    def _pause_s(self) -> float:
        if self._failures:
            return float(min(30, 2 ** min(self._failures, 5)))
        return max(_WRITE_S, len(self._data) / _BYTES_PER_S)
