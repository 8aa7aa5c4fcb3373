"""A proxy for TCP and unix sockets that does to a connection what a bad network does.

Nothing that goes through is ever changed or left out, as TCP guarantees: it is late, or held back, or the connection breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

Direction = Literal["up", "down"]
"""``up`` is from who connects to who listens."""
BOTH: Final[tuple[Direction, ...]] = ("up", "down")
_BLOCK: Final = 64 << 10
_BLOCKS: Final = 32
"""Blocks on their way in one direction: like a socket's buffers, they fill up when nothing moves, and then the sender waits."""
_RESET: Final = struct.pack("ii", 1, 0)
"""Linger for no time: closing sends a reset instead of an end."""
_PATIENCE_S: Final = 30.0
T = TypeVar("T")


@dataclass(slots=True)
class _Weather:
    """What befalls bytes in one direction."""

    passable: asyncio.Event
    delay_s: float = 0.0
    jitter_s: float = 0.0
    cut_after: int | None = None
    """Bytes to let through before every connection breaks."""
    bytes: int = 0


@dataclass(eq=False, slots=True)
class _Connection:
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def break_off(self) -> None:
        for writer in self.writers:
            found = writer.get_extra_info("socket")
            if found is not None and found.family != socket.AF_UNIX and found.fileno() >= 0:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        for task in self.tasks:
            # One that cancels itself on its last steps would end as cancelled all the same.
            if task is not asyncio.current_task():
                task.cancel()


class Proxy:
    """Listens, and carries every connection on to `target`; runs on a thread of its own from construction to `close`.

    Addresses are ``HOST:PORT`` or ``unix:///PATH``. All methods may be called from any thread; each returns when it has taken effect.
    """

    def __init__(self, target: str, listen: str = "127.0.0.1:0", *, seed: int = 0) -> None:
        """
        Args:
            target: where connections are carried to; nobody need listen there yet.
            listen: where to listen; port 0 takes any free one.
            seed: of the jitter.
        """
        self._target = target
        self._listen = listen
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()
        self._weather = {direction: _Weather(asyncio.Event()) for direction in BOTH}
        self.connections = 0
        """Connections accepted so far."""
        self.resets = 0
        """Connections broken off so far."""
        self._thread = threading.Thread(target=self._run, name=f"proxy-{target}", daemon=True)
        self._thread.start()
        try:
            self._await(self._start())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Where to connect to."""
        return self._listen

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def carried(self, direction: Direction) -> int:
        """Return the bytes carried so far."""
        return self._weather[direction].bytes

    # -- weather -----------------------------------------------------------------------------------------------------------------------
    def hold(self, *directions: Direction) -> None:
        """Let nothing through, ends of connections and new ones included, until `release`: a partition, of both directions or of one."""
        self._call(lambda: self._set(directions, lambda weather: weather.passable.clear()))

    def release(self, *directions: Direction) -> None:
        """Let through what was held, late but whole."""
        self._call(lambda: self._set(directions, lambda weather: weather.passable.set()))

    def delay(self, seconds: float, jitter: float = 0.0, *directions: Direction) -> None:
        """Let everything take `seconds` and up to `jitter` seconds longer from now on; order is kept, as TCP does."""

        def slow(weather: _Weather) -> None:
            weather.delay_s, weather.jitter_s = seconds, jitter

        self._call(lambda: self._set(directions, slow))

    def reset(self) -> int:
        """Break every connection off at once; return how many there were."""
        return self._call(self._reset)

    def cut_after(self, count: int, direction: Direction) -> None:
        """Break every connection off, once, when `count` more bytes have gone in `direction`: in the middle of a message."""

        def cut(weather: _Weather) -> None:
            weather.cut_after = count

        self._call(lambda: self._set((direction,), cut))

    def refuse(self) -> None:
        """Take no new connections until `accept`; those that are open go on."""
        self._await(self._stop_listening())

    def accept(self) -> None:
        """Take connections again, at the same address."""
        self._await(self._start())

    def close(self) -> None:
        """Break everything off and end."""
        if self._loop.is_closed():
            return
        try:
            self._await(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    # -- on the thread -----------------------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, act: Callable[[], T]) -> T:
        async def do() -> T:
            return act()

        return self._await(do())

    def _await(self, act: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(act, self._loop).result(_PATIENCE_S)

    def _set(self, directions: tuple[Direction, ...], change: Callable[[_Weather], None]) -> None:
        for direction in directions or BOTH:
            change(self._weather[direction])

    async def _start(self) -> None:
        if self._server is not None:
            return
        if not self.connections:
            self._set((), lambda weather: weather.passable.set())
        path = _path(self._listen)
        if path:
            self._server = await asyncio.start_unix_server(self._serve, path, limit=_BLOCK)
        else:
            host, _, port = self._listen.rpartition(":")
            self._server = await asyncio.start_server(self._serve, host, int(port), limit=_BLOCK, reuse_address=True)
            self._listen = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
            with contextlib.suppress(FileNotFoundError):
                if _path(self._listen):
                    os.unlink(_path(self._listen))

    async def _stop(self) -> None:
        await self._stop_listening()
        self._reset()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _reset(self) -> int:
        broken = list(self._open)
        for connection in broken:
            connection.break_off()
        self.resets += len(broken)
        return len(broken)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection([writer])
        self._open.add(connection)
        self.connections += 1
        connection.tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        try:
            # In a partition who listens does not hear of a new connection.
            for weather in self._weather.values():
                await weather.passable.wait()
            far_reader, far_writer = await _connect(self._target)
            connection.writers.append(far_writer)
            async with asyncio.TaskGroup() as pumps:
                connection.tasks.append(pumps.create_task(self._pump(reader, far_writer, self._weather["up"])))
                connection.tasks.append(pumps.create_task(self._pump(far_reader, writer, self._weather["down"])))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            # One side broke: so does the other. Nobody waits for this task, and asyncio complains of one that ends as cancelled.
            connection.break_off()
        finally:
            self._open.discard(connection)
            for each in connection.writers:
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, weather: _Weather) -> None:
        """Carry blocks from one end to the other, each when it is due. Raises OSError when an end breaks."""
        waiting: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(_BLOCKS)

        async def take_in() -> None:
            block: bytes | OSError = b"first"
            while isinstance(block, bytes) and block:
                try:
                    block = await reader.read(_BLOCK)
                except OSError as error:
                    block = error
                await waiting.put((time.monotonic() + weather.delay_s + self._random.uniform(0.0, weather.jitter_s), block))

        taking = asyncio.create_task(take_in())
        try:
            while True:
                due, block = await waiting.get()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await weather.passable.wait()
                if isinstance(block, OSError):
                    raise block
                if not block:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                await self._deliver(block, writer, weather)
        finally:
            taking.cancel()

    async def _deliver(self, block: bytes, writer: asyncio.StreamWriter, weather: _Weather) -> None:
        cut = weather.cut_after
        if cut is not None:
            block = block[:cut]
            weather.cut_after = cut - len(block)
        writer.write(block)
        await writer.drain()
        weather.bytes += len(block)
        if weather.cut_after == 0:
            weather.cut_after = None
            self._reset()


def _path(address: str) -> str:
    return address.removeprefix("unix://").removeprefix("unix:") if address.startswith("unix:") else ""


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if path := _path(address):
        return await asyncio.open_unix_connection(path, limit=_BLOCK)
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port), limit=_BLOCK)
