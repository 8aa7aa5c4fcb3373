"""Callers of a master's two services; they speak core values and raise `AntinferError`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Self

import grpc

from antinfer.core.ids import ShardId
from antinfer.core.messages import Downward, Upward
from antinfer.core.plan import Shard
from antinfer.rpc import convert
from antinfer.rpc.channel import Tls, open_channel, token_metadata
from antinfer.rpc.exposure import check_telling
from antinfer.rpc.status import from_status
from antinfer.rpc.v1 import admin_pb2, admin_pb2_grpc, work_pb2, work_pb2_grpc
from antinfer.rpc.values import GivenBack, JobDocument, Stats, Status

_TIMEOUT_S: Final = 10.0


class _Client:
    """One channel to one address; use as a context manager, or call `close`.

    Raises `UsageError` for an address that may not be told the token, unless `insecure`.
    """

    def __init__(self, address: str, *, token: str = "", tls: Tls | None = None, insecure: bool = False) -> None:
        if not insecure:
            check_telling(address, tls=tls, token=token)
        self.address = address
        self._metadata = token_metadata(token)
        self._channel = open_channel(address, tls=tls)

    def close(self) -> None:
        """Close the channel; calls that are under way end."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: Any, request: Any, timeout_s: float) -> Any:
        try:
            return method(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_status(error, self.address) from error


class WorkClient(_Client):
    """A worker's side of the `Work` service."""

    def __init__(self, address: str, *, token: str = "", tls: Tls | None = None, insecure: bool = False) -> None:
        super().__init__(address, token=token, tls=tls, insecure=insecure)
        self._stub: Any = work_pb2_grpc.WorkStub(self._channel)  # type: ignore[no-untyped-call]
        self._stream: Any = None
        self._hung_up = False

    def hang_up(self) -> None:
        """End the stream, from any thread, before it is opened or after."""
        self._hung_up = True
        if self._stream is not None:
            self._stream.cancel()

    def get_job(self, job: str = "", *, timeout_s: float = _TIMEOUT_S) -> JobDocument:
        """Return what the master serves. Raises MasterError when nobody answers, the token is refused, or it serves another job."""
        return convert.job_document_from_pb(self._call(self._stub.GetJob, work_pb2.GetJobRequest(job=job), timeout_s))

    def work(self, upward: Iterable[Upward | Stats]) -> Iterator[tuple[Downward, dict[ShardId, Shard]]]:
        """Open the stream: send `upward` from a thread of its own as it yields, yield what comes down with the shards of its grants.

        Ends when the master ends the stream or `hang_up` was called. Raises AntinferError when it breaks.
        """
        self._stream = self._stub.Work(map(convert.upward_to_pb, upward), metadata=self._metadata)
        if self._hung_up:
            self._stream.cancel()
        try:
            for pb in self._stream:
                yield convert.downward_from_pb(pb)
        except grpc.RpcError as error:
            if not self._hung_up:
                raise from_status(error, self.address) from error


class AdminClient(_Client):
    """What people and tools ask of a running master. Every method raises MasterError when nobody answers or the token is refused."""

    def __init__(self, address: str, *, token: str = "", tls: Tls | None = None, insecure: bool = False) -> None:
        super().__init__(address, token=token, tls=tls, insecure=insecure)
        self._stub: Any = admin_pb2_grpc.AdminStub(self._channel)  # type: ignore[no-untyped-call]

    def status(self, *, timeout_s: float = _TIMEOUT_S) -> Status:
        # Imported here: an agent, which starts often, never needs it.
        from antinfer.rpc.convert_status import status_from_pb

        return status_from_pb(self._call(self._stub.GetStatus, admin_pb2.GetStatusRequest(), timeout_s))

    def drain(self, worker: str, *, timeout_s: float = _TIMEOUT_S) -> bool:
        """Let `worker` finish or return what it holds, and stop; False when nobody of this name is known."""
        return bool(self._call(self._stub.Drain, admin_pb2.DrainRequest(worker=worker), timeout_s).known)

    def give_back(self, id_: str, workers: int, *, timeout_s: float = _TIMEOUT_S) -> GivenBack:
        """Make the job smaller by so many workers; nobody takes their place until `release`. The same `id_` is the same request."""
        reply = self._call(self._stub.GiveBack, admin_pb2.GiveBackRequest(id=id_, workers=workers), timeout_s)
        return GivenBack(reply.most if reply.HasField("most") else None, tuple(reply.leaving))

    def release(self, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Let workers be started again in place of all that were given back."""
        self._call(self._stub.Release, admin_pb2.ReleaseRequest(), timeout_s)

    def cancel(self, reason: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        """End the job; everything committed stays."""
        self._call(self._stub.Cancel, admin_pb2.CancelRequest(reason=reason), timeout_s)

    def story(self, shard: int, *, timeout_s: float = _TIMEOUT_S) -> list[str]:
        """Return, line by line, why the ranges of `shard` got where they are."""
        return list(self._call(self._stub.Story, admin_pb2.StoryRequest(shard=shard), timeout_s).lines)
