"""Sessions against the real engine through a network that breaks, hosts that die, workers that sleep and masters that change.

A small cousin of the simulator (``tests/sim``): it knows nothing of store and output place, and looks at the worker's side alone.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest

from antinfer.core import commands, events
from antinfer.core.budgets import RangeBudget
from antinfer.core.config import EngineConfig
from antinfer.core.engine import Engine, Phase
from antinfer.core.events import StreamId
from antinfer.core.ids import LeaseId, ShardId, WorkerId, staged_name
from antinfer.core.messages import Heartbeat, Join
from antinfer.core.plan import Piece, PlanIndex, Shard
from antinfer.core.ranges import Rows, RowSet
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.worker import hostlink
from antinfer.worker.policy import HostPolicy, SessionPolicy
from antinfer.worker.session import Session
from antinfer.worker.signals import Connect, Connected, Disconnected, Exit, HostDied, HostSaid, Received, SendUp, StartHost, Ticked, ToHost


@dataclass
class Host:
    """Computes leases in order, and reads its orders late."""

    rng: random.Random
    sizes: list[int]
    ready_at: int
    is_ready: bool = False
    orders: deque[hostlink.ToHost] = field(default_factory=deque)
    jobs: dict[LeaseId, tuple[int, Rows]] = field(default_factory=dict)

    def obey(self) -> list[hostlink.FromHost]:
        said: list[hostlink.FromHost] = []
        while self.orders and self.rng.random() < 0.7:
            match self.orders.popleft():
                case hostlink.Work(lease=lease, shard=shard, rows=rows):
                    self.jobs[lease] = (shard.index, rows)
                    if rows.stop > self.sizes[shard.index]:
                        self.jobs[lease] = (shard.index, Rows(rows.start, self.sizes[shard.index]))
                        said.append(hostlink.Sized(lease, self.sizes[shard.index]))
                case hostlink.Cut(lease=lease, rows=rows) if lease in self.jobs:
                    shard_id, old = self.jobs[lease]
                    left = Rows(max(old.start, rows.start), min(old.stop, rows.stop))
                    self.jobs[lease] = (shard_id, left)
                    if left.start >= left.stop:
                        del self.jobs[lease]
                case hostlink.Regrant(old=former, new=new) if former in self.jobs:
                    self.jobs[new] = self.jobs.pop(former)
                case hostlink.YieldRest(lease=lease):
                    self.jobs.pop(lease, None)
                    said.append(hostlink.Released(lease))
                case _:
                    pass
        return said

    def work(self) -> list[hostlink.FromHost]:
        said: list[hostlink.FromHost] = []
        for lease, (shard, rows) in list(self.jobs.items()):
            if rows.size <= 0:
                del self.jobs[lease]
            elif self.rng.random() < 0.5:
                stop = self.rng.randint(rows.start + 1, rows.stop)
                name = staged_name(lease, shard, rows.start, stop, f"{self.rng.getrandbits(32):08x}")
                said.append(hostlink.Staged(lease, CommitRecord(shard, rows.start, stop, name, (StagedObject("part"),), stop - rows.start)))
                self.jobs[lease] = (shard, Rows(stop, rows.stop))
                if stop == rows.stop:
                    del self.jobs[lease]
        return said


@dataclass
class Worker:
    session: Session
    host: Host | None = None
    host_due: int | None = None
    connect_due: int | None = None
    stream: StreamId | None = None
    up: deque[tuple[int, Any]] = field(default_factory=deque)
    down: deque[tuple[int, Any]] = field(default_factory=deque)
    asleep_until: int = 0
    exit: Exit | None = None


class World:
    """Everything, on one clock."""

    def __init__(self, seed: int, faults: float) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.at = 0
        self.sizes = [self.rng.choice([0, 1, 7, 40, 200]) for _ in range(self.rng.randint(1, 12))]
        self.planned = [size if size and self.rng.random() < 0.6 else None for size in self.sizes]
        self.config = EngineConfig(
            ttl_ms=3_000,
            task_rows=self.rng.choice([None, 20]),
            copy_after_ms=2_000,
            ranges=RangeBudget(split_after=50, quarantine_after=60),
        )
        self.documents: dict[str, str] = {}
        self.committed: dict[str, CommitRecord] = {}
        self.next_stream = 1
        self.epoch = 0
        self.workers = [
            Worker(Session(WorkerId(f"w{n}"), policy=SessionPolicy(host=HostPolicy(deaths=10_000)))) for n in range(self.rng.randint(1, 4))
        ]
        for worker in self.workers:
            self.perform(worker, worker.session.start())
        self.reign()

    def reign(self) -> None:
        """A new master takes over; every stream breaks."""
        for worker in self.workers:
            self.cut_stream(worker, tell_engine=False)
        self.epoch += 1
        self.engine = Engine(self.config, PlanIndex(self.planned, complete=True), self.epoch)
        self.carry_out(self.engine.start(self.at, self.documents, trusted=True))

    def feed(self, event: Any) -> None:
        self.carry_out(self.engine.step(event))

    def carry_out(self, todo: list[commands.Command]) -> None:
        changes = self.engine.take_changes()
        if changes.reset:
            self.documents.clear()
        self.documents.update(changes.puts)
        for key in changes.deletes:
            self.documents.pop(key, None)
        for command in todo:
            match command:
                case commands.Send(stream=stream, message=message):
                    for worker in self.workers:
                        if worker.stream == stream:
                            worker.down.append((self.at + self.rng.randint(0, 50), message))
                case commands.Publish(records=records):
                    self.committed.update((record.staged, record) for record in records)
                    self.feed(events.Published(self.at, tuple(record.staged for record in records)))
                case commands.Flush(records=records):
                    self.feed(events.Flushed(self.at, tuple(record.staged for record in records)))
                case commands.SweepStaging():
                    self.feed(events.StagingSwept(self.at))
                case commands.ListOutput():
                    self.feed(events.OutputListed(self.at, tuple(self.committed.values())))
                case commands.ListStaging():
                    self.feed(events.StagingListed(self.at, ()))
                case commands.AuditOutput():
                    self.feed(events.OutputAudited(self.at, ()))
                case commands.Seal():
                    self.feed(events.Sealed(self.at))
                case commands.GiveUp(reason=reason):
                    raise AssertionError(f"the job was given up: {reason}")

    def cut_stream(self, worker: Worker, *, tell_engine: bool = True) -> None:
        if worker.stream is None:
            return
        stream, worker.stream = worker.stream, None
        worker.up.clear()
        worker.down.clear()
        if tell_engine:
            self.feed(events.StreamBroken(self.at, stream))
        self.step(worker, Disconnected(self.at))

    def step(self, worker: Worker, signal: Any) -> None:
        self.perform(worker, worker.session.step(signal))

    def perform(self, worker: Worker, actions: list[Any]) -> None:
        for action in actions:
            match action:
                case SendUp(message=message):
                    worker.up.append((self.at + self.rng.randint(0, 50), message))
                case ToHost(message=message):
                    assert worker.host is not None
                    worker.host.orders.append(message)
                case StartHost(after_ms=pause):
                    worker.host_due = self.at + pause
                case Connect(after_ms=pause):
                    if worker.stream is not None:
                        stream, worker.stream = worker.stream, None
                        worker.up.clear()
                        worker.down.clear()
                        self.feed(events.StreamBroken(self.at, stream))
                    worker.connect_due = self.at + pause
                case Exit():
                    worker.exit = action
                case _:
                    worker.host = None

    def turn(self) -> None:
        self.at += self.rng.randint(1, 200)
        self.feed(events.Ticked(self.at))
        if self.rng.random() < self.faults / 10:
            self.reign()
        for worker in self.workers:
            if worker.exit is None and worker.asleep_until <= self.at:
                self.turn_of(worker)

    def turn_of(self, worker: Worker) -> None:
        if self.rng.random() < self.faults:
            match self.rng.randrange(3):
                case 0:
                    self.cut_stream(worker)
                case 1 if worker.host is not None:
                    worker.host = None
                    self.step(worker, HostDied(self.at, "killed by SIGKILL"))
                case _:
                    worker.asleep_until = self.at + self.rng.randint(0, 5_000)
                    return
        if worker.host_due is not None and worker.host_due <= self.at:
            worker.host_due = None
            worker.host = Host(self.rng, self.sizes, self.at + self.rng.randint(0, 300))
        if worker.connect_due is not None and worker.connect_due <= self.at:
            self.connect(worker)
        self.move_messages(worker)
        if worker.host is not None:
            self.move_host(worker, worker.host)
        wake_at = worker.session.wake_at
        if wake_at is not None and wake_at <= self.at:
            self.step(worker, Ticked(self.at))
            after = worker.session.wake_at
            assert after is None or after > self.at, "the session would spin"

    def connect(self, worker: Worker) -> None:
        worker.connect_due = None
        if self.rng.random() < self.faults:
            self.step(worker, Disconnected(self.at))
            return
        worker.stream = StreamId(self.next_stream)
        self.next_stream += 1
        self.step(worker, Connected(self.at))

    def move_messages(self, worker: Worker) -> None:
        while worker.up and worker.up[0][0] <= self.at and worker.stream is not None:
            message = worker.up.popleft()[1]
            if isinstance(message, Join):
                self.feed(events.Joined(self.at, worker.stream, message))
            elif isinstance(message, Heartbeat):
                self.feed(events.HeartbeatSeen(self.at, worker.stream, message))
            else:
                self.feed(events.Requested(self.at, worker.stream, message))
        while worker.down and worker.down[0][0] <= self.at:
            message = worker.down.popleft()[1]
            shards = {ShardId(n): Shard(ShardId(n), (Piece("f", n, n + 1, rows),), rows, 1) for n, rows in enumerate(self.planned)}
            self.step(worker, Received(self.at, message, shards))

    def move_host(self, worker: Worker, host: Host) -> None:
        said: list[hostlink.FromHost] = []
        if not host.is_ready:
            if host.ready_at > self.at:
                return
            host.is_ready = True
            said.append(hostlink.Ready(0.1, 3))
        said += host.obey()
        said += host.work()
        for message in said:
            if worker.host is host:
                self.step(worker, HostSaid(self.at, message))

    def check(self) -> None:
        rows: dict[int, RowSet] = {}
        for record in self.committed.values():
            rows.setdefault(record.shard, RowSet()).add(record.start, record.stop)
        done = [len(rows.get(n, RowSet())) for n in range(len(self.sizes))]
        assert done == self.sizes


@pytest.mark.parametrize("number", range(60))
def test_every_row_is_committed_once_whatever_breaks(number: int, request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--seed") + number
    world = World(seed, faults=(0, 0.02, 0.1)[number % 3])
    for turn in range(20_000):
        if world.engine.phase is Phase.DONE and all(worker.exit is not None for worker in world.workers):
            break
        if turn == 4_000:
            world.faults = 0.0
        world.turn()
    assert world.engine.phase is Phase.DONE, f"stuck; seed {seed}"
    assert all(worker.exit is not None and worker.exit.code == 0 for worker in world.workers), f"seed {seed}"
    world.check()
