"""One connection to a Redis or Valkey server that is never made anew behind our back (rule 8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import hiredis
import redis.asyncio as redis
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from antinfer import faultpoints
from antinfer.errors import StoreError
from antinfer.master.store.faults import safe_url

_pack: Callable[[tuple[str | int, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]

OLDEST = (7, 0)
"""Oldest server version we speak to: scripts that may read before they write, and function flags."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server says about itself when a connection is made."""

    run: str
    """Changes with every start of the server."""
    version: tuple[int, ...]
    replica: bool


class Link:
    """A connection that the owner makes and drops; a command on a dropped one fails instead of reconnecting."""

    def __init__(self, url: str, *, connect_s: float = 5.0, answer_s: float = 15.0) -> None:
        """Prepare a connection to `url`; nothing is sent yet. Raises `StoreError` when the URL makes no sense."""
        self.name = safe_url(url)
        try:
            self._pool = redis.ConnectionPool.from_url(
                url,
                decode_responses=True,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=connect_s,
                # The library's own costs a task for every write; ours is one timer around write and answers.
                socket_timeout=None,
                client_name="antinfer-master",
            )
        except ValueError as error:
            raise StoreError(
                f"not a store URL: {self.name!r}: {error}", hint="Write redis://HOST:PORT/0, rediss://... for TLS, or unix:///PATH."
            ) from error
        self._answer_s = answer_s
        self._connection: Any = None

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def connect(self) -> Greeting:
        """Connect and ask the server who it is. Raises the client library's errors."""
        pool: Any = self._pool
        connection = pool.make_connection()
        try:
            async with self._in_time():
                await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._connection = connection
        about = _fields(await self.call("INFO", "server")) | _fields(await self.call("INFO", "replication"))
        version = tuple(int(part) for part in about.get("redis_version", "0").split(".")[:3])
        return Greeting(about.get("run_id", ""), version, about.get("role") == "slave")

    async def call(self, *command: str | int) -> Any:
        """Send one command and return its answer. Raises the client library's errors."""
        (answer,) = await self.calls([command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def calls(self, commands: Sequence[Sequence[str | int]]) -> list[Any]:
        """Send commands in one go and return their answers; an error answer is returned as an exception, not raised.

        A lost connection raises, and is dropped: what became of the commands is then unknown.
        """
        connection = self._connection
        if connection is None:
            raise redis_errors.ConnectionError("not connected")
        try:
            packed = b"".join(_pack(tuple(command)) for command in commands)
            async with self._in_time():
                await connection.send_packed_command(packed, check_health=False)
                faultpoints.hit("store.sent", command=commands[0][0])
                return [await _read(connection) for _ in commands]
        except BaseException:
            await self.drop()
            raise

    async def drop(self) -> None:
        """Close the connection; the next command needs a new `connect`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Raise the client library's error when the block takes longer than an answer may."""
        try:
            async with asyncio.timeout(self._answer_s):
                yield
        except TimeoutError as error:
            raise redis_errors.TimeoutError(f"no answer within {self._answer_s:g} s") from error


async def _read(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except redis_errors.ResponseError as error:
        return error


def _fields(info: str) -> dict[str, str]:
    lines = (line.partition(":") for line in info.splitlines())
    return {name: value for name, colon, value in lines if colon}
