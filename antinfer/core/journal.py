"""The event log of a reign: everything the engine was told, in order, so that another engine can be told the same.

An engine is deterministic: from the documents it began with, its policy, its plan and its events follows every decision it took. So a log
is a `Begin`, batches of events as the loop of the master took them in, each with a digest of the documents it changed, and an `End`.
Beside its batch lies what the engine told of it (`Told`), so that the life of a range can be read without living it again.

An event is named by the number of its reign and its own within it, as in ``3:1204``: the cause of whatever it brought about.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from antinfer.core import commands
from antinfer.core.codec import Codec, Form, Shapes
from antinfer.core.config import EngineConfig
from antinfer.core.documents import META, RECORD, Changes
from antinfer.core.engine import Engine
from antinfer.core.events import Event, HeartbeatSeen, StreamBroken, StreamId
from antinfer.core.ids import ShardId
from antinfer.core.messages import Heartbeat
from antinfer.core.plan import PlanIndex
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord
from antinfer.core.rounds import RetriedShard, Round
from antinfer.core.story import Entry
from antinfer.core.values import value
from antinfer.errors import VerifyFault

_LARGE: Final = 24
"""Documents in a large batch: those of about eight commits."""
_WHOLE_OF: Final = 16
FORMAT: Final = 1
"""Of what `Encoder` writes; another number is needed when today's `Decoder` could not read it."""


class Divergence(VerifyFault):
    """An engine that was told the same did not do the same."""


class Run(NamedTuple):
    """Shards of the plan, one after the other, with the same row count."""

    rows: int | None
    shards: int


class RetriedRows(NamedTuple):
    """The rows of one shard that a retry round takes."""

    shard: int
    rows: int
    """Of the whole shard."""
    runs: tuple[Rows, ...]


@value
class Retried:
    """A retry round."""

    number: int
    shards: tuple[RetriedRows, ...]


@value
class Begin:
    """What the engine of a reign began with."""

    epoch: int
    at: int
    """Time in ms on the clock of this master, as in events."""
    owner: str
    """Store, host and process of the master; for people."""
    version: str
    """Of antinfer: another one may decide otherwise."""
    config: EngineConfig
    plan: tuple[Run, ...]
    plan_complete: bool
    trusted: bool
    """Whether the engine was to go by the documents; see `Engine.start`."""
    documents: dict[str, str] | None
    round: Retried | None = None
    """The retry round that the reign is about; None: the plan itself."""

    @classmethod
    def of(
        cls,
        engine: Engine,
        at: int,
        documents: Mapping[str, str] | None,
        *,
        trusted: bool,
        owner: str = "",
        version: str = "",
        plan: tuple[int, bool] | None = None,
    ) -> Begin:
        """Describe an engine that is about to start with these arguments.

        `plan`: how many shards were planned then, and whether that was all; None: as it is now.
        """
        shards, complete = plan or (len(engine.plan), engine.plan.complete)
        runs = tuple(Run(*run) for run in engine.plan.runs(shards))
        kept = None if documents is None else dict(documents)
        retried = None
        if engine.round is not None:
            rows = tuple(RetriedRows(name, shard.rows, tuple(shard)) for name, shard in engine.round.shards.items())
            retried = Retried(engine.round.number, rows)
        return cls(engine.epoch, at, owner, version, engine.config, runs, complete, trusted, kept, retried)

    def engine(self) -> Engine:
        """Return an engine as it was then, not started."""
        rows = (run.rows for run in self.plan for _ in range(run.shards))
        retried = self.round
        round = None
        if retried is not None:
            round = Round(retried.number, {ShardId(each.shard): RetriedShard(each.rows, each.runs) for each in retried.shards})
        return Engine(self.config, PlanIndex(rows, complete=self.plan_complete), self.epoch, round)


@value
class Again:
    """The heart-beat that came last on this stream came again. Never seen outside of this module."""

    at: int
    stream: StreamId


@value
class Batch:
    """Events that were taken in together, and became durable together."""

    first: int
    """Number of the first event."""
    events: tuple[Event | Again, ...]
    digest: str
    """Of the documents that they changed; see `digest`."""
    commands: int
    """How many commands followed."""
    lost: str = ""
    """Not empty: why this batch never became durable, so that nothing came of it."""


