"""The `Work` service: a worker's stream becomes events, and what the engine sends goes down it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, assert_never

import grpc

from antinfer import faultpoints
from antinfer.core.events import HeartbeatSeen, Joined, Requested
from antinfer.core.messages import Heartbeat, Join, Request, Upward
from antinfer.errors import AntinferError, MasterError
from antinfer.master.service.aborting import abort
from antinfer.master.streams import Stream, Streams
from antinfer.rpc import convert
from antinfer.rpc.convert import ShardLookup
from antinfer.rpc.v1 import work_pb2, work_pb2_grpc
from antinfer.rpc.values import JobDocument, Stats


class WorkService(work_pb2_grpc.WorkServicer):
    """Serves workers; holds no state of its own."""

    def __init__(self, streams: Streams, lookup: ShardLookup, document: asyncio.Future[JobDocument]) -> None:
        """
        Args:
            streams: where connections are kept.
            lookup: finds the pieces of a granted shard.
            document: what workers have to run; done as soon as the input's schema is known.
        """
        self._streams = streams
        self._lookup = lookup
        self._document = document

    async def GetJob(self, request: work_pb2.GetJobRequest, context: Any) -> work_pb2.JobDocument:
        try:
            # Shielded: a caller that goes away must not cancel what all of them wait for.
            document = await asyncio.shield(self._document)
            if request.job and request.job != document.job:
                raise MasterError(f"this master serves job {document.job}, not {request.job}")
        except AntinferError as error:
            await abort(context, error)
        except asyncio.CancelledError:
            if not self._document.cancelled():
                raise
            await abort(context, MasterError("this master ends before it knows what there is to do"))
        return convert.job_document_to_pb(document)

    async def Work(self, requests: AsyncIterator[work_pb2.UpMessage], context: Any) -> AsyncIterator[work_pb2.DownMessage]:
        if not self._streams.is_ruled:
            await abort(context, MasterError("this master is not ready yet", hint="it is taking over the job; try again"))
        stream = self._streams.open()
        reader = asyncio.create_task(self._read(requests, stream))
        try:
            while (message := await stream.next()) is not None:
                for _ in range(faultpoints.copies("master.send", worker=stream.worker, kind=type(message).__name__)):
                    yield convert.downward_to_pb(message, self._lookup)
            if reader.done() and (error := reader.exception()) is not None:
                raise error
        except AntinferError as error:
            await abort(context, error)
        finally:
            reader.cancel()
            self._streams.close(stream)

    async def _read(self, requests: AsyncIterator[work_pb2.UpMessage], stream: Stream) -> None:
        try:
            async for pb in requests:
                message = convert.upward_from_pb(pb)
                for _ in range(faultpoints.copies("master.receive", worker=stream.worker, kind=type(message).__name__)):
                    self._take_in(message, stream)
        finally:
            stream.end()

    def _take_in(self, message: Upward | Stats, stream: Stream) -> None:
        match message:
            case Join():
                stream.worker = message.worker
                self._streams.post(lambda at: Joined(at, stream.id, message))
            case Request():
                if message.commits:
                    faultpoints.hit("commit.received", worker=stream.worker)
                self._streams.post(lambda at: Requested(at, stream.id, message))
            case Heartbeat():
                self._streams.post(lambda at: HeartbeatSeen(at, stream.id, message))
            case Stats():
                if stream.worker is not None:
                    self._streams.tell(stream.worker, message)
            case _:
                assert_never(message)


def add_work_service(server: grpc.aio.Server, service: WorkService) -> None:
    """Let `server` serve workers."""
    work_pb2_grpc.add_WorkServicer_to_server(service, server)  # type: ignore[no-untyped-call]
