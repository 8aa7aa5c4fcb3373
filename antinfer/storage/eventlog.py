"""The event log beside the output: ``_antinfer/events/<epoch>-<n>.chunk``.

A chunk is a sequence of frames: a head of 16 bytes (mark, length as stored, length, CRC-32 of what is stored; little-endian) and lines of
text, compressed by zstd. The first line of a chunk says of what it is a part, and in which shapes its values are written; each further line
is an item of `antinfer.core.journal`. Chunks can be read without one another, frames only in order. The last chunk of a reign grows, by
being replaced, until it is large enough; so what a crash costs is what had not been written yet, and a chunk that was cut off all the same
is read up to there.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

import pyarrow as pa

from antinfer.core import journal
from antinfer.core.codec import Shapes
from antinfer.core.journal import Decoder, Item
from antinfer.errors import OutputError
from antinfer.storage import layout
from antinfer.storage.place import OutputPlace

_HEAD: Final = struct.Struct("<4sIII")
_MARK: Final = b"aev1"
_CODEC: Final = "zstd"


@dataclass(frozen=True, slots=True)
class Head:
    """The first line of a chunk."""

    epoch: int
    n: int
    """Number of the chunk in its reign, from 1."""
    at: int
    """Time in ms on the clock of the master..."""
    wall_ms: int
    """...and in ms since 1970, of the same moment."""
    shapes: Shapes
    format: int = journal.FORMAT

    def line(self) -> str:
        shapes = {name: list(names) for name, names in self.shapes.items()}
        head = {"antinfer": "events", "format": self.format, "epoch": self.epoch, "chunk": self.n}
        return json.dumps({**head, "at": self.at, "wall_ms": self.wall_ms, "shapes": shapes}, separators=(",", ":"))

    @classmethod
    def read(cls, line: bytes) -> Head:
        """Read what `line` returned. Raises ValueError when it is something else."""
        try:
            data = json.loads(line)
            shapes = {name: tuple(names) for name, names in data["shapes"].items()}
            head = cls(data["epoch"], data["chunk"], data["at"], data["wall_ms"], shapes, data["format"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the head of an event log: {error}") from error
        if head.format != journal.FORMAT:
            raise ValueError(f"it has format {head.format}, and this version reads format {journal.FORMAT}")
        return head

    def wall(self, at: int) -> float:
        """Return the time `at` of the master's clock in seconds since 1970."""
        return (self.wall_ms + at - self.at) / 1_000


def encode_frame(lines: Iterable[str]) -> bytes:
    """Return a frame that holds `lines`."""
    raw = "\n".join(lines).encode("utf-8", "surrogatepass")
    stored: bytes = pa.compress(raw, codec=_CODEC, asbytes=True)
    return _HEAD.pack(_MARK, len(stored), len(raw), zlib.crc32(stored)) + stored


def decode_frames(data: bytes) -> tuple[list[bytes], str]:
    """Return the lines of all whole frames, and what is wrong with the rest: empty when nothing is."""
    lines: list[bytes] = []
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            return lines, "it is cut off"
        mark, stored, length, crc = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        frame = data[at : at + stored]
        if mark != _MARK:
            return lines, "there is something else in it"
        if len(frame) < stored:
            return lines, "it is cut off"
        if zlib.crc32(frame) != crc:
            return lines, "it is damaged"
        lines += pa.decompress(frame, decompressed_size=length, codec=_CODEC, asbytes=True).split(b"\n")
        at += stored
    return lines, ""


@dataclass(slots=True)
class Chunk:
    """A chunk as far as it can be read."""

    name: str
    head: Head | None
    """None: not even that can be read."""
    lines: list[bytes] = field(repr=False)
    """All but the head."""
    damage: str
    """What is wrong with it; empty when nothing is."""

    def items(self) -> Iterator[Item]:
        """Read every line. Raises `OutputError` at one that cannot be read."""
        if self.head is None:
            return
        decoder = Decoder(self.head.shapes)
        for line in self.lines:
            try:
                yield decoder.item(line)
            except ValueError as error:
                raise unreadable(self.name, str(error)) from error


@dataclass(frozen=True, slots=True)
class Reign:
    """The chunks of one reign."""

    epoch: int
    names: tuple[str, ...]
    missing: tuple[int, ...]
    """Numbers of chunks that should be there and are not."""

    def chunks(self, place: OutputPlace) -> Iterator[Chunk]:
        """Read them, one at a time; one that vanishes meanwhile is left out."""
        for name in self.names:
            data = place.read(name)
            if data is not None:
                yield read_chunk(name, data)


def read_chunk(name: str, data: bytes) -> Chunk:
    """Read a chunk as far as it goes."""
    try:
        lines, damage = decode_frames(data)
    except (pa.ArrowException, OSError) as error:
        lines, damage = [], f"it is damaged: {error}"
    head = None
    if lines:
        try:
            head = Head.read(lines[0])
        except ValueError as error:
            damage = str(error)
    return Chunk(name, head, lines[1:] if head else [], damage or ("" if head else "it is empty"))


def reigns(place: OutputPlace) -> list[Reign]:
    """List the reigns that left a log, in order. Raises `OutputError` when the place cannot be reached."""
    listed = [(layout.parse_events_name(stored.name), stored.name) for stored in place.list_objects(layout.EVENTS)]
    ours = sorted((key, name) for key, name in listed if key is not None)
    found = []
    for epoch, group in groupby(ours, key=lambda entry: entry[0][0]):
        members = list(group)
        numbers = [n for (_, n), _ in members]
        missing = tuple(sorted(set(range(1, numbers[-1] + 1)) - set(numbers)))
        found.append(Reign(epoch, tuple(name for _, name in members), missing))
    return found


def unreadable(name: str, why: str) -> OutputError:
    """Return (not raise) the error for a chunk that cannot be read on."""
    return OutputError(f"the event log {name} cannot be read: {why}", hint="Nothing depends on it: results and records are elsewhere.")
