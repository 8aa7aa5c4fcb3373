"""How many events the pure core takes in a second of one core, with a million shards planned.

The mix is that of a busy master: every worker commits one task and wants the next; eight commits make a `Published`, a thousand published
records a `Flushed`. Events are built outside of the clock. Time is that of this process on its core: what else the machine does at the
same moment does not count.
"""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from antinfer.core import commands, events
from antinfer.core.config import EngineConfig
from antinfer.core.engine import Engine
from antinfer.core.events import StreamId
from antinfer.core.ids import SessionId, WorkerId, staged_name
from antinfer.core.messages import Answer, Commit, Grant, Join, Request, Welcome
from antinfer.core.plan import PlanIndex
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.master.garbage import collect_rarely
from benchmarks.report import Result

_ROWS = 10_000
_WORKERS = 64
_PUBLISHED_TOGETHER = 8
_PART = (StagedObject("part"),)


@dataclass(slots=True)
class Member:
    """What a scripted worker knows."""

    stream: StreamId
    session: SessionId
    number: int = 0
    grants: tuple[Grant, ...] = ()


@dataclass(slots=True)
class Reign:
    """An engine, the workers that talk to it, and what its commands still ask for."""

    engine: Engine
    members: list[Member]
    want: int = 1
    """Tasks in one request."""
    at: int = 0
    flushes: list[tuple[str, ...]] = field(default_factory=list)

    @classmethod
    def begin(cls, shards: int, workers: int, want: int = 1) -> Reign:
        engine = Engine(EngineConfig(), PlanIndex([_ROWS] * shards, complete=True), 1)
        engine.start(0, None, trusted=False)
        engine.step(events.StagingSwept(0))
        engine.step(events.OutputListed(0, ()))
        members = []
        for n in range(1, workers + 1):
            stream = StreamId(n)
            (command,) = engine.step(events.Joined(0, stream, Join(WorkerId(f"worker-{n}"), "")))
            assert isinstance(command, commands.Send)
            assert isinstance(command.message, Welcome)
            members.append(Member(stream, command.message.session))
        return cls(engine, members, want)

    def next_round(self) -> list[events.Event]:
        """One request of every worker, and what publisher and manifest report of the commits in them."""
        self.at += 1
        made: list[events.Event] = []
        staged: list[str] = []
        for member in self.members:
            request = self._request(member)
            made.append(events.Requested(self.at, member.stream, request))
            staged += [commit.record.staged for commit in request.commits]
            if len(staged) >= _PUBLISHED_TOGETHER:
                made.append(events.Published(self.at, tuple(staged)))
                staged = []
        if staged:
            made.append(events.Published(self.at, tuple(staged)))
        made += [events.Flushed(self.at, names) for names in self.flushes]
        self.flushes.clear()
        return made

    def take_in(self, ordered: list[commands.Command]) -> None:
        """Note what the engine ordered."""
        for command in ordered:
            if isinstance(command, commands.Send) and isinstance(command.message, Answer):
                self.members[command.stream - 1].grants = command.message.grants
            elif isinstance(command, commands.Flush):
                self.flushes.append(tuple(record.staged for record in command.records))

    def _request(self, member: Member) -> Request:
        member.number += 1
        commits = tuple(Commit(grant.lease, self._record(member, grant)) for grant in member.grants)
        return Request(member.session, member.number, commits=commits, want=self.want)

    def _record(self, member: Member, grant: Grant) -> CommitRecord:
        start, stop = grant.rows
        name = staged_name(grant.lease, grant.shard, start, stop, "0123456789abcdef")
        return CommitRecord(
            grant.shard, start, stop, name, _PART, stop - start, row_hash="0123456789abcdef", worker=member.session, schema="s", code="c"
        )


def measure(quick: bool) -> list[Result]:
    """Return the rate with and without the documents that the store is given, and what a planned shard costs in memory."""
    shards, rounds, repetitions = (20_000, 20, 1) if quick else (1_000_000, 800, 3)
    runs = [(_rate(shards, rounds, encode=True), _rate(shards, rounds, encode=False)) for _ in range(repetitions)]
    mix = dict(runs[0][0][1])
    encoded, bare = (tuple(pair[kind][0] for pair in runs) for kind in (0, 1))
    return [
        Result("core_steps", "events, documents included", encoded, "steps/s", 20_000, details={"shards": shards, "events": mix}),
        Result("core_steps", "events alone", bare, "steps/s", details={"shards": shards, "events": mix}),
        Result("core_steps", "memory of the engine at work", (_memory_mib(shards, rounds),), "MiB", 500, at_least=False),
    ]


def _rate(shards: int, rounds: int, *, encode: bool) -> tuple[float, Counter[str]]:
    reign = Reign.begin(shards, _WORKERS)
    seconds, mix = 0.0, Counter[str]()
    reign.engine.take_changes()
    collect_rarely()
    for made in _rounds(reign, rounds):
        started = time.process_time()
        ordered = [command for event in made for command in reign.engine.step(event)]
        if encode:
            reign.engine.take_changes()
        seconds += time.process_time() - started
        reign.take_in(ordered)
        mix.update(type(event).__name__ for event in made)
    return mix.total() / seconds, mix


def _rounds(reign: Reign, rounds: int) -> Iterator[list[events.Event]]:
    for _ in range(rounds):
        yield reign.next_round()


def _memory_mib(shards: int, rounds: int) -> float:
    tracemalloc.start()
    try:
        reign = Reign.begin(shards, _WORKERS)
        for made in _rounds(reign, min(rounds, 200)):
            reign.take_in([command for event in made for command in reign.engine.step(event)])
            reign.engine.take_changes()
        return tracemalloc.get_traced_memory()[0] / 2**20
    finally:
        tracemalloc.stop()
