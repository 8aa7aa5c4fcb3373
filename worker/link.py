"""One connection of the agent to one master, on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

from antinfer import faultpoints
from antinfer.core.ids import ShardId
from antinfer.core.messages import Downward, Upward
from antinfer.core.plan import Shard
from antinfer.errors import AntinferError, InternalError
from antinfer.rpc.channel import Tls
from antinfer.rpc.client import WorkClient
from antinfer.rpc.values import JobDocument, Stats

_GET_JOB_S: Final = 30.0
"""A master answers when it has seen the first of the input, which may take a while; one that is not there fails at once."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The master answered: it serves `job`, and the stream is open."""

    job: JobDocument


@dataclass(frozen=True, slots=True)
class Said:
    message: Downward
    shards: Mapping[ShardId, Shard]


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is over, or never came about."""

    error: AntinferError | None
    """None when the master ended the stream in peace."""


News = Opened | Said | Closed


class Link:
    """Asks for the job, opens the stream, and tells `deliver` all of it; the last news is `Closed`."""

    def __init__(self, address: str, *, token: str, tls: Tls | None, insecure: bool = False, deliver: Callable[[Link, News], None]) -> None:
        """Args:
        address: of the master.
        token: shared token; may be empty.
        tls: transport security, or None.
        insecure: the token may travel in plain text.
        deliver: called from the link's thread.
        """
        self.address = address
        self._deliver = deliver
        self._outbox: SimpleQueue[Upward | Stats | None] = SimpleQueue()
        self._client = WorkClient(address, token=token, tls=tls, insecure=insecure)
        threading.Thread(target=self._run, name=f"link-{address}", daemon=True).start()

    def send(self, message: Upward | Stats) -> None:
        """Queue a message; lost when the connection is."""
        self._outbox.put(message)

    def hang_up(self) -> None:
        """End the connection, after what was queued if the master still reads."""
        self._outbox.put(None)
        self._client.hang_up()

    def _run(self) -> None:
        error: AntinferError | None = None
        try:
            self._deliver(self, Opened(self._client.get_job(timeout_s=_GET_JOB_S)))
            for message, shards in self._client.work(self._upward()):
                for _ in range(faultpoints.copies("worker.receive", kind=type(message).__name__)):
                    self._deliver(self, Said(message, shards))
        except AntinferError as caught:
            error = caught
        except Exception as caught:  # noqa: BLE001 - the last frame of a thread: whoever waits for `Closed` must hear of everything
            error = InternalError(f"the connection to {self.address} broke for a reason of our own: {caught!r}")
            error.__cause__ = caught
        finally:
            self._outbox.put(None)
            self._client.close()
            self._deliver(self, Closed(error))

    def _upward(self) -> Iterator[Upward | Stats]:
        while (message := self._outbox.get()) is not None:
            for _ in range(faultpoints.copies("worker.send", kind=type(message).__name__)):
                yield message
