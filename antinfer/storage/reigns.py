"""What the event log says of a whole reign: a summary of it, its events, and whether an engine that is told them again does the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from antinfer.core import journal
from antinfer.core.codec import plain
from antinfer.core.journal import Batch, Begin, End, Gap, Item, Told
from antinfer.errors import OutputError, VerifyFault
from antinfer.storage.eventlog import Chunk, Reign
from antinfer.storage.place import OutputPlace


@dataclass(slots=True)
class Summary:
    """What the log of a reign holds. Times in seconds since 1970."""

    epoch: int
    began: float | None = None
    """None when the beginning of the log is missing."""
    owner: str = ""
    ended: str = ""
    """Why the reign ended; empty when the log does not say so."""
    until: float | None = None
    """Time of the last thing in it."""
    events: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """Events by what they are."""
    lines: int = 0
    """Of the story."""
    chunks: int = 0
    notes: list[str] = field(default_factory=list)
    """What is missing in it."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of replaying a reign."""

    epoch: int
    events: int
    batches: int
    fault: str
    """Where it came out differently, or why it could not be replayed; empty when all was the same."""


def summarise(place: OutputPlace, reign: Reign) -> Summary:
    """Count what the log of a reign holds. Raises `OutputError` when it cannot be read."""
    told = Summary(reign.epoch)
    if reign.missing:
        told.notes.append(f"{len(reign.missing)} chunk(s) are missing: {reign.missing[:5]}")
    for chunk in reign.chunks(place):
        told.chunks += 1
        for item in chunk.items():
            _count(told, item, chunk)
        if chunk.damage:
            told.notes.append(f"{chunk.name}: {chunk.damage}; the rest of it cannot be read")
    if not told.ended:
        told.notes.append("it has no end: the master rules now, or was killed, and what it was told last may be missing here")
    return told


def _count(told: Summary, item: Item, chunk: Chunk) -> None:
    assert chunk.head is not None
    match item:
        case Begin():
            told.began, told.owner = chunk.head.wall(item.at), item.owner
        case Batch():
            told.events += len(item.events)
            told.kinds.update(type(event).__name__ for event in item.events)
            if item.events:
                told.until = chunk.head.wall(item.events[-1].at)
            if item.lost:
                told.notes.append(f"events from {told.epoch}:{item.first} on never became durable: {item.lost}")
        case Told():
            told.lines += len(item.lines)
        case Gap():
            told.notes.append(f"{item.events} events are missing: {item.why}")
        case End():
            told.ended, told.until = item.why, chunk.head.wall(item.at)


def every_event(place: OutputPlace, reign: Reign) -> Iterator[dict[str, Any]]:
    """Yield the events of a reign as plain data: ``id``, ``when`` (seconds since 1970), ``event`` (its kind), and its fields.

    Raises `OutputError` when the log cannot be read on.
    """
    for chunk in reign.chunks(place):
        for item in chunk.items():
            if isinstance(item, Batch) and chunk.head is not None:
                for number, event in enumerate(item.events, item.first):
                    when = chunk.head.wall(event.at)
                    yield {"id": f"{reign.epoch}:{number}", "when": when, "event": type(event).__name__, **plain(event)}


def replay_reign(place: OutputPlace, reign: Reign) -> Replayed:
    """Tell a fresh engine everything that the log of a reign says, and compare what it does with what was done."""
    try:
        lived = journal.replay(item for chunk in reign.chunks(place) for item in chunk.items())
    except (VerifyFault, OutputError, ValueError) as error:
        return Replayed(reign.epoch, 0, 0, str(error))
    return Replayed(reign.epoch, lived.events, lived.batches, "")
