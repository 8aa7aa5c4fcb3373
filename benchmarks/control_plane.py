"""Tasks per second through the control plane alone: eight workers, each on a gRPC stream of its own, against one master process.

A worker commits the tasks it holds and asks for as many again, one request at a time; nothing is read or written between. Every answer has
waited for a durable batch. The workers share the machine with master and Valkey, so their own cost is in the figure.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from antinfer.core.ids import SessionId, WorkerId, staged_name
from antinfer.core.messages import Acceptance, Answer, Commit, Grant, Join, Request, Upward, Verdict, Welcome
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.rpc import convert
from antinfer.rpc.channel import CLIENT_OPTIONS
from antinfer.rpc.v1 import work_pb2, work_pb2_grpc
from benchmarks.master_process import master_process
from benchmarks.report import Result

_WORKERS = 8
_SHARDS = 1_000_000
_PART = (StagedObject("part"),)


def measure(quick: bool) -> list[Result]:
    """Return tasks per second when a request carries one task, and when it carries eight."""
    seconds, rounds = (1.0, 1) if quick else (5.0, 3)
    samples: dict[int, list[float]] = {1: [], 8: []}
    for _ in range(rounds):
        for held, rates in samples.items():
            with tempfile.TemporaryDirectory(prefix="antinfer-bench-") as folder, master_process(_SHARDS, Path(folder)) as address:
                rates.append(asyncio.run(_load(address, held, seconds)))
            print(f"  {held} a request: {rates[-1]:.0f} tasks/s", file=sys.stderr, flush=True)
    details = {"workers": _WORKERS, "shards": _SHARDS, "seconds": seconds}
    return [
        Result("control_plane", f"grants and commits, {held} a request", tuple(rates), "tasks/s", 2_000, details=details)
        for held, rates in samples.items()
    ]


@dataclass(slots=True)
class _Worker:
    """Speaks the protocol without a fault and does no work."""

    name: str
    held: int
    """Tasks in one request."""
    done: int = 0
    granted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once something was granted."""
    _session: SessionId = field(default_factory=lambda: SessionId(""))
    _number: int = 0
    _upward: asyncio.Queue[Upward] = field(default_factory=asyncio.Queue)

    async def run(self, address: str) -> None:
        """Work until cancelled."""
        async with grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS) as channel:
            stub = work_pb2_grpc.WorkStub(channel)  # type: ignore[no-untyped-call]
            self._join()
            async for pb in stub.Work(self._messages()):
                message, _ = convert.downward_from_pb(pb)
                if isinstance(message, Welcome):
                    if message.verdict is Verdict.NOT_MASTER:
                        await asyncio.sleep(0.05)  # it is still taking over
                        self._join()
                        continue
                    self._session = message.session
                    self._ask(())
                elif isinstance(message, Answer):
                    assert message.verdict is Verdict.WORK, message
                    self.granted.set()
                    self.done += sum(outcome.acceptance is Acceptance.ACCEPTED for outcome in message.outcomes)
                    self._ask(message.grants)

    def _join(self) -> None:
        self._upward.put_nowait(Join(WorkerId(self.name), ""))

    async def _messages(self) -> AsyncIterator[work_pb2.UpMessage]:
        while True:
            yield convert.upward_to_pb(await self._upward.get())

    def _ask(self, grants: tuple[Grant, ...]) -> None:
        self._number += 1
        commits = tuple(Commit(grant.lease, self._record(grant)) for grant in grants)
        self._upward.put_nowait(Request(self._session, self._number, commits=commits, want=self.held))

    def _record(self, grant: Grant) -> CommitRecord:
        start, stop = grant.rows
        name = staged_name(grant.lease, grant.shard, start, stop, "0123456789abcdef")
        return CommitRecord(
            grant.shard, start, stop, name, _PART, stop - start, row_hash="0123456789abcdef", worker=self.name, schema="s", code="c"
        )


async def first_grant(address: str) -> None:
    """Join the master at `address` as a worker, and return when something is granted."""
    worker = _Worker("worker-late", 1)
    task = asyncio.create_task(worker.run(address))
    await asyncio.wait((task, asyncio.create_task(worker.granted.wait())), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        raise RuntimeError("the master hung up") from task.exception()
    task.cancel()


async def _load(address: str, held: int, seconds: float) -> float:
    """Let the workers work; return the accepted commits per second, after a second of warming up."""
    workers = [_Worker(f"worker-{n}", held) for n in range(_WORKERS)]
    tasks = [asyncio.create_task(worker.run(address)) for worker in workers]
    await asyncio.sleep(1.0)
    before, started = sum(worker.done for worker in workers), time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (sum(worker.done for worker in workers) - before) / (time.perf_counter() - started)
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return rate
