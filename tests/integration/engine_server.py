"""A small master for tests of the agent: the real engine behind a real gRPC server; store and output place are kept in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import grpc

from antinfer.core import commands, events
from antinfer.core.config import EngineConfig
from antinfer.core.engine import Engine
from antinfer.core.events import StreamId
from antinfer.core.ids import ShardId
from antinfer.core.messages import Heartbeat, Join, Request
from antinfer.core.plan import Piece, PlanIndex, Shard
from antinfer.core.ranges import RowSet
from antinfer.core.records import CommitRecord
from antinfer.rpc import convert
from antinfer.rpc.channel import SERVER_OPTIONS, token_matches
from antinfer.rpc.v1 import work_pb2_grpc
from antinfer.rpc.values import JobDocument, Stats


class EngineServer(work_pb2_grpc.WorkServicer):
    """Start, stop and start again at one address; what was committed stays."""

    def __init__(self, address: str, sizes: list[int], *, document: str = "{}", token: str = "", sized: bool = True) -> None:
        self.address = address
        self.sizes = sizes
        self.document = document
        self.token = token
        self.planned: list[int | None] = [size if sized else None for size in sizes]
        self.committed: dict[str, CommitRecord] = {}
        self.stats: list[Stats] = []
        self.told: list[Any] = []
        self.epoch = 0
        self._documents: dict[str, str] = {}
        self._lock = threading.RLock()
        self._streams: dict[StreamId, SimpleQueue[Any]] = {}
        self._next_stream = 1
        self._server: grpc.Server | None = None
        self._over = threading.Event()

    # -- life --------------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        with self._lock:
            self.epoch += 1
            config = EngineConfig(ttl_ms=3_000, grace_ms=500, heartbeat_ms=200, wait_ms=50)
            self.engine = Engine(config, PlanIndex(self.planned, complete=True), self.epoch)
            self._carry_out(self.engine.start(_now(), self._documents, trusted=True))
        self._over = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(16), options=SERVER_OPTIONS)
        work_pb2_grpc.add_WorkServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        self._server.start()
        threading.Thread(target=self._tick, args=(self._over,), daemon=True).start()

    def stop(self) -> None:
        assert self._server is not None
        self._over.set()
        with self._lock:
            for stream in self._streams.values():
                stream.put(None)
        self._server.stop(0).wait(5)
        with self._lock:
            self._streams.clear()

    def _tick(self, over: threading.Event) -> None:
        while not over.wait(0.02):
            self.feed(events.Ticked(_now()))

    # -- the service -------------------------------------------------------------------------------------------------------------
    def GetJob(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._check(context)
        return convert.job_document_to_pb(JobDocument("job-1", self.document, "file:///nowhere"))

    def Work(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self._check(context)
        outbox: SimpleQueue[Any] = SimpleQueue()
        with self._lock:
            stream = StreamId(self._next_stream)
            self._next_stream += 1
            self._streams[stream] = outbox
        context.add_callback(lambda: outbox.put(None))
        threading.Thread(target=self._listen, args=(requests, stream), daemon=True).start()
        while (message := outbox.get()) is not None:
            yield convert.downward_to_pb(message, self._shard)
        with self._lock:
            if self._streams.pop(stream, None) is not None and not self._over.is_set():
                self.feed(events.StreamBroken(_now(), stream))

    def _listen(self, requests: Iterator[Any], stream: StreamId) -> None:
        try:
            for pb in requests:
                self._hear(convert.upward_from_pb(pb), stream)
        except grpc.RpcError:
            self._streams.get(stream, SimpleQueue()).put(None)

    def _hear(self, message: Any, stream: StreamId) -> None:
        with self._lock:
            if stream not in self._streams:
                return
            self.told.append(message)
            match message:
                case Join():
                    self.feed(events.Joined(_now(), stream, message))
                case Request():
                    self.feed(events.Requested(_now(), stream, message))
                case Heartbeat():
                    self.feed(events.HeartbeatSeen(_now(), stream, message))
                case Stats():
                    self.stats.append(message)

    def _check(self, context: grpc.ServicerContext) -> None:
        if not token_matches(context.invocation_metadata(), self.token):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")

    def _shard(self, shard: ShardId) -> Shard:
        return Shard(shard, (Piece("nowhere", 0, 1, self.planned[shard]),), self.planned[shard], 1)

    # -- the engine --------------------------------------------------------------------------------------------------------------
    def feed(self, event: Any) -> None:
        with self._lock:
            self._carry_out(self.engine.step(event))

    def _carry_out(self, todo: list[commands.Command]) -> None:
        changes = self.engine.take_changes()
        if changes.reset:
            self._documents.clear()
        self._documents.update(changes.puts)
        for key in changes.deletes:
            self._documents.pop(key, None)
        for command in todo:
            match command:
                case commands.Send(stream=stream, message=message):
                    if stream in self._streams:
                        self._streams[stream].put(message)
                case commands.Publish(records=records):
                    self.committed.update((record.staged, record) for record in records)
                    self.feed(events.Published(_now(), tuple(record.staged for record in records)))
                case commands.Flush(records=records):
                    self.feed(events.Flushed(_now(), tuple(record.staged for record in records)))
                case commands.SweepStaging():
                    self.feed(events.StagingSwept(_now()))
                case commands.ListOutput():
                    self.feed(events.OutputListed(_now(), tuple(self.committed.values())))
                case commands.ListStaging():
                    self.feed(events.StagingListed(_now(), ()))
                case commands.AuditOutput():
                    self.feed(events.OutputAudited(_now(), ()))
                case commands.Seal():
                    self.feed(events.Sealed(_now()))

    # -- for tests ---------------------------------------------------------------------------------------------------------------
    def rows_committed(self) -> int:
        with self._lock:
            return sum(record.rows.size for record in self.committed.values())

    def check_complete(self) -> None:
        """Every row is committed, and none twice."""
        rows = [RowSet() for _ in self.sizes]
        for record in self.committed.values():
            rows[record.shard].add(record.start, record.stop)
        assert [len(done) for done in rows] == self.sizes


def _now() -> int:
    return time.monotonic_ns() // 1_000_000
