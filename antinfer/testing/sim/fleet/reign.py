"""The master of a whole job: the real engine in a shell that batches, makes durable, and only then acts, as `antinfer.master.loop` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from antinfer.core import commands, events, invariants
from antinfer.core.engine import Engine, Phase
from antinfer.core.events import Event, StreamId
from antinfer.core.messages import Downward, Heartbeat, Join, Upward
from antinfer.core.plan import PlanIndex
from antinfer.core.records import CommitRecord
from antinfer.errors import InvariantViolation
from antinfer.testing.sim.fleet.books import Books
from antinfer.testing.sim.fleet.clock import Clock
from antinfer.testing.sim.fleet.conditions import Conditions

_PERSIST_MS: Final = 2
_PUBLISH_MS: Final = 20
_FLUSH_MS: Final = 30
_LIST_MS: Final = 100
TICK_MS: Final = 200
_WHOLE_CHECK_MS: Final = 60_000
"""How often everything that is open is checked; what a step has changed is checked after it."""
_RECORD: Final = "r:"


class Peer(Protocol):
    """The worker at the other end of a stream."""

    def hear(self, stream: StreamId, message: Downward) -> None: ...
    def lose_stream(self, stream: StreamId) -> None: ...


class Master:
    """One slot for master processes: each life is a reign, on what the one before has left in the store."""

    def __init__(self, clock: Clock, conditions: Conditions, books: Books) -> None:
        self._clock = clock
        self._conditions = conditions
        self._books = books
        self.engine: Engine | None = None
        self.epoch = 0
        self.streams: dict[StreamId, Peer] = {}
        self.documents: dict[str, str] = {}
        """What the store holds."""
        self.document_bytes = 0
        self.most_document_bytes = 0
        self.batches = 0
        self.stepped = 0
        """Events that the core took."""
        self.committed: Counter[str] = Counter()
        """Rows that workers have committed in this reign, by name."""
        self.problems: list[str] = []
        self.ended_at: int | None = None
        self.is_over = False
        """The job has ended, well or not."""
        self.leases = 0
        """Granted by the masters that are gone."""
        self._inbox: list[Event] = []
        self._turns = False
        self._unpublished: list[CommitRecord] = []
        self._next_whole_check = 0

    # -- life --------------------------------------------------------------------------------------------------------------------
    def start(self, _: object = None) -> None:
        """Begin a reign."""
        self.epoch += 1
        conditions = self._conditions
        plan = PlanIndex([conditions.rows] * conditions.shards, complete=True)
        engine = self.engine = Engine(conditions.engine, plan, self.epoch)
        self._inbox, self._turns, self._unpublished = [], False, []
        self.committed = Counter()
        ordered = engine.start(self._clock.now, dict(self.documents), trusted=True)
        self._check(engine)
        self._settle(engine, ordered)
        self._tick(self.epoch)

    def crash(self) -> None:
        """Die without a word; every connection breaks."""
        if self.engine is not None:
            self.leases += self.engine.counters()["leases_granted"]
        self.engine = None
        streams, self.streams = self.streams, {}
        for stream, peer in streams.items():
            self._clock.after(1, lambda ended: ended[0].lose_stream(ended[1]), (peer, stream))

    @property
    def is_ruling(self) -> bool:
        return self.engine is not None

    # -- what comes in -----------------------------------------------------------------------------------------------------------
    def hear(self, stream: StreamId, message: Upward) -> None:
        if stream not in self.streams:
            return
        at = self._clock.now
        if isinstance(message, Join):
            self.post(events.Joined(at, stream, message))
        elif isinstance(message, Heartbeat):
            self.post(events.HeartbeatSeen(at, stream, message))
        else:
            self.post(events.Requested(at, stream, message))

    def lose(self, stream: StreamId) -> None:
        """A connection is gone."""
        if self.streams.pop(stream, None) is not None:
            self.post(events.StreamBroken(self._clock.now, stream))

    def post(self, event: Event) -> None:
        """Have the engine take an event with its next batch."""
        self._inbox.append(event)
        if not self._turns:
            self._turns = True
            self._clock.after(self._conditions.turn_ms, self._turn, self.epoch)

    def _tick(self, epoch: int) -> None:
        if epoch == self.epoch and self.engine is not None and self.ended_at is None:
            self.post(events.Ticked(self._clock.now))
            self._clock.after(TICK_MS, self._tick, epoch)

    # -- a batch -----------------------------------------------------------------------------------------------------------------
    def _turn(self, epoch: int) -> None:
        engine = self.engine
        if engine is None or epoch != self.epoch:
            return
        self._turns = False
        taken, self._inbox = self._inbox, []
        ordered: list[commands.Command] = []
        for event in taken:
            ordered += self._step(engine, event)
        self.stepped += len(taken)
        self.is_over = engine.phase in (Phase.DONE, Phase.FAILED)
        self._settle(engine, ordered)

    def _step(self, engine: Engine, event: Event) -> list[commands.Command]:
        """Let the engine take an event; the shards that this changes are checked."""
        ledger = engine.ledger
        before, ledger.dirty = ledger.dirty, set()
        ordered = engine.step(event)
        self._check(engine)
        ledger.dirty |= before
        return ordered

    def _settle(self, engine: Engine, ordered: list[commands.Command]) -> None:
        changes = engine.take_changes()
        if changes:
            self.batches += 1
            if changes.reset:
                self.documents.clear()
                self.document_bytes = 0
            for key, text in changes.puts.items():
                self.document_bytes += len(text) - len(self.documents.get(key, ""))
                self.documents[key] = text
            for key in changes.deletes:
                self.document_bytes -= len(self.documents.pop(key, ""))
            self.most_document_bytes = max(self.most_document_bytes, self.document_bytes)
            self._books.forget([key.removeprefix(_RECORD) for key in changes.deletes if key.startswith(_RECORD)])
        if ordered:
            self._clock.after(_PERSIST_MS, self._carry_out, (self.epoch, ordered))

    def _check(self, engine: Engine) -> None:
        try:
            invariants.check_shards(engine, engine.ledger.dirty)
            if self._clock.now >= self._next_whole_check:
                self._next_whole_check = self._clock.now + _WHOLE_CHECK_MS
                invariants.check(engine)
        except InvariantViolation as error:
            self.problems.append(f"partition: {error}")

    # -- what is done about it ---------------------------------------------------------------------------------------------------
    def _carry_out(self, ordered: tuple[int, list[commands.Command]]) -> None:
        epoch, wanted = ordered
        if epoch != self.epoch or self.engine is None:
            return
        for command in wanted:
            if isinstance(command, commands.Send):
                peer = self.streams.get(command.stream)
                if peer is not None:
                    peer.hear(command.stream, command.message)
            elif isinstance(command, commands.Publish):
                if not self._unpublished:
                    self._later(_PUBLISH_MS, self._publish)
                self._unpublished.extend(command.records)
                for record in command.records:
                    self.committed[record.worker] += record.rows_in
            else:
                self._act(command)

    def _act(self, command: commands.Command) -> None:
        books, now = self._books, self._clock
        match command:
            case commands.Flush(records):
                names = tuple(str(record.staged) for record in records)
                self._later(_FLUSH_MS, lambda: books.flush(records), lambda: events.Flushed(now.now, names))
            case commands.ListStaging():
                self._later(_LIST_MS, None, lambda: events.StagingListed(now.now, tuple(books.staged)))
            case commands.Collect(staged):
                books.collect(staged)
            case commands.SweepStaging(before, keep):
                self._later(_LIST_MS, lambda: books.sweep(before, keep), lambda: events.StagingSwept(now.now))
            case commands.ListOutput():
                # Only the first reign has nothing in the store, and its output is empty.
                self._later(_LIST_MS, None, lambda: events.OutputListed(now.now, ()))
            case commands.AuditOutput():
                self._later(_LIST_MS, None, lambda: events.OutputAudited(now.now, ()))
            case commands.Seal():
                self._later(_LIST_MS, self._seal, lambda: events.Sealed(now.now))
            case commands.GiveUp():
                pass  # whoever asks the engine hears why
            case _:
                raise AssertionError(f"unknown command {command!r}")

    def _later(self, ms: int, act: Callable[[], None] | None, make: Callable[[], Event] | None = None) -> None:
        """Do something to the output place, and tell the engine; nothing happens when the master dies before."""

        def do(epoch: int) -> None:
            if epoch != self.epoch or self.engine is None:
                return
            if act is not None:
                act()
            if make is not None:
                self.post(make())

        self._clock.after(ms, do, self.epoch)

    def _publish(self) -> None:
        records, self._unpublished = self._unpublished, []
        done, missing = self._books.publish(records)
        self.post(events.Published(self._clock.now, done, missing))

    def _seal(self) -> None:
        self._books.is_sealed = True
        self.ended_at = self._clock.now
