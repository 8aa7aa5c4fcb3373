"""What finished rows cost a resume: jobs of ten thousand and of a million planned shards, both 99 % done.

The state is made by the real engine and persisted, batch by batch, in a real embedded Valkey, so its append-only file has the history
that it would have; then server and master are gone, and a resume is timed. Loading the plan costs a few bytes a planned shard, finished or
not; it is timed on its own.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pyarrow as pa

from antinfer.core.config import EngineConfig
from antinfer.core.engine import Engine, Phase
from antinfer.core.ids import ShardId
from antinfer.core.plan import Piece, PlanIndex, Shard
from antinfer.master.store.base import Batch
from antinfer.master.store.embedded import EmbeddedServer
from antinfer.master.store.redis import RedisStore
from antinfer.storage.place import open_place
from antinfer.storage.planfile import PlanFile
from antinfer.storage.planning import PlanChunk
from antinfer.storage.sources.base import InputFile
from benchmarks.bare_master import JOB, ROWS
from benchmarks.contest import by_turns
from benchmarks.control_plane import first_grant
from benchmarks.core_steps import Reign
from benchmarks.master_process import master_process
from benchmarks.report import Result

_WORKERS, _HELD = 8, 4
_ROUNDS_A_BATCH = 4
_SHARDS_A_FILE = 100
_SHARDS_A_CHUNK = 5_000
_NAME = "resume_99"


def measure(quick: bool) -> list[Result]:
    """Return how the times of a resume grow from the small job to the large one, and what the plan costs."""
    small, large = (5_000, 20_000) if quick else (10_000, 1_000_000)
    rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory(prefix="antinfer-bench-") as folder:
        jobs = {shards: Path(folder, str(shards)) for shards in (small, large)}
        for shards, place in jobs.items():
            asyncio.run(_work_off(shards, place / "state"))
            _write_plan(shards, place / "out")
            print(f"  {shards} shards: made", file=sys.stderr, flush=True)
        state = by_turns({f"{n}": partial(_load_state, n, place / "state") for n, place in jobs.items()}, rounds)
        grant = by_turns({f"{n}": partial(_first_grant, n, place / "state") for n, place in jobs.items()}, rounds)
        plan = by_turns({f"{n}": partial(_load_plan, n, place / "out") for n, place in jobs.items()}, rounds)
    return [
        _growth("store up, state loaded, engine started", state, small, large, 1.5),
        _growth("master process to its first grant", grant, small, large, 1.5),
        Result(
            _NAME,
            f"plan of {large:,} shards in {large // _SHARDS_A_FILE:,} files loaded",
            tuple(plan[str(large)]),
            "s",
            details={"seconds": plan},
        ),
    ]


def _growth(what: str, seconds: dict[str, list[float]], small: int, large: int, target: float) -> Result:
    ratios = tuple(b / a for a, b in zip(seconds[str(small)], seconds[str(large)], strict=True))
    return Result(_NAME, f"{what}: {large:,} / {small:,} shards", ratios, "x", target, at_least=False, details={"seconds": seconds})


# -- making a job that is 99 % done ------------------------------------------------------------------------------------------------------
async def _work_off(shards: int, folder: Path) -> None:
    """Let an engine commit 99 % of `shards`, every batch made durable, and leave the store behind as a killed master would."""
    server = EmbeddedServer(folder)
    server.start()
    try:
        store = RedisStore(server.url, JOB, server=server)
        await store.open()
        await store.claim(1, "benchmark")
        reign = Reign.begin(shards, _WORKERS, _HELD)
        batches = 0
        while reign.engine.progress().shards_finished < shards * 99 // 100:
            for _ in range(_ROUNDS_A_BATCH):
                reign.take_in([command for event in reign.next_round() for command in reign.engine.step(event)])
            changes = reign.engine.take_changes()
            await store.persist(Batch(1, batches, f"batch-{batches}", changes.puts, changes.deletes, changes.reset))
            batches += 1
        await store.close()
    finally:
        server.stop()


def _write_plan(shards: int, output: Path) -> None:
    output.mkdir(parents=True)
    plan = PlanFile(open_place(str(output)))
    files = [InputFile(f"/data/rows-{index:08d}.parquet", 100_000_000, "1") for index in range(shards // _SHARDS_A_FILE)]
    plan.save_listing(files, pa.schema([("x", pa.float64())]))
    for first in range(0, shards, _SHARDS_A_CHUNK):
        stop = min(first + _SHARDS_A_CHUNK, shards)
        plan.append(PlanChunk(stop // _SHARDS_A_FILE, [_shard(files, n) for n in range(first, stop)]))
    plan.complete()


def _shard(files: list[InputFile], n: int) -> Shard:
    """One row group of a file."""
    group = n % _SHARDS_A_FILE
    return Shard(ShardId(n), (Piece(files[n // _SHARDS_A_FILE].path, group, group + 1, ROWS),), ROWS, 1_000_000)


# -- resuming it -------------------------------------------------------------------------------------------------------------------------
def _load_state(shards: int, folder: Path) -> float:
    """Time the way from nothing to an engine that serves, the index of the plan apart."""
    return asyncio.run(_load(shards, folder))


async def _load(shards: int, folder: Path) -> float:
    index = PlanIndex([ROWS] * shards, complete=True)
    started = time.perf_counter()
    server = EmbeddedServer(folder)
    server.start(wait=False)
    try:
        store = RedisStore(server.url, JOB, server=server)
        await store.open()
        epoch = (await store.fence()).epoch + 1
        await store.claim(epoch, "benchmark")
        loaded = await store.load()
        engine = Engine(EngineConfig(), index, epoch)
        engine.start(0, loaded.documents, trusted=True)
        seconds = time.perf_counter() - started
        assert engine.phase is Phase.SERVING, engine.phase
        assert engine.progress().shards_finished >= shards * 99 // 100
        await store.close()
        return seconds
    finally:
        server.stop()


def _first_grant(shards: int, folder: Path) -> float:
    """Time the way from starting a master process to a worker's first lease; the interpreter's start and all imports are in it."""
    started = time.perf_counter()
    with master_process(shards, folder) as address:
        asyncio.run(first_grant(address))
        return time.perf_counter() - started


def _load_plan(shards: int, output: Path) -> float:
    started = time.perf_counter()
    state = PlanFile(open_place(str(output))).load()
    seconds = time.perf_counter() - started
    assert len(state.index) == shards
    return seconds
