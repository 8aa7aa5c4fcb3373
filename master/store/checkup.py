"""What a store promises, for ``antinfer doctor``."""

from __future__ import annotations

import asyncio
import tempfile

from antinfer.master.store.base import Durability
from antinfer.master.store.embedded import EmbeddedServer
from antinfer.master.store.redis import RedisStore

_PROMISES = {
    Durability.ALWAYS: "syncs every write before it answers (appendfsync always)",
    Durability.WAITAOF: "syncs on request (WAITAOF)",
    Durability.PUBLISH: "promises no durability: commits are answered after publication",
}


def describe_store(url: str) -> str:
    """Try the store at `url`, or an embedded server when it is empty, and say what it promises.

    Raises:
        StoreError: it cannot be started or reached, or is not fit.
    """
    if url:
        return asyncio.run(_describe(RedisStore(url, "doctor")))
    with tempfile.TemporaryDirectory(prefix="antinfer-doctor-") as folder:
        server = EmbeddedServer(folder)
        server.start()
        try:
            return asyncio.run(_describe(RedisStore(server.url, "doctor", server=server)))
        finally:
            server.stop()


async def _describe(store: RedisStore) -> str:
    await store.open()
    try:
        return f"{store.name}: {_PROMISES[store.durability]}"
    finally:
        await store.close()
