"""The data path of a stage host in one process, on random pipelines and with random orders from an agent, against a model of ten lines.

Real readers, map threads, writers, flow, leases and files, and the worker's real book of leases (`Holdings`) on the other side; only the
input and the master are made up. A run must end, and every row must have been committed once, with the right results, in order.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings

from antinfer.core.ids import LeaseId, ShardId
from antinfer.core.messages import Acceptance, CommitOutcome, Grant
from antinfer.core.plan import Piece, Shard
from antinfer.core.ranges import UNSIZED, Rows
from antinfer.core.records import CommitRecord
from antinfer.metrics import AccumulatorSet
from antinfer.storage import layout, quarantine, rowhash
from antinfer.storage.posix import PosixPlace
from antinfer.worker import hostlink
from antinfer.worker.calls import Caller, select_columns
from antinfer.worker.holdings import Holdings
from antinfer.worker.host import flow as flows
from antinfer.worker.host import readers, writers
from antinfer.worker.host.credits import Credits
from antinfer.worker.host.flow import Flow
from antinfer.worker.host.leases import Leases
from antinfer.worker.host.parts import OutputPlan
from antinfer.worker.host.readers import Reader
from antinfer.worker.host.writers import Writer
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.schemas import SchemaGate
from tests.model.pipeline_cases import GROW, Case, calm, cases
from tests.model.pipeline_steps import BAD, expected

PATIENCE_SECONDS = 30.0


class Numbers:
    """The input: every row knows its shard and its place."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def _rows(self, shard: Shard, start: int, stop: int) -> pa.RecordBatch:
        v = np.arange(start, min(stop, self._case.shards[shard.index][0])) + shard.index * GROW
        names = pa.array([None if i % 5 == 0 else f"name {i}" for i in v.tolist()], pa.string())
        return pa.record_batch({"v": v, "x": v, "name": names})

    def read(self, shard: Shard, start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
        end = min(stop, self._case.shards[shard.index][0])
        for at in range(start, end, batch_rows):
            yield self._rows(shard, at, min(at + batch_rows, end))

    def count_rows(self, shard: Shard) -> int:
        return self._case.shards[shard.index][0]


class Executor:
    """Calls user code; now and then a batch is run in halves, the later one first, as after the death of a process.

    For a predictor behind a hybrid stage it runs both on rows that nobody has run yet.
    """

    def __init__(self, at: int, node: Call, flow: Flow, n: int, seen: list[str]) -> None:
        self._at, self._node, self._flow, self._turn = at, node, flow, n
        self._caller = Caller(node.stage, copy=True)
        self._first = None if node.on_gpu is None else Caller(node.on_gpu, copy=True)
        self._seen = seen

    def run(self) -> None:
        while (call := self._flow.take(self._at)) is not None:
            assert call.rows > 0
            self._seen.append(str(call.batch(lambda batch: batch).to_pydict()))
            self._turn += 1
            if self._turn % 5 == 0:
                self._flow.set_batch_rows(self._at, self._turn % 17 + 1)
            # Halves of a batch open groups of their own, which a job cannot be reproduced by.
            if call.rows > 1 and self._turn % 3 == 0 and not self._node.limits.whole:
                self._flow.hold(self._at)
                for half in reversed(call.halves()):
                    self._finish(half)
            else:
                self._finish(call)

    def _finish(self, call: Assembled) -> None:
        stage = self._node.stage
        if not call.fused:
            outcome = self._caller.run(call.batch(lambda batch: select_columns(batch, stage)))
        else:
            on_gpu = self._node.on_gpu
            assert on_gpu is not None and self._first is not None
            outcome = self._fused(self._first.run(call.batch(lambda batch: select_columns(batch, on_gpu))))
        self._flow.finish(self._at, call, outcome, 0.0)

    def _fused(self, raw: Outcome) -> Outcome:
        if raw.batch is None:
            return raw
        made = self._caller.run(raw.batch)
        if raw.rows is None:
            return made
        assert made.rows is None
        return Outcome(made.batch, raw.rows, raw.bad)


class World:
    """Host, agent and master of one case."""

    def __init__(self, case: Case, folder: str) -> None:
        self.case = case
        self.place = PosixPlace(folder)
        self.inbox: SimpleQueue[Any] = SimpleQueue()
        self.failures: list[BaseException] = []
        self.committed: dict[int, list[CommitRecord | Rows]] = {shard: [] for shard in range(len(case.shards))}
        self.sizes: dict[int, int] = {}
        self.holdings = Holdings()
        self._lease_numbers = 0
        self.nodes = graph.build(case.spec(), cpus=1)
        self.batches: list[list[str]] = [[] for _ in self.nodes]
        """What each node was called with."""
        self._credits = Credits(case.credit_bytes)
        self.leases = Leases(self._credits, self.inbox.put, case.interval)
        self.flow = Flow(self.nodes, self.leases.collect)
        self._shards = {
            ShardId(i): Shard(ShardId(i), (Piece("input", i, i, rows if known else None),), rows if known else None, 1)
            for i, (rows, known) in enumerate(case.shards)
        }
        self.threads = [threading.Thread(target=self._guarded, args=(run,), daemon=True) for run in self._loops()]

    def _loops(self) -> Iterator[Any]:
        plan = OutputPlan(
            place=self.place,
            sink="parquet",
            options={},
            carryover=("x", "name"),
            keep_columns=("name",),
            row_ids=True,
            accumulators=AccumulatorSet({}),
            gate=SchemaGate("the output"),
            worker="w",
            code="c",
        )
        for n in range(self.case.threads):
            yield Reader(Numbers(self.case), plan, self.flow, self.leases, self._credits, 1).run  # type: ignore[arg-type]
            yield Writer(plan, self.leases, self.inbox.put).run
            for at, node in enumerate(self.nodes):
                if isinstance(node, Call):
                    yield Executor(at, node, self.flow, n, self.batches[at]).run

    def _guarded(self, run: Any) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - told by the test
            self.failures.append(error)
            self.inbox.put(None)

    # -- agent and master ------------------------------------------------------------------------------------------------------------
    def run(self) -> None:
        self.holdings.on_ready()
        for shard in self._shards.values():
            self._grant(shard.index, Rows(0, UNSIZED if shard.rows is None else shard.rows))
        for thread in self.threads:
            thread.start()
        orders = list(reversed(self.case.orders))
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while self.holdings.leases:
                assert time.monotonic() < deadline, f"nothing happens any more: {self.holdings.leases}"
                try:
                    message = self.inbox.get(timeout=0.002 if orders else PATIENCE_SECONDS)
                except Empty:
                    message = None
                if self.failures:
                    raise self.failures[0]
                if message is not None:
                    self._hear(message)
                if orders:
                    self._order(*orders.pop())
                self._rule()
        finally:
            self.leases.stop()
            self.flow.stop()
            for thread in self.threads:
                thread.join(PATIENCE_SECONDS)
        assert not any(thread.is_alive() for thread in self.threads)
        assert self._credits.used_bytes == 0, "credit was not given back"
        spool = Path(self.place.local_spool())
        assert not [path for path in spool.iterdir() if path.suffix != ".lock"], "a part was forgotten"

    def _tell(self) -> None:
        for action in self.holdings.take_actions():
            match action.message:
                case hostlink.Work() as work:
                    self.leases.start(work)
                case hostlink.Cut() as cut:
                    self.leases.cut(cut.lease, cut.rows)
                case hostlink.Regrant() as regrant:
                    self.leases.rename(regrant.old, regrant.new, regrant.attempt)
                case hostlink.YieldRest() as back:
                    self.leases.yield_rest(back.lease)

    def _grant(self, shard: ShardId, rows: Rows) -> None:
        rows = Rows(rows.start, min(rows.stop, self.sizes.get(shard, UNSIZED)))
        if rows.start < rows.stop:
            self._lease_numbers += 1
            grant = Grant(LeaseId(1, self._lease_numbers), shard, rows, alone=self._lease_numbers % 3 == 0)
            self.holdings.take(grant, self._shards[shard], is_wanted=True)
        self._tell()

    def _hear(self, message: Any) -> None:
        match message:
            case hostlink.Staged():
                self.holdings.on_staged(message)
            case hostlink.Released():
                self.holdings.on_released(message)
            case hostlink.Sized():
                self.holdings.on_sized(message)
            case _:
                raise AssertionError(message)
        self._tell()

    def _rule(self) -> None:
        """Be the master: take in what is staged, and give out again what came back."""
        for lease in list(self.holdings.leases.values()):
            if lease.sized is not None:
                assert lease.sized == self.case.shards[lease.shard.index][0]
                self.sizes[lease.shard.index] = lease.sized
                lease.is_sizing_told = True
            for record in list(lease.staged):
                self.committed[lease.shard.index].append(record)
                rest = Rows(record.stop, max(record.stop, lease.rows.stop))
                self.holdings.settle(CommitOutcome(record.staged, Acceptance.ACCEPTED, rest if rest.size else None))
            if lease.id in self.holdings.leases and lease.is_released and lease.frontier < lease.rows.stop:
                self.holdings.close({lease.id})
                self._grant(lease.shard.index, lease.rows)
        self.holdings.close(set())
        self._tell()

    def _order(self, what: str, which: int, share: float) -> None:
        held = list(self.holdings.leases.values())
        if not what or not held:
            return
        lease = held[which % len(held)]
        if what == "regrant":
            numbers = range(self._lease_numbers + 1, self._lease_numbers + 1 + len(held))
            self._lease_numbers += len(held)
            again = [Grant(LeaseId(2, n), each.shard.index, each.rows) for n, each in zip(numbers, held, strict=True)]
            self.holdings.rejoin(again, self._shards, is_wanted=True)
        elif what == "yield":
            self.holdings.ask_back(lease)
        else:
            end = min(lease.rows.stop, self.case.shards[lease.shard.index][0])
            at = lease.rows.start + int(share * (end - lease.rows.start))
            if what == "head":
                # Another copy of the range was faster.
                self.committed[lease.shard.index].append(Rows(lease.rows.start, at))
                self.holdings.shrink(lease, Rows(at, lease.rows.stop))
            elif lease.rows.start < at < lease.rows.stop:
                rest = Rows(at, lease.rows.stop)
                self.holdings.shrink(lease, Rows(lease.rows.start, at))
                self._grant(lease.shard.index, rest)
        self._tell()


def check(world: World) -> None:
    for shard, done in world.committed.items():
        at = 0
        for each in sorted((one for one in done if one.stop > one.start), key=lambda one: one.start):
            assert each.start == at, f"shard {shard}: {done}"
            at = each.stop
            if isinstance(each, CommitRecord):
                check_part(world, each)
        assert at == world.case.shards[shard][0], f"shard {shard}: {done}"


def check_part(world: World, record: CommitRecord) -> None:
    values = world.case.values(record.shard)[record.start : record.stop]
    made = {value: expected(world.case.steps, value) for value in values}
    bad = [value - record.shard * GROW for value in values if made[value] == BAD]
    rows = [(x, v) for x in values if not isinstance(made[x], str) for v in made[x]]
    kinds = [staged.kind for staged in record.objects]
    assert (record.rows_out, record.rows_quarantined) == (len(rows), len(bad))
    assert ("part" in kinds, "quarantine" in kinds) == (bool(rows), bool(bad))
    handled = rowhash.hash_range(record.shard, record.start, record.stop)
    assert record.row_hash == rowhash.without(handled, rowhash.hash_rows(record.shard, bad))
    if rows:
        with world.place.open(layout.staged_path(record.staged, "part")) as file:
            table = pq.read_table(pa.PythonFile(file))
        found = table.to_pydict()
        if "kids" in found:
            found["v"] = [sum(child["v"] for child in children) for children in found["kids"]]
        assert list(zip(found["x"], found["v"], strict=True)) == rows
        assert found["_offset"] == [x - record.shard * GROW for x, _ in rows]
        assert found["name"] == [None if x % 5 == 0 else f"name {x}" for x, _ in rows]
    if bad:
        table = quarantine.read(world.place, layout.staged_path(record.staged, "quarantine"))
        assert table["offset"].to_pylist() == bad
        named = [offset + record.shard * GROW for offset in bad]
        assert [row["name"] for row in table["input"].to_pylist()] == [None if x % 5 == 0 else f"name {x}" for x in named]


@given(cases())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_row_comes_out_once_whatever_is_ordered(case: Case) -> None:
    check_case(case)


@given(cases(reproducible=True))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_reproducible_job_makes_the_same_batches_whatever_is_ordered(case: Case) -> None:
    found, plain = check_case(case), check_case(calm(case))
    for node, batches, others in zip(plain.nodes, found.batches, plain.batches, strict=True):
        # Rows that another copy was faster with may never have been called here.
        assert set(batches) <= set(others), node.name
        assert set(batches) == set(others) or any(what == "head" for what, _, _ in case.orders), node.name


def check_case(case: Case) -> World:
    """Run a case and check all that it has committed; return what is left of it."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for module, name, value in (
            (flows, "_QUEUE_BYTES", case.queue_bytes),
            (flows, "_LINGER_SECONDS", 0.001),
            (readers, "_CHUNK_ROWS", case.chunk_rows),
            (readers, "_UNSIZED_CHUNK_ROWS", case.chunk_rows),
            (readers, "_CHUNK_BYTES", 1 << 40),
            (writers, "PART_BYTES", case.part_bytes),
        ):
            stack.enter_context(patch.object(module, name, value))
        world = World(case, folder)
        world.run()
        check(world)
        return world
