"""A master whose output place swallows everything: what is left is the control plane.

``python -m benchmarks.bare_master ADDRESS SHARDS FOLDER [EVENT_LOG]``

Streams, service, loop, engine, publisher, store and the embedded Valkey (`appendfsync always`) are those of every master, and so is the
event log, whose level (``full``) can be given. Only planning and parts are left out. The store lives in FOLDER; what is there already is
resumed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, cast

import grpc

from antinfer.core.config import EngineConfig
from antinfer.core.engine import Engine
from antinfer.core.ids import ShardId, StagedName
from antinfer.core.plan import Piece, PlanIndex, Shard
from antinfer.core.records import CommitRecord, ObjectKind, StagedObject
from antinfer.master.garbage import collect_rarely
from antinfer.master.journal import Journal, Level
from antinfer.master.loop import Loop, now_ms
from antinfer.master.publisher import Publisher
from antinfer.master.service.work import WorkService, add_work_service
from antinfer.master.status import Figures
from antinfer.master.store.base import Durability
from antinfer.master.store.embedded import EmbeddedServer
from antinfer.master.store.redis import RedisStore
from antinfer.master.streams import Streams
from antinfer.rpc.channel import SERVER_OPTIONS
from antinfer.rpc.values import JobDocument
from antinfer.storage.lean import keep_pandas_out
from antinfer.storage.place import EpochClaim, StoredObject
from antinfer.storage.posix import PosixPlace

ROWS = 10_000
USAGE = "usage"
"""File in which a master with a log leaves the processor time that the log took, and its own in all (JSON, seconds)."""
JOB = "benchmark"


class NullPlace:
    """An output place that holds nothing and swallows everything."""

    uri = "null"

    def check_writable(self) -> None:
        pass

    def close(self) -> None:
        pass

    def claim_epoch(self, epoch: int, owner: str) -> bool:
        return True

    def highest_epoch(self) -> EpochClaim | None:
        return None

    def stage(self, staged: StagedName, kind: ObjectKind, final: str, source: str) -> StagedObject:
        return StagedObject(kind)

    def local_spool(self) -> str:
        return tempfile.gettempdir()

    def publish(self, record: CommitRecord, suffix: str) -> None:
        pass

    def list_staging(self) -> list[str]:
        return []

    def collect(self, staged: tuple[str, ...]) -> None:
        pass

    def sweep(self, before: int, keep: tuple[str, ...]) -> None:
        pass

    def list_parts(self) -> list[StoredObject]:
        return []

    def list_objects(self, folder: str) -> list[StoredObject]:
        return []

    def remove(self, names: tuple[str, ...]) -> None:
        pass

    def read(self, name: str) -> bytes | None:
        return None

    def write(self, name: str, data: bytes) -> None:
        pass

    def open(self, name: str) -> BinaryIO:
        raise FileNotFoundError(name)

    def read_part_record(self, name: str) -> CommitRecord | None:
        return None


def _shard(index: int) -> Shard:
    return Shard(ShardId(index), (Piece(f"/data/rows-{index:08d}.parquet", 0, 1, ROWS),), ROWS, 1_000_000)


async def _serve(address: str, shards: int, server: EmbeddedServer, folder: Path, level: Level) -> None:
    # A planner has loaded all this before the first commit, in every other master.
    keep_pandas_out()
    importlib.import_module("antinfer.storage.manifest")
    store = RedisStore(server.url, JOB, server=server)
    await store.open()
    assert store.durability is Durability.ALWAYS, store.durability
    epoch = (await store.fence()).epoch + 1
    await store.claim(epoch, "benchmark")
    loaded = await store.load()
    streams = Streams()
    publisher = Publisher(
        NullPlace(),
        "parquet",
        epoch,
        post=lambda make: loop.post_soon(make),
        fail=lambda error: loop.fail_soon(error),
        seal=lambda first_chunk, rows: None,
    )
    engine = Engine(EngineConfig(), PlanIndex([ROWS] * shards, complete=True), epoch)
    journal = None if level == "off" else Journal(PosixPlace(str(folder / "out")), epoch, now_ms, level)
    loop = Loop(
        engine,
        store,
        loaded.seq,
        send=lambda send: streams.send(send.stream, send.message),
        effects=publisher,
        connected=lambda: len(streams),
        figures=Figures(now_ms()),
        journal=journal,
    )
    streams.rule(loop.post)
    collect_rarely()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, loop.stop)
    document: asyncio.Future[JobDocument] = asyncio.get_running_loop().create_future()
    service = grpc.aio.server(options=SERVER_OPTIONS)
    add_work_service(service, WorkService(streams, _shard, document))
    service.add_insecure_port(address)
    await service.start()
    try:
        # Our own server on its own file: what it holds is all there is to know.
        began, trusted = now_ms(), loaded.documents is not None
        if journal is not None:
            journal.begin(engine, began, loaded.documents, trusted=trusted, owner="benchmark")
        await loop.run(engine.start(began, loaded.documents, trusted=trusted))
        print(f"{loop.batches} batches, {engine.progress().rows_done // ROWS} tasks", file=sys.stderr)
    finally:
        streams.abdicate()
        await service.stop(0)
        await asyncio.to_thread(publisher.stop)
        if journal is not None:
            await asyncio.to_thread(journal.end, "the benchmark is over")
            (folder / USAGE).write_text(json.dumps({"log": journal.seconds, "master": time.process_time()}))
        await store.close()


def main() -> None:
    address, shards, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    level = cast(Level, sys.argv[4] if len(sys.argv) > 4 else "full")
    server = EmbeddedServer(folder)
    server.start(wait=False)
    try:
        asyncio.run(_serve(address, shards, server, folder, level))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
