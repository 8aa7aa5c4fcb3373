"""The loop of a reign: gather events, step, persist the batch, and only then act on it (rules 3 and 4)."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from antinfer import faultpoints
from antinfer.core import commands, invariants
from antinfer.core.documents import Changes
from antinfer.core.engine import Engine, Phase
from antinfer.core.events import Event, Published, Ticked
from antinfer.core.records import CommitRecord
from antinfer.errors import AntinferError
from antinfer.master.holdback import Holdback
from antinfer.master.journal import Journal
from antinfer.master.status import Figures, rows_done
from antinfer.master.store.base import Batch, Durability, Store
from antinfer.master.streams import MakeEvent

_TICK_S: Final = 0.2
_LINGER_S: Final = 3.0
"""How long a finished master stays to tell workers so."""
_MOST_EVENTS: Final = 4_000
"""Events of one batch: bounds how long the first of them waits for its answer."""


def now_ms() -> int:
    """Return the time of the master's monotonic clock, the only one that decides anything (rule 16)."""
    return time.monotonic_ns() // 1_000_000


class Effects(Protocol):
    """Carries out what takes long; results come back as events."""

    def publish(self, records: tuple[CommitRecord, ...]) -> None: ...
    def carry_out(self, command: commands.Command) -> None: ...


class Loop:
    """Drives one engine. Used from the event loop's thread; `post_soon` alone may be called from others."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        seq: int,
        *,
        send: Callable[[commands.Send], None],
        effects: Effects,
        connected: Callable[[], int],
        figures: Figures,
        journal: Journal | None = None,
        check: bool = False,
    ) -> None:
        """
        Args:
            engine: started or not; `run` is given what its start commanded.
            store: claimed for the engine's epoch and loaded.
            seq: sequence number found in the store.
            send: takes messages to workers.
            effects: takes everything else.
            connected: tells how many workers are connected.
            figures: what is counted for display.
            journal: open; takes in every batch.
            check: look at the invariants after every batch.
        """
        self.engine = engine
        self._store = store
        self._seq = seq
        self._send = send
        self._effects = effects
        self._connected = connected
        self._figures = figures
        self._journal = journal
        self._check = check
        self._inbox: deque[Event] = deque()
        self._filled = asyncio.Event()
        self._tick_waits = False
        self._asyncio = asyncio.get_running_loop()
        self._error: BaseException | None = None
        self._stopping = False
        self._tokens = secrets.token_hex(8)
        self._holdback = Holdback() if store.durability is Durability.PUBLISH else None
        self.batches = 0
        """Batches persisted."""
        self.given_up: commands.GiveUp | None = None
        """Why the job has failed, once it has."""

    # -- input -------------------------------------------------------------------------------------------------------------------
    def post(self, make: MakeEvent) -> None:
        """Take in an event, stamped with the present time."""
        self._inbox.append(make(now_ms()))
        self._filled.set()

    def post_soon(self, make: MakeEvent) -> None:
        """Take in an event from another thread; lost when the loop has ended."""
        if not self._asyncio.is_closed():
            self._asyncio.call_soon_threadsafe(self.post, make)

    def fail_soon(self, error: BaseException) -> None:
        """End the reign with `error`, from another thread."""
        if not self._asyncio.is_closed():
            self._asyncio.call_soon_threadsafe(self._fail, error)

    def stop(self) -> None:
        """End the reign after the batch under way; the state stays as it is durable."""
        self._stopping = True
        self._filled.set()

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._filled.set()

    # -- the loop ----------------------------------------------------------------------------------------------------------------
    async def run(self, started: list[commands.Command]) -> None:
        """Rule until the job is done or failed and workers have been told, or until `stop`.

        Args:
            started: what the engine's start commanded.

        Raises:
            FencedError: A higher epoch rules.
            DiscontinuityError: The store must be looked at afresh.
            AntinferError: What an effect ended in.
        """
        ticker = asyncio.create_task(self._tick())
        try:
            await self._settle(started, [])
            ended_at: int | None = None
            while not self._stopping:
                await self._filled.wait()
                self._filled.clear()
                if self._error is not None:
                    raise self._error
                await self._batch()
                if self.engine.phase in (Phase.DONE, Phase.FAILED):
                    ended_at = ended_at or now_ms()
                    if not self._connected() or now_ms() - ended_at > _LINGER_S * 1000:
                        return
        finally:
            ticker.cancel()

    async def _batch(self) -> None:
        events = [self._inbox.popleft() for _ in range(min(len(self._inbox), _MOST_EVENTS))]
        if self._inbox:
            self._filled.set()
        ordered: list[commands.Command] = []
        try:
            for event in events:
                ordered += self.engine.step(event)
        except Exception as error:
            self._note(events, Changes(), 0, lost=f"{type(error).__name__}: {error}")
            raise
        await self._settle(ordered, events)
        if any(isinstance(event, Ticked) for event in events):
            self._tick_waits = False
            self._figures.sample(events[-1].at, rows_done(self.engine))

    async def _settle(self, ordered: list[commands.Command], events: Sequence[Event]) -> None:
        """Make the state durable, then carry out what was decided from it."""
        if self._check:
            invariants.check(self.engine)
        commits = sum(len(command.records) for command in ordered if isinstance(command, commands.Publish))
        if commits:
            faultpoints.hit("commit.decided", commits=commits)
        changes = self.engine.take_changes()
        # Even a batch without changes passes the fence: what a master that rules no more answers, repeats and refusals too, may be wrong.
        if changes or ordered:
            self.batches += 1
            token = f"{self._tokens}-{self.batches}"
            try:
                await self._store.persist(Batch(self.engine.epoch, self._seq, token, changes.puts, changes.deletes, changes.reset))
            except (AntinferError, asyncio.CancelledError) as error:
                self._note(events, changes, len(ordered), lost=str(error) or "the master was stopped")
                raise
            self._seq += 1
        self._note(events, changes, len(ordered))
        if commits:
            faultpoints.hit("commit.durable", commits=commits)
        self._carry_out(ordered)
        if commits:
            faultpoints.hit("commit.answered", commits=commits)
        if self._holdback is not None:
            for event in events:
                if isinstance(event, Published):
                    for send in self._holdback.published(event.staged):
                        self._send(send)

    def _note(self, events: Sequence[Event], changes: Changes, ordered: int, lost: str = "") -> None:
        if self._journal is not None:
            self._journal.note(events, changes, ordered, lost)

    def _carry_out(self, ordered: list[commands.Command]) -> None:
        publications = tuple(record for command in ordered if isinstance(command, commands.Publish) for record in command.records)
        if self._holdback is not None:
            self._holdback.expect(record.staged for record in publications)
        if publications:
            self._figures.committed(publications)
            self._effects.publish(publications)
        for command in ordered:
            if isinstance(command, commands.Send):
                if self._holdback is None or self._holdback.offer(command):
                    self._send(command)
            elif isinstance(command, commands.GiveUp):
                self.given_up = command
            elif not isinstance(command, commands.Publish):
                self._effects.carry_out(command)

    async def _tick(self) -> None:
        while True:
            # One tick at a time: after a long wait for the store a heap of old ticks would only cost time.
            if not self._tick_waits:
                self._tick_waits = True
                self.post(Ticked)
            await asyncio.sleep(_TICK_S)
