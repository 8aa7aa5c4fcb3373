"""The life of a range over all reigns, as the event log tells it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from antinfer.core import documents
from antinfer.core.codec import plain
from antinfer.core.documents import SHARD
from antinfer.core.ids import ShardId, lease_of
from antinfer.core.journal import Begin, Decoder, End, Gap, Told
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord
from antinfer.core.story import rows_text
from antinfer.storage import manifest
from antinfer.storage.eventlog import Chunk, Head, Reign, reigns
from antinfer.storage.place import OutputPlace

_OF_OBJECTS: Final = {"Published": "published", "Flushed": "recorded in the manifest"}
"""What events that name staged objects mean for their rows."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened to a range."""

    when: float
    """Seconds since 1970."""
    epoch: int
    cause: int
    """Number of the event of the reign that brought it about; 0: the reign began with it."""
    event: str
    """What kind of event that was; empty when the log does not hold it."""
    what: str
    rows: Rows
    lease: str
    who: str
    """Name of the worker; empty where none had a part in it."""

    @property
    def cause_id(self) -> str:
        return f"{self.epoch}:{self.cause}"


@dataclass(slots=True)
class ReignLife:
    """What one reign did to a range."""

    epoch: int
    began: float | None = None
    """Seconds since 1970; None when the beginning of its log is missing."""
    owner: str = ""
    source: str = ""
    """What it took its state from."""
    happenings: list[Happening] = field(default_factory=list)
    last_seen: float | None = None
    """When the log was last written to."""
    ended: str = ""
    """Why it ended; empty when its log does not say so."""
    notes: list[str] = field(default_factory=list)
    """What is missing in the log."""


@dataclass(slots=True)
class Life:
    """The life of a shard, or of one row of it."""

    shard: int
    row: int | None
    reigns: list[ReignLife]
    records: list[CommitRecord]
    """The commits of these rows that the manifest holds, by round and place."""

    def to_json(self) -> dict[str, Any]:
        told = plain(self)
        for reign, data in zip(self.reigns, told["reigns"], strict=True):
            for happening, line in zip(reign.happenings, data["happenings"], strict=True):
                line["cause"] = happening.cause_id
        assert isinstance(told, dict)
        return told


def life_of(place: OutputPlace, shard: int, row: int | None = None) -> Life:
    """Read the life of `shard`, or of one row of it, from its event log and manifest.

    Reads the whole log, but only parses what is about the shard. Raises `OutputError` when the place cannot be reached.
    """
    records = [record for record in manifest.read_all(place) if record.shard == shard and _holds(record.rows, row)]
    records.sort(key=lambda record: (record.round, record.start))
    return Life(shard, row, [_Reader(shard, row, reign).read(place) for reign in reigns(place)], records)


def _holds(rows: Rows, row: int | None) -> bool:
    return row is None or rows.start <= row < rows.stop


