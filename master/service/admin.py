"""The `Admin` service: what people and their tools ask of a running master."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import grpc

from antinfer.core.events import DrainRequested, JobFailed
from antinfer.core.ids import WorkerId
from antinfer.errors import AntinferError, UsageError
from antinfer.master.service.aborting import abort
from antinfer.master.streams import Streams
from antinfer.rpc.convert_status import status_to_pb
from antinfer.rpc.v1 import admin_pb2, admin_pb2_grpc
from antinfer.rpc.values import GivenBack, Status


class Ruler(Protocol):
    """What the service needs of whoever rules the job."""

    def status(self) -> Status: ...
    def knows(self, worker: str) -> bool: ...
    async def give_back(self, id_: str, workers: int) -> GivenBack: ...
    async def release(self) -> None: ...
    def story(self, shard: int) -> list[str]: ...


class AdminService(admin_pb2_grpc.AdminServicer):
    """Answers from the present reign."""

    def __init__(self, streams: Streams, ruler: Ruler, cancelled: Callable[[str], None]) -> None:
        """
        Args:
            streams: way into the loop.
            ruler: is asked for everything that changes nothing.
            cancelled: is told why the user ended the job.
        """
        self._streams = streams
        self._ruler = ruler
        self._cancelled = cancelled

    async def GetStatus(self, request: admin_pb2.GetStatusRequest, context: Any) -> admin_pb2.Status:
        return status_to_pb(self._ruler.status())

    async def Drain(self, request: admin_pb2.DrainRequest, context: Any) -> admin_pb2.DrainReply:
        worker = WorkerId(request.worker)
        if not self._ruler.knows(worker):
            return admin_pb2.DrainReply(known=False)
        self._streams.post(lambda at: DrainRequested(at, worker))
        return admin_pb2.DrainReply(known=True)

    async def GiveBack(self, request: admin_pb2.GiveBackRequest, context: Any) -> admin_pb2.GiveBackReply:
        try:
            if request.workers < 1 or not request.id:
                raise UsageError("a request to give workers back has an id, and names at least one worker")
            given = await self._ruler.give_back(request.id, request.workers)
        except AntinferError as error:
            await abort(context, error)
        return admin_pb2.GiveBackReply(most=given.most, leaving=given.leaving)

    async def Release(self, request: admin_pb2.ReleaseRequest, context: Any) -> admin_pb2.ReleaseReply:
        try:
            await self._ruler.release()
        except AntinferError as error:
            await abort(context, error)
        return admin_pb2.ReleaseReply()

    async def Cancel(self, request: admin_pb2.CancelRequest, context: Any) -> admin_pb2.CancelReply:
        reason = f"cancelled: {request.reason}" if request.reason else "cancelled"
        self._cancelled(reason)
        self._streams.post(lambda at: JobFailed(at, reason))
        return admin_pb2.CancelReply()

    async def Story(self, request: admin_pb2.StoryRequest, context: Any) -> admin_pb2.StoryReply:
        return admin_pb2.StoryReply(lines=self._ruler.story(request.shard))


def add_admin_service(server: grpc.aio.Server, service: AdminService) -> None:
    """Let `server` answer people."""
    admin_pb2_grpc.add_AdminServicer_to_server(service, server)  # type: ignore[no-untyped-call]
