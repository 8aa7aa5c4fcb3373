"""Tasks per second through the control plane alone: eight workers, each on a gRPC stream of its own, against one master process.

A worker commits the tasks it holds and asks for as many again, one request at a time; nothing is read or written between. Every answer has
waited for a durable batch. The workers share the machine with master and Valkey, so their own cost is in the figure.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from antinfer.core.ids import LeaseId, staged_name
from antinfer.rpc.channel import CLIENT_OPTIONS
from antinfer.rpc.v1 import work_pb2, work_pb2_grpc
from benchmarks.master_process import master_process
from benchmarks.report import Result

_WORKERS = 8
_SHARDS = 1_000_000
_PART = (work_pb2.StagedObject(kind="part"),)


def measure(quick: bool) -> list[Result]:
    """Return tasks per second when a request carries one task, and when it carries eight."""
    seconds, rounds = (1.0, 1) if quick else (5.0, 3)
    samples: dict[int, list[float]] = {1: [], 8: []}
    for _ in range(rounds):
        for held, rates in samples.items():
            with tempfile.TemporaryDirectory(prefix="antinfer-bench-") as folder, master_process(_SHARDS, Path(folder)) as address:
                rates.append(asyncio.run(load(address, held, seconds)))
            print(f"  {held} a request: {rates[-1]:.0f} tasks/s", file=sys.stderr, flush=True)
    details = {"workers": _WORKERS, "shards": _SHARDS, "seconds": seconds}
    return [
        Result("control_plane", f"grants and commits, {held} a request", tuple(rates), "tasks/s", 2_000, details=details)
        for held, rates in samples.items()
    ]


@dataclass(slots=True)
class _Worker:
    """Speaks the protocol without a fault and does no work. It works on the messages themselves: its cost is in the figure."""

    name: str
    held: int
    """Tasks in one request."""
    done: int = 0
    granted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once something was granted."""
    _session: str = ""
    _number: int = 0

    async def run(self, address: str) -> None:
        """Work until cancelled, or until the master hangs up."""
        async with grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS) as channel:
            stream = work_pb2_grpc.WorkStub(channel).Work()  # type: ignore[no-untyped-call]
            await self._join(stream)
            while (message := await stream.read()) is not grpc.aio.EOF:
                match message.WhichOneof("body"):
                    case "welcome":
                        await self._on_welcome(stream, message.welcome)
                    case "answer":
                        await self._on_answer(stream, message.answer)

    async def _join(self, stream: Any) -> None:
        await stream.write(work_pb2.UpMessage(join=work_pb2.Join(worker=self.name)))

    async def _on_welcome(self, stream: Any, welcome: work_pb2.Welcome) -> None:
        if welcome.verdict == work_pb2.VERDICT_NOT_MASTER:
            await asyncio.sleep(0.05)  # it is still taking over
            await self._join(stream)
            return
        self._session = welcome.session
        await self._ask(stream, ())

    async def _on_answer(self, stream: Any, answer: work_pb2.Answer) -> None:
        assert answer.verdict == work_pb2.VERDICT_WORK, answer
        self.granted.set()
        self.done += sum(outcome.acceptance == work_pb2.ACCEPTANCE_ACCEPTED for outcome in answer.outcomes)
        await self._ask(stream, answer.grants)

    async def _ask(self, stream: Any, grants: Iterable[work_pb2.Grant]) -> None:
        """Commit what was granted and wish for as much again: one message, as a session does that has staged all it held."""
        self._number += 1
        commits = [work_pb2.Commit(lease=grant.lease, record=self._record(grant)) for grant in grants]
        request = work_pb2.Request(session=self._session, number=self._number, commits=commits, want=self.held)
        await stream.write(work_pb2.UpMessage(request=request))

    def _record(self, grant: work_pb2.Grant) -> work_pb2.CommitRecord:
        shard, start, stop = grant.shard.index, grant.rows.start, grant.rows.stop
        return work_pb2.CommitRecord(
            shard=shard,
            start=start,
            stop=stop,
            staged=staged_name(LeaseId(grant.lease.epoch, grant.lease.n), shard, start, stop, "0123456789abcdef"),
            objects=_PART,
            rows_out=stop - start,
            row_hash="0123456789abcdef",
            attempt=1,
            worker=self.name,
            schema="s",
            code="c",
        )


async def first_grant(address: str) -> None:
    """Join the master at `address` as a worker, and return when something is granted."""
    worker = _Worker("worker-late", 1)
    task = asyncio.create_task(worker.run(address))
    await asyncio.wait((task, asyncio.create_task(worker.granted.wait())), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        raise RuntimeError("the master hung up") from task.exception()
    task.cancel()


async def load(address: str, held: int, seconds: float) -> float:
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
