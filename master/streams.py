"""The connections of workers to this master: addresses for what the engine sends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from antinfer.core.events import Event, StreamBroken, StreamId
from antinfer.core.ids import WorkerId
from antinfer.core.messages import Downward
from antinfer.rpc.values import Stats

MakeEvent = Callable[[int], Event]
"""Makes an event of the time at which it is taken in, in ms."""


class Stream:
    """One connection; what is put in comes out in order until it is ended."""

    def __init__(self, stream_id: StreamId) -> None:
        self.id = stream_id
        self.worker: WorkerId | None = None
        """Who is at the other end; None before it has joined."""
        self._queue: asyncio.Queue[Downward | None] = asyncio.Queue()

    def put(self, message: Downward) -> None:
        self._queue.put_nowait(message)

    def end(self) -> None:
        """Let `next` return None after everything that was put before."""
        self._queue.put_nowait(None)

    async def next(self) -> Downward | None:
        """Return the next message, None at the end."""
        return await self._queue.get()


class Streams:
    """All connections, and the way from them into the loop of the present reign. Used from the event loop's thread alone."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._open: dict[StreamId, Stream] = {}
        self._stats: dict[WorkerId, Stats] = {}
        self._post: Callable[[MakeEvent], None] | None = None

    @property
    def is_ruled(self) -> bool:
        """True while a reign takes in what workers say."""
        return self._post is not None

    def __len__(self) -> int:
        return len(self._open)

    def rule(self, post: Callable[[MakeEvent], None]) -> None:
        """Give everything that workers say to a reign."""
        self._post = post

    def abdicate(self) -> None:
        """End every connection: what was said on it and not answered is lost, and workers say it again on a new one."""
        self._post = None
        for stream in self._open.values():
            stream.end()

    def open(self) -> Stream:
        """Admit a connection."""
        stream = Stream(StreamId(next(self._ids)))
        self._open[stream.id] = stream
        return stream

    def close(self, stream: Stream) -> None:
        """A connection is gone."""
        if self._open.pop(stream.id, None) is not None:
            self.post(lambda at: StreamBroken(at, stream.id))

    def post(self, event: MakeEvent) -> None:
        """Give an event to the present reign; without one it is lost."""
        if self._post is not None:
            self._post(event)

    def send(self, stream: StreamId, message: Downward) -> None:
        """Send to a connection; one that is gone swallows it."""
        if stream in self._open:
            self._open[stream].put(message)

    def tell(self, worker: WorkerId, stats: Stats) -> None:
        """Note what a worker says about itself."""
        self._stats[worker] = stats

    def all_stats(self) -> list[Stats]:
        """Return what each worker has said about itself last, those that have left included. May be called by any thread."""
        return list(self._stats.values())

    def stats_of(self, worker: WorkerId) -> Stats | None:
        return self._stats.get(worker)

    def rows_of(self, worker: str) -> int | None:
        """Return how many rows a worker has computed since it started, as it said last; None: it has not said so yet."""
        stats = self._stats.get(WorkerId(worker))
        return None if stats is None else stats.rows
