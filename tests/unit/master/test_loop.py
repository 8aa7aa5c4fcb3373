"""The loop: nothing leaves before its batch is durable, and a store that is not ours any more ends the reign."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from antinfer.core import commands, events
from antinfer.core.config import EngineConfig
from antinfer.core.engine import Engine, Phase
from antinfer.core.events import StreamId
from antinfer.core.ids import SessionId, WorkerId
from antinfer.core.messages import Heartbeat, Join, Verdict, Welcome
from antinfer.core.plan import PlanIndex
from antinfer.core.records import CommitRecord
from antinfer.errors import FencedError, OutputError
from antinfer.master.loop import Loop, now_ms
from antinfer.master.status import Figures
from antinfer.master.store.base import Applied, Batch, DiscontinuityError
from antinfer.master.store.memory import MemoryStore, Server


class SlowStore(MemoryStore):
    """Applies a batch only when the gate is open, like a server whose disk is slow."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches: list[Batch] = []

    async def persist(self, batch: Batch) -> Applied:
        self.batches.append(batch)
        await self.gate.wait()
        return await super().persist(batch)


class Hands:
    """An output place without anything in it, that answers at once."""

    def __init__(self) -> None:
        self.loop: Loop | None = None
        self.done: list[commands.Command] = []

    def publish(self, records: tuple[CommitRecord, ...]) -> None:
        raise AssertionError("nothing is committed in these tests")

    def carry_out(self, command: commands.Command) -> None:
        assert self.loop is not None
        self.done.append(command)
        match command:
            case commands.SweepStaging():
                self.loop.post(events.StagingSwept)
            case commands.ListOutput():
                self.loop.post(lambda at: events.OutputListed(at, ()))
            case commands.ListStaging():
                self.loop.post(lambda at: events.StagingListed(at, ()))
            case commands.AuditOutput():
                self.loop.post(lambda at: events.OutputAudited(at, ()))
            case commands.Seal():
                self.loop.post(events.Sealed)


class Reign:
    """A loop over an empty output; `sent` is what workers got."""

    def __init__(self, server: Server, epoch: int, rows: tuple[int, ...]) -> None:
        self.server, self.epoch = server, epoch
        self.engine = Engine(EngineConfig(), PlanIndex(rows, complete=True), epoch)
        self.store = SlowStore(server)
        self.sent: list[commands.Send] = []
        self.hands = Hands()
        self.connected = 0

    async def begin(self) -> asyncio.Task[None]:
        await self.store.open()
        await self.store.claim(self.epoch, f"master {self.epoch}")
        loaded = await self.store.load()
        self.loop = self.hands.loop = Loop(
            self.engine,
            self.store,
            loaded.seq,
            send=self.sent.append,
            effects=self.hands,
            connected=lambda: self.connected,
            figures=Figures(now_ms()),
            check=True,
        )
        return asyncio.create_task(self.loop.run(self.engine.start(now_ms(), loaded.documents, trusted=loaded.whole)))

    async def until(self, phase: Phase) -> None:
        while self.engine.phase is not phase:
            await asyncio.sleep(0)

    def join(self, stream: int) -> None:
        self.loop.post(lambda at: events.Joined(at, StreamId(stream), Join(WorkerId(f"w{stream}"), "")))


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


def test_an_empty_plan_is_sealed_and_the_loop_ends() -> None:
    async def scenario() -> None:
        reign = Reign(Server(), 1, ())
        await (await reign.begin())
        assert reign.engine.phase is Phase.DONE
        assert [type(command) for command in reign.hands.done] == [
            commands.SweepStaging,
            commands.ListOutput,
            commands.ListStaging,
            commands.AuditOutput,
            commands.Seal,
        ]

    run(scenario())


def test_nothing_leaves_before_its_batch_is_durable() -> None:
    async def scenario() -> None:
        reign = Reign(Server(), 1, (10,))
        task = await reign.begin()
        await reign.until(Phase.SERVING)
        reign.store.gate.clear()
        reign.join(1)
        before = len(reign.store.batches)
        while len(reign.store.batches) == before:
            await asyncio.sleep(0)
        for stream in range(2, 6):
            reign.join(stream)
        await asyncio.sleep(0.01)
        assert reign.sent == []
        assert len(reign.store.batches) == before + 1, "what comes meanwhile waits and is persisted together"
        reign.store.gate.set()
        while len(reign.sent) < 5:
            await asyncio.sleep(0)
        assert [send.stream for send in reign.sent] == [1, 2, 3, 4, 5]
        assert all(isinstance(send.message, Welcome) and send.message.verdict is Verdict.WORK for send in reign.sent)
        assert len(reign.store.batches) == before + 2
        reign.loop.stop()
        await task

    run(scenario())


def test_a_master_that_is_fenced_says_nothing_more() -> None:
    async def scenario() -> None:
        server = Server()
        old = Reign(server, 1, (10,))
        task = await old.begin()
        await old.until(Phase.SERVING)
        await MemoryStore(server).claim(2, "another")
        old.join(1)
        with pytest.raises(FencedError, match="another"):
            await task
        assert old.sent == []

    run(scenario())


def test_even_an_answer_without_changes_passes_the_fence() -> None:
    """Rule 3: a heart-beat of an unknown session changes nothing, but its answer would be wrong from a master that rules no more."""

    async def scenario() -> None:
        server = Server()
        old = Reign(server, 1, (10,))
        task = await old.begin()
        await old.until(Phase.SERVING)
        await MemoryStore(server).claim(2, "another")

        old.loop.post(lambda at: events.HeartbeatSeen(at, StreamId(1), Heartbeat(SessionId("9-9"), (), 0)))
        with pytest.raises(FencedError):
            await task
        assert old.sent == []

    run(scenario())


@pytest.mark.parametrize("what", ["restart", "wipe"])
def test_a_store_that_forgot_ends_the_reign(what: str) -> None:
    async def scenario() -> None:
        server = Server()
        reign = Reign(server, 1, (10,))
        task = await reign.begin()
        await reign.until(Phase.SERVING)
        getattr(server, what)()
        reign.join(1)
        with pytest.raises(DiscontinuityError):
            await task
        assert reign.sent == []

    run(scenario())


def test_an_effect_that_fails_for_good_ends_the_reign() -> None:
    async def scenario() -> None:
        reign = Reign(Server(), 1, (10,))
        task = await reign.begin()
        await reign.until(Phase.SERVING)
        reign.loop.fail_soon(OutputError("the disk is gone"))
        with pytest.raises(OutputError, match="the disk is gone"):
            await task

    run(scenario())