class _Reader:
    """Reads one reign."""

    def __init__(self, shard: int, row: int | None, reign: Reign) -> None:
        self._shard = shard
        self._row = row
        self._reign = reign
        self._told = ReignLife(reign.epoch)
        # A line of the story has the shard before its rows, and a staged name has it between its dots.
        self._marks = (f",{shard},[".encode(), f".{shard}.".encode())

    def read(self, place: OutputPlace) -> ReignLife:
        told = self._told
        if self._reign.missing:
            told.notes.append(f"{len(self._reign.missing)} chunk(s) of its log are missing: {self._reign.missing[:5]}")
        for chunk in self._reign.chunks(place):
            self._read_chunk(chunk)
            if chunk.damage:
                told.notes.append(f"{chunk.name}: {chunk.damage}; the rest of it cannot be read")
        told.happenings.sort(key=lambda happening: happening.cause)
        if told.began is None:
            told.notes.append("the beginning of its log is missing")
        if not told.ended:
            told.notes.append("its log has no end: the master rules now, or was killed, and what it did last may be missing here")
        return told

    def _read_chunk(self, chunk: Chunk) -> None:
        head = chunk.head
        if head is None:
            return
        decoder = Decoder(head.shapes)
        before = b""
        for line in chunk.lines:
            try:
                self._read_line(line, before, head, decoder)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                self._told.notes.append(f"{chunk.name}: a line cannot be read: {error}")
            before = line

    def _read_line(self, line: bytes, before: bytes, head: Head, decoder: Decoder) -> None:
        if line.startswith(b'["Batch"'):
            if self._marks[1] in line:
                self._read_batch(_Raw(line, head.shapes), head)
        elif line.startswith(b'["Told"'):
            if self._marks[0] in line:
                self._read_told(decoder.item(line), before, head)
        else:
            self._read_other(decoder.item(line), head)

    def _read_told(self, item: object, before: bytes, head: Head) -> None:
        assert isinstance(item, Told)
        batch = _Raw(before, head.shapes) if before.startswith(b'["Batch"') else None
        for entry in item.lines:
            if entry.shard == self._shard and _holds(entry.rows, self._row):
                event = batch.kind(entry.cause) if batch is not None and entry.cause else ""
                self._add(head.wall(entry.at), entry.cause, event, entry.what, entry.rows, str(entry.lease), entry.who)

    def _read_batch(self, batch: _Raw, head: Head) -> None:
        lost = f", but that never became durable ({batch.lost})" if batch.lost else ""
        for cause, event in batch.events():
            kind = event[0]
            if kind in _OF_OBJECTS:
                for staged in event[batch.place(kind, "staged")]:
                    shard, rows = _of_staged(staged)
                    if shard == self._shard and _holds(rows, self._row):
                        self._add(head.wall(event[1]), cause, kind, _OF_OBJECTS[kind] + lost, rows, str(lease_of(staged)), "")
            elif kind == "OutputListed":
                for data in event[batch.place(kind, "records")]:
                    record = CommitRecord.from_json(data)
                    if record.shard == self._shard and _holds(record.rows, self._row):
                        lease = str(lease_of(record.staged))
                        self._add(head.wall(event[1]), cause, kind, "found committed", record.rows, lease, record.worker)

    def _read_other(self, item: object, head: Head) -> None:
        told = self._told
        if isinstance(item, Begin):
            told.began, told.owner = head.wall(item.at), item.owner
            told.source = "the store" if item.trusted else "the output"
            if item.round is not None:
                told.source += f", for retry round {item.round.number}"
            self._read_documents(item, head.wall(item.at))
        elif isinstance(item, Gap):
            told.notes.append(f"{item.events} events are missing: {item.why}")
        elif isinstance(item, End):
            told.ended, told.last_seen = item.why, head.wall(item.at)

    def _read_documents(self, begin: Begin, when: float) -> None:
        """Tell what state the shard was in when the reign began."""
        text = (begin.documents or {}).get(f"{SHARD}{self._shard}")
        if text is None or not begin.trusted:
            return
        loaded = documents.decode({f"{SHARD}{self._shard}": text}).shards[ShardId(self._shard)]
        workers = {session.id: session.worker for session in documents.decode(_sessions(begin.documents or {})).sessions}
        found = [("committed", Rows(*run), "", "") for run in loaded.committed]
        found += [("pending", pending.rows, "", "") for pending in loaded.pending.values()]
        found += [("leased", lease.rows, str(lease.id), workers.get(lease.session, "")) for lease in loaded.leases.values()]
        for what, rows, lease, who in found:
            if _holds(rows, self._row):
                self._add(when, 0, "", f"found {what}", rows, lease, who)

    def _add(self, when: float, cause: int, event: str, what: str, rows: Rows, lease: str, who: str) -> None:
        self._told.happenings.append(Happening(when, self._reign.epoch, cause, event, what, rows, lease, who))


class _Raw:
    """A batch as it was parsed: what is looked up here and there is not worth being made into values."""

    def __init__(self, line: bytes, shapes: Mapping[str, tuple[str, ...]]) -> None:
        self._data = json.loads(line)
        self._shapes = shapes
        self._first: int = self._data[self.place("Batch", "first")]
        self._events: list[Any] = self._data[self.place("Batch", "events")]
        self.lost: str = self._data[self.place("Batch", "lost")]

    def place(self, kind: str, name: str) -> int:
        return self._shapes[kind].index(name) + 1

    def kind(self, cause: int) -> str:
        """Return what kind of event a number names."""
        at = cause - self._first
        return str(self._events[at][0]) if 0 <= at < len(self._events) else ""

    def events(self) -> Iterator[tuple[int, Any]]:
        return enumerate(self._events, self._first)


def _of_staged(staged: str) -> tuple[int, Rows]:
    _, shard, rows, _ = staged.split(".")
    start, stop = rows.split("-")
    return int(shard), Rows(int(start), int(stop))


def _sessions(found: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text in found.items() if key.startswith(documents.SESSION)}


def happening_line(happening: Happening) -> list[str]:
    """Return the columns of a happening for people, but for its time."""
    cause = f"{happening.cause_id} {happening.event}" if happening.cause else f"{happening.epoch}"
    return [cause, rows_text(happening.rows), happening.what, happening.lease, happening.who]