@value
class Told:
    """What the engine told of the last batch, or of its start."""

    lines: tuple[Entry, ...]


@value
class Gap:
    """Here events are missing: they could not be written in time."""

    events: int
    why: str


@value
class End:
    """The master laid the log down by itself. A log without an end: its master was killed."""

    at: int
    why: str


Item = Begin | Batch | Told | Gap | End


def digest(changes: Changes, *, whole: bool = True) -> str:
    """Return hex digits that differ when documents differ, led by ``~`` when not all of them count; empty for no change.

    Args:
        changes: what a batch changed. Of its records the names alone count: what is in them is the worker's word, and stands in the event.
        whole: take in all documents; otherwise how many there are, and the one with the totals.
    """
    if not changes:
        return ""
    if whole:
        texts = [key if key.startswith(RECORD) else f"{key} {text}" for key, text in changes.puts.items()]
        texts += [f"-{key}" for key in changes.deletes]
    else:
        texts = [f"{len(changes.puts)} {len(changes.deletes)}", changes.puts.get(META, "")]
    if changes.reset:
        texts.append("reset")
    texts.sort()
    found = blake2b("\n".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return found if whole else f"~{found}"


def worth_whole(first: int, changes: Changes) -> bool:
    """Tell whether the digest of the batch of event `first` should be whole: always but for most of the large ones, where it would be a
    quarter of what the log costs a busy master."""
    return len(changes.puts) <= _LARGE or first % _WHOLE_OF == 0


class Encoder:
    """Makes lines of text, one for each item."""

    def __init__(self) -> None:
        self._texts: Mapping[str, str] = {}
        self._beats: dict[StreamId, Heartbeat] = {}
        self._encode = Codec(Item, {CommitRecord: Form(self._record, CommitRecord.from_json)}).encode

    def restart(self) -> None:
        """What comes next can be read without what came before."""
        self._beats.clear()

    def line(self, item: Item, texts: Mapping[str, str] | None = None) -> str:
        """Return the text of an item, without a line end.

        Args:
            item: whose heart-beats are folded here, not by the caller.
            texts: documents whose records need not be put into words again.
        """
        self._texts = texts or {}
        if isinstance(item, Batch):
            item = Batch(item.first, tuple(map(self._fold, item.events)), item.digest, item.commands, item.lost)
        return self._encode(item)

    def _fold(self, event: Event | Again) -> Event | Again:
        if isinstance(event, HeartbeatSeen):
            if self._beats.get(event.stream) == event.heartbeat:
                return Again(event.at, event.stream)
            self._beats[event.stream] = event.heartbeat
        elif isinstance(event, StreamBroken):
            self._beats.pop(event.stream, None)
        return event

    def _record(self, record: CommitRecord) -> str:
        return self._texts.get(f"{RECORD}{record.staged}") or record.to_text()


def shapes() -> Shapes:
    """Return the shapes of the classes that items are made of today."""
    return _codec().shapes


class Decoder:
    """Reads what an `Encoder` wrote since it was made or restarted."""

    def __init__(self, written: Shapes | None = None) -> None:
        """`written`: `shapes` of the version that wrote it; None: this one."""
        self._decode = _codec().decoder(written)
        self._beats: dict[StreamId, Heartbeat] = {}

    def item(self, line: str | bytes) -> Item:
        """Read a line. Raises `ValueError` when it is damaged, or holds what this version does not know."""
        try:
            item: Item = self._decode(json.loads(line))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"not a line of an event log: {error}") from error
        if isinstance(item, Batch):
            return Batch(item.first, tuple(map(self._unfold, item.events)), item.digest, item.commands, item.lost)
        return item

    def _unfold(self, event: Event | Again) -> Event:
        if isinstance(event, Again):
            if event.stream not in self._beats:
                raise ValueError(f"a heart-beat came again on stream {event.stream} that was never there")
            return HeartbeatSeen(event.at, event.stream, self._beats[event.stream])
        if isinstance(event, HeartbeatSeen):
            self._beats[event.stream] = event.heartbeat
        elif isinstance(event, StreamBroken):
            self._beats.pop(event.stream, None)
        return event


