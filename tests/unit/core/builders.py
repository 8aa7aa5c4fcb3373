"""A small master's world for tests: an engine that serves, and workers that speak in one-liners."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from antinfer.core import commands, events, invariants
from antinfer.core.config import EngineConfig
from antinfer.core.engine import Engine
from antinfer.core.events import StreamId
from antinfer.core.ids import LeaseId, SessionId, WorkerId, lease_of, staged_name
from antinfer.core.messages import (
    Answer,
    Commit,
    Failure,
    Grant,
    Heartbeat,
    HeldRange,
    Join,
    Request,
    Return,
    Sizing,
    Welcome,
)
from antinfer.core.plan import PlanIndex
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord, StagedObject

T = TypeVar("T")


def record(
    grant: Grant, stop: int | None = None, *, start: int | None = None, nonce: str = "aa", quarantined: int = 0, schema: str = "s"
) -> CommitRecord:
    """A commit record over ``[start, stop)`` of a grant, by default over all of it."""
    first = grant.rows.start if start is None else start
    last = grant.rows.stop if stop is None else stop
    return CommitRecord(
        shard=grant.shard,
        start=first,
        stop=last,
        staged=staged_name(grant.lease, grant.shard, first, last, nonce),
        objects=(StagedObject("part"),),
        rows_out=last - first - quarantined,
        rows_quarantined=quarantined,
        schema=schema,
    )


class World:
    """An engine in its SERVING phase. Every call checks the invariants; commands pile up in `commands`."""

    def __init__(
        self, rows: Iterable[int | None] = (10,), *, config: EngineConfig | None = None, epoch: int = 1, complete: bool = True
    ) -> None:
        self.at = 0
        self.config = config or EngineConfig()
        self.engine = Engine(self.config, PlanIndex(rows, complete=complete), epoch)
        self.commands: list[commands.Command] = self.engine.start(0, None, trusted=False)
        self.documents: dict[str, str] = {}
        self.step(events.StagingSwept(0))
        self.step(events.OutputListed(0, ()))

    def step(self, event: events.Event) -> list[commands.Command]:
        given = self.engine.step(event)
        invariants.check(self.engine)
        self.commands.extend(given)
        self.persist()
        return given

    def persist(self) -> None:
        changes = self.engine.take_changes()
        if changes.reset:
            self.documents.clear()
        self.documents.update(changes.puts)
        for key in changes.deletes:
            self.documents.pop(key, None)

    def tick(self, ms: int = 0) -> list[commands.Command]:
        self.at += ms
        return self.step(events.Ticked(self.at))

    def silence(self, ms: int) -> list[commands.Command]:
        """Let time pass in ticks, as an awake master sees it."""
        given: list[commands.Command] = []
        for _ in range(0, ms, 200):
            given.extend(self.tick(200))
        return given

    def worker(self, name: str = "w1", *, held: tuple[HeldRange, ...] = ()) -> Worker:
        return Worker(self, name, held)

    def of(self, kind: type[T]) -> list[T]:
        return [command for command in self.commands if isinstance(command, kind)]

    def fail_over(self, *, trusted: bool = True, at: int = 0) -> World:
        """A later master that starts from the documents; its clock begins at `at`."""
        heir = World.__new__(World)
        heir.at, heir.config, heir.documents = at, self.config, dict(self.documents)
        rows = [self.engine.plan.rows(shard) for shard in range(len(self.engine.plan))]
        heir.engine = Engine(self.config, PlanIndex(rows, complete=self.engine.plan.complete), self.engine.epoch + 1)
        heir.commands = heir.engine.start(at, heir.documents, trusted=trusted)
        heir.persist()
        return heir


class Worker:
    """A worker as the master sees it."""

    _streams = iter(range(1, 1 << 30))

    def __init__(self, world: World, name: str, held: tuple[HeldRange, ...] = ()) -> None:
        self.world = world
        self.name = WorkerId(name)
        self.number = 0
        self.join(held)

    def join(self, held: tuple[HeldRange, ...] = ()) -> Welcome:
        self.stream = StreamId(next(self._streams))
        self.number = 0
        self.welcome = self._send(events.Joined(self.world.at, self.stream, Join(self.name, "", held)), Welcome)
        self.session: SessionId = self.welcome.session
        return self.welcome

    def ask(
        self,
        want: int = 0,
        *,
        commits: Iterable[CommitRecord | Commit] = (),
        returns: Iterable[LeaseId] = (),
        failures: tuple[Failure, ...] = (),
        sizings: tuple[Sizing, ...] = (),
        held: Iterable[LeaseId] | None = None,
        leaving: bool = False,
    ) -> Answer:
        """Send the next request. By default it holds what the master thinks, and commits records under the lease in their name."""
        self.number += 1
        self.last = Request(
            self.session,
            self.number,
            sizings=sizings,
            commits=tuple(item if isinstance(item, Commit) else Commit(lease_of(item.staged), item) for item in commits),
            returns=tuple(Return(lease) for lease in returns),
            failures=failures,
            held=tuple(self.leases()) if held is None else tuple(held),
            want=want,
            leaving=leaving,
        )
        return self.repeat()

    def repeat(self, world: World | None = None) -> Answer:
        """Send the last request again, perhaps to another master."""
        self.world = world or self.world
        return self._send(events.Requested(self.world.at, self.stream, self.last), Answer)

    def take(self, want: int = 1) -> Grant:
        grants = self.ask(want).grants
        assert grants, "nothing granted"
        return grants[0]

    def beat(self, held: Iterable[LeaseId] | None = None, answered: int | None = None) -> None:
        beat = Heartbeat(self.session, tuple(self.leases()) if held is None else tuple(held), self.number if answered is None else answered)
        self.world.step(events.HeartbeatSeen(self.world.at, self.stream, beat))

    def leases(self) -> set[LeaseId]:
        session = self.world.engine.sessions.get(self.session)
        return set() if session is None else set(session.leases)

    def _send(self, event: events.Event, kind: type[T]) -> T:
        given = self.world.step(event)
        mine = [c.message for c in given if isinstance(c, commands.Send) and c.stream == self.stream and isinstance(c.message, kind)]
        assert len(mine) == 1, given
        return mine[0]


def rows(start: int, stop: int) -> Rows:
    return Rows(start, stop)