_made: list[Codec] = []


def _codec() -> Codec:
    # Made when it is needed: that takes milliseconds, and most masters read no log.
    if not _made:
        _made.append(Codec(Item, {CommitRecord: Form(CommitRecord.to_text, CommitRecord.from_json)}))
    return _made[0]


# -- living it again -----------------------------------------------------------------------------------------------------------------
class Lived(NamedTuple):
    """What an engine did when it was told a batch again."""

    batch: Batch | None
    """None: the start of the reign."""
    commands: list[commands.Command]
    changes: Changes


@dataclass(slots=True)
class Replay:
    """An engine that is told what a log says."""

    engine: Engine
    documents: dict[str, str]
    """The durable state, as it was after the last batch."""
    events: int = 0
    batches: int = 0

    @classmethod
    def of(cls, begin: Begin) -> Replay:
        """Return a replay whose engine has not started; the batch of its start comes first in the log."""
        engine = begin.engine()
        engine.story.keep_fresh()
        return cls(engine, dict(begin.documents or {}))


def replay(items: Iterable[Item], on_step: Callable[[Lived], None] = lambda lived: None) -> Replay:
    """Tell a fresh engine everything that the log of a reign says, and compare what it does with what was done.

    Args:
        items: in order, from `Begin` on; what follows a `Gap` or a lost batch is left out.
        on_step: is given the outcome of every batch.

    Raises:
        Divergence: Documents, commands or lines of the story are not the same; names the batch.
        ValueError: The log does not start with a `Begin`, or a batch is missing in it.
    """
    source = iter(items)
    begin = next(source, None)
    if not isinstance(begin, Begin):
        raise ValueError("the beginning of the log is missing")
    lives = Replay.of(begin)
    for batch, lines in _batches(source):
        if batch.first != lives.events + 1:
            raise ValueError(f"events {lives.events + 1} to {batch.first - 1} of reign {begin.epoch} are missing")
        if batch.lost:
            break
        on_step(_live(lives, begin, batch, lines))
    return lives


def _batches(items: Iterator[Item]) -> Iterator[tuple[Batch, tuple[Entry, ...]]]:
    """Yield every batch with what was told of it, up to the first gap."""
    batch: Batch | None = None
    lines: tuple[Entry, ...] = ()
    for item in items:
        if isinstance(item, Told):
            lines = item.lines
            continue
        if batch is not None:
            yield batch, lines
        batch, lines = None, ()
        if not isinstance(item, Batch):
            return
        batch = item
    if batch is not None:
        yield batch, lines


def _live(lives: Replay, begin: Begin, batch: Batch, lines: Sequence[Entry]) -> Lived:
    engine = lives.engine
    is_start = lives.batches == 0
    ordered: list[commands.Command] = []
    if is_start:
        ordered = engine.start(begin.at, begin.documents, trusted=begin.trusted)
    for event in batch.events:
        ordered += engine.step(_known(event))
    changes = engine.take_changes()
    name = f"{begin.epoch}:{batch.first}"
    told = tuple(engine.story.take_fresh())
    for what, found, logged in (
        ("documents", digest(changes, whole=not batch.digest.startswith("~")), batch.digest),
        ("commands", len(ordered), batch.commands),
        ("story", told, tuple(lines)),
    ):
        if found != logged:
            raise Divergence(
                f"the {what} of the batch of event {name} came out differently: {logged!r} then, {found!r} now",
                hint=f"The log was written by antinfer {begin.version or 'of unknown version'}; only the same decides the same.",
            )
    if changes.reset:
        lives.documents.clear()
    lives.documents.update(changes.puts)
    for key in changes.deletes:
        lives.documents.pop(key, None)
    lives.events += len(batch.events)
    lives.batches += 1
    return Lived(None if is_start else batch, ordered, changes)


def _known(event: Event | Again) -> Event:
    if isinstance(event, Again):
        raise ValueError("a batch was not read by a decoder")
    return event
