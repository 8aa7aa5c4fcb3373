"""The pure engine, the store in memory and a real Valkey, driven together: after every step all three hold the same documents.

Whatever happens (leases, prefixes, returns, failures, expiries, preemption, fail-over, doubled and late requests, lost replies, restarts),
the engine's state, the documents in memory and those in the server are equal, what was acknowledged stays committed, and no row is accepted
twice.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from antinfer.core import commands, documents, events, invariants
from antinfer.core.budgets import RangeBudget
from antinfer.core.config import EngineConfig
from antinfer.core.engine import Engine, Phase
from antinfer.core.events import StreamId
from antinfer.core.ids import LeaseId, SessionId, ShardId, WorkerId, staged_name
from antinfer.core.messages import (
    Acceptance,
    Answer,
    Commit,
    Failure,
    FailureKind,
    Heartbeat,
    HeldRange,
    Join,
    Push,
    Request,
    Return,
    Sizing,
    Verdict,
    Welcome,
)
from antinfer.core.plan import PlanIndex
from antinfer.core.ranges import UNSIZED, Rows, RowSet
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.errors import FencedError
from antinfer.master.store.base import Applied, Batch, Store
from antinfer.master.store.embedded import EmbeddedServer
from antinfer.master.store.memory import MemoryStore, Server
from antinfer.master.store.redis import RedisStore

SIZES = (7, None, 3, 12, None, 1)
TRUE_SIZES = (7, 5, 3, 12, 0, 1)
CONFIG = EngineConfig(
    ttl_ms=3_000, grace_ms=500, task_rows=5, flush_records=3, flush_ms=2_000, copy_after_ms=1_000, ranges=RangeBudget(split_after=2)
)
NOWHERE = StreamId(0)
JOBS = itertools.count()

WORKERS = st.sampled_from(("ann", "bob", "cid"))


@dataclass
class Worker:
    """What a worker knows of itself."""

    name: str
    stream: StreamId = NOWHERE
    session: SessionId | None = None
    number: int = 0
    last: Request | None = None
    held: dict[LeaseId, tuple[ShardId, Rows]] = field(default_factory=dict)
    ended: list[SessionId] = field(default_factory=list)
    is_done: bool = False


@dataclass
class Reign:
    """One master: its engine and its two stores."""

    engine: Engine
    stores: tuple[Store, Store]
    seq: int
    batches: int = 0

    def batch(self) -> Batch:
        self.batches += 1
        changes = self.engine.take_changes()
        token = f"{self.engine.epoch}-{self.batches}"
        return Batch(self.engine.epoch, self.seq, token, changes.puts, changes.deletes, changes.reset)


class Agreement(RuleBasedStateMachine):
    """Rules are what the world does; every rule ends in a batch that both stores get."""

    valkey: EmbeddedServer

    @initialize()
    def begin(self) -> None:
        self.asyncio = asyncio.new_event_loop()
        self.memory = Server()
        self.job = f"job-{next(JOBS)}"
        self.at = 0
        self.streams = itertools.count(1)
        self.nonces = itertools.count(1)
        self.workers = {name: Worker(name) for name in ("ann", "bob", "cid")}
        self.accepted: dict[str, CommitRecord] = {}
        self.published: set[str] = set()
        self.flushed: set[str] = set()
        self.effects: list[commands.Command] = []
        self.lose_reply = False
        self.opened: list[Store] = []
        self.former: Reign | None = None
        self.reign = self.new_reign(1, trusted=False)

    def teardown(self) -> None:
        if hasattr(self, "asyncio"):
            for store in self.opened:
                self.wait(store.close())
            self.asyncio.close()

    # -- the world -----------------------------------------------------------------------------------------------------------------
    def wait(self, awaited: Any) -> Any:
        return self.asyncio.run_until_complete(asyncio.wait_for(awaited, 10))

    def new_reign(self, epoch: int, *, trusted: bool) -> Reign:
        stores = (MemoryStore(self.memory), RedisStore(self.valkey.url, self.job))
        loaded = []
        for store in stores:
            self.opened.append(store)
            self.wait(store.open())
            self.wait(store.claim(epoch, f"master {epoch}"))
            loaded.append(self.wait(store.load()))
        in_memory, in_valkey = loaded
        assert (in_memory.documents, in_memory.seq, in_memory.whole) == (in_valkey.documents, in_valkey.seq, in_valkey.whole)
        if trusted:
            assert in_memory.whole
        engine = Engine(CONFIG, PlanIndex(SIZES, complete=True), epoch)
        self.effects.clear()
        for worker in self.workers.values():
            worker.stream = NOWHERE
        self.reign = Reign(engine, stores, in_memory.seq)
        self.settle(engine.start(self.at, in_memory.documents, trusted=trusted))
        self.recover()
        return self.reign

    def recover(self) -> None:
        """Answer what a reign on an untrusted store asks of the output place, until it serves."""
        while self.reign.engine.phase in (Phase.RECOVERING, Phase.SWEEPING, Phase.LISTING):
            match self.effects.pop(0):
                case commands.Publish(records) | commands.Recover(records):
                    self.publish(records)
                case commands.SweepStaging():
                    self.step(events.StagingSwept(self.at))
                case commands.ListOutput():
                    proved = tuple(record for name, record in self.accepted.items() if name in self.published)
                    unflushed = tuple(record for record in proved if record.staged not in self.flushed)
                    self.step(events.OutputListed(self.at, proved, unflushed))

    def step(self, event: events.Event, *, persisted: bool = True) -> None:
        ordered = self.reign.engine.step(event)
        if persisted:
            self.settle(ordered)

    def settle(self, ordered: list[commands.Command]) -> None:
        """Persist in both stores, then let workers and the output place see what was decided."""
        invariants.check(self.reign.engine)
        reign = self.reign
        batch = reign.batch()
        tries = 2 if self.lose_reply else 1
        self.lose_reply = False
        for store in reign.stores:
            results = [self.wait(store.persist(batch)) for _ in range(tries)]
            assert results == [Applied.NOW, Applied.BEFORE][:tries]
        reign.seq += 1
        for command in ordered:
            if isinstance(command, commands.Send):
                self.deliver(command)
            else:
                self.effects.append(command)

    def deliver(self, send: commands.Send) -> None:
        worker = next((each for each in self.workers.values() if each.stream == send.stream), None)
        if worker is None:
            return
        match send.message:
            case Welcome(Verdict.WORK) as welcome:
                worker.session, worker.number, worker.last = welcome.session, 0, None
                worker.held = {grant.lease: (grant.shard, grant.rows) for grant in welcome.regranted}
            case Welcome() as welcome:
                worker.is_done = welcome.verdict is Verdict.DONE
            case Answer() as answer:
                self.take_answer(worker, answer)
            case Push() as push:
                for cut in push.cuts:
                    self.cut(worker, cut.lease, cut.rows)
                if push.verdict is Verdict.UNKNOWN_SESSION:
                    self.forget(worker)

    def take_answer(self, worker: Worker, answer: Answer) -> None:
        assert worker.last is not None
        assert answer.number == worker.last.number
        if answer.verdict in (Verdict.UNKNOWN_SESSION, Verdict.NOT_MASTER):
            self.forget(worker)
            return
        asked = {commit.record.staged: commit.record for commit in worker.last.commits}
        for outcome in answer.outcomes:
            record = asked[outcome.staged]
            if outcome.acceptance is Acceptance.ACCEPTED:
                self.accept(record)
            self.cut(worker, LeaseId.parse(outcome.staged.split(".")[0]), outcome.left or Rows(0, 0))
        for grant in answer.grants:
            worker.held[grant.lease] = (grant.shard, grant.rows)

    def accept(self, record: CommitRecord) -> None:
        for other in self.accepted.values():
            assert other.staged == record.staged or other.shard != record.shard or not other.rows.overlaps(record.rows), "a row is in twice"
        self.accepted[record.staged] = record

    def forget(self, worker: Worker) -> None:
        if worker.session is not None:
            worker.ended.append(worker.session)
        worker.session, worker.last = None, None

    def cut(self, worker: Worker, lease: LeaseId, rows: Rows) -> None:
        if lease in worker.held:
            if rows.start < rows.stop:
                worker.held[lease] = (worker.held[lease][0], rows)
            else:
                del worker.held[lease]

    def publish(self, records: tuple[CommitRecord, ...]) -> None:
        self.published.update(record.staged for record in records)
        self.step(events.Published(self.at, tuple(record.staged for record in records)))

    # -- workers -------------------------------------------------------------------------------------------------------------------
    @rule(name=WORKERS)
    def join(self, name: str) -> None:
        """Start, or come back over a new connection naming the old ranges."""
        worker = self.workers[name]
        if worker.session is not None:
            self.forget(worker)
        worker.stream = StreamId(next(self.streams))
        held = tuple(HeldRange(lease, shard, rows) for lease, (shard, rows) in worker.held.items())
        worker.held = {}
        self.step(events.Joined(self.at, worker.stream, Join(WorkerId(name), "", held)))

    def request(self, worker: Worker, choose: Any, *, leaving: bool = False) -> Request:
        assert worker.session is not None
        sizings, commits, returns, failures = [], [], [], []
        for lease, (shard, rows) in list(worker.held.items()):
            if rows.stop >= UNSIZED:
                sizings.append(Sizing(lease, TRUE_SIZES[shard]))
                rows = Rows(rows.start, TRUE_SIZES[shard])
                worker.held[lease] = (shard, rows)
            deed = choose.draw(st.sampled_from(("keep", "prefix", "all", "return", "fail", "trouble", "early")), label=f"{lease}")
            if deed in ("return", "fail", "trouble") or rows.start >= rows.stop:
                del worker.held[lease]
            if deed == "return":
                returns.append(Return(lease))
            elif deed in ("fail", "trouble"):
                failures.append(Failure(lease, FailureKind.RANGE if deed == "fail" else FailureKind.STORAGE, "broken"))
            elif deed in ("prefix", "all", "early") and rows.start < rows.stop:
                stop = rows.stop if deed == "all" else choose.draw(st.integers(rows.start + 1, rows.stop), label="stop")
                # A commit that comes before its predecessor must be asked for again, not refused.
                start = min(rows.start + 1, stop - 1) if deed == "early" else rows.start
                commits.append(Commit(lease, self.record(lease, shard, Rows(start, stop), worker.name)))
        worker.number += 1
        want = choose.draw(st.integers(0, 3), label="want")
        held = tuple(worker.held)
        session = worker.session
        return Request(session, worker.number, tuple(sizings), tuple(commits), tuple(returns), tuple(failures), held, want, leaving=leaving)

    def record(self, lease: LeaseId, shard: ShardId, rows: Rows, worker: str) -> CommitRecord:
        staged = staged_name(lease, shard, rows.start, rows.stop, f"{next(self.nonces):x}")
        return CommitRecord(shard, rows.start, rows.stop, staged, (StagedObject("part"),), rows.size, worker=worker, schema="s")

    def connected(self, name: str) -> Worker | None:
        worker = self.workers[name]
        return worker if worker.session is not None else None

    @rule(name=WORKERS, choose=st.data())
    def lease_and_commit(self, name: str, choose: Any) -> None:
        """Whatever a worker may ask for in one request: leases, prefixes, whole ranges, returns, failures."""
        worker = self.connected(name)
        if worker is not None:
            self.reconnect(worker)
            worker.last = self.request(worker, choose)
            self.step(events.Requested(self.at, worker.stream, worker.last))

    @rule(name=WORKERS, choose=st.data())
    def preempt(self, name: str, choose: Any) -> None:
        """The worker commits what it has and leaves."""
        worker = self.connected(name)
        if worker is not None:
            self.reconnect(worker)
            worker.last = self.request(worker, choose, leaving=True)
            self.step(events.Requested(self.at, worker.stream, worker.last))
            self.forget(worker)
            worker.held.clear()

    def reconnect(self, worker: Worker) -> None:
        if worker.stream == NOWHERE:
            worker.stream = StreamId(next(self.streams))

    @rule(name=WORKERS)
    def repeat(self, name: str) -> None:
        """The same request again, perhaps to the next master: nothing is committed twice, nothing accepted is taken back."""
        worker = self.connected(name)
        if worker is not None and worker.last is not None:
            self.reconnect(worker)
            before = dict(self.accepted)
            self.step(events.Requested(self.at, worker.stream, worker.last))
            assert before.items() <= self.accepted.items()

    @rule(name=WORKERS, choose=st.data())
    def late(self, name: str, choose: Any) -> None:
        """A request of a session that has ended changes nothing."""
        worker = self.workers[name]
        if worker.ended:
            session = choose.draw(st.sampled_from(worker.ended))
            if self.reign.engine.sessions.get(session) is not None:
                return
            lease = LeaseId(self.reign.engine.epoch, 1)
            record = self.record(lease, ShardId(0), Rows(0, 1), name)
            before = {key: text for key, text in self.dump().items() if key != documents.META}
            stream = StreamId(next(self.streams))
            self.step(events.Requested(self.at, stream, Request(session, 99, commits=(Commit(lease, record),), want=3)))
            assert {key: text for key, text in self.dump().items() if key != documents.META} == before

    @rule(name=WORKERS, choose=st.data())
    def heartbeat(self, name: str, choose: Any) -> None:
        """A sign of life; leases that it does not name go back."""
        worker = self.connected(name)
        if worker is not None:
            self.reconnect(worker)
            held = tuple(lease for lease in worker.held if choose.draw(st.integers(0, 3), label=f"{lease}"))
            worker.held = {lease: worker.held[lease] for lease in held}
            self.step(events.HeartbeatSeen(self.at, worker.stream, Heartbeat(worker.session or SessionId(""), held, worker.number)))

    @rule(name=WORKERS)
    def break_stream(self, name: str) -> None:
        worker = self.workers[name]
        self.step(events.StreamBroken(self.at, worker.stream))
        worker.stream = NOWHERE

    @rule(name=WORKERS)
    def drain(self, name: str) -> None:
        self.step(events.DrainRequested(self.at, WorkerId(name)))

    # -- time, output place, store, masters ----------------------------------------------------------------------------------------
    @rule(ticks=st.integers(1, 8))
    def expire(self, ticks: int) -> None:
        """Time passes, in steps that are no gap of the loop."""
        for _ in range(ticks):
            self.at += 400
            self.step(events.Ticked(self.at))

    @precondition(lambda self: self.effects)
    @rule()
    def carry_out(self) -> None:
        """The output place does the next thing that it was told."""
        match self.effects.pop(0):
            case commands.Publish(records):
                self.publish(records)
            case commands.Flush(records):
                self.flushed.update(record.staged for record in records)
                self.step(events.Flushed(self.at, tuple(record.staged for record in records)))
            case commands.ListStaging():
                self.step(events.StagingListed(self.at, tuple(self.accepted)))
            case commands.Collect(staged):
                assert not set(staged) & (self.accepted.keys() - self.published), "an acknowledged result is thrown away"
            case commands.AuditOutput():
                self.step(events.OutputAudited(self.at, ()))
            case commands.Seal():
                self.step(events.Sealed(self.at))
            case commands.GiveUp():
                assert self.reign.engine.failure

    @rule()
    def lose_next_reply(self) -> None:
        """The next batch is applied, but its answer is lost, so it is persisted again."""
        self.lose_reply = True

    @rule()
    def fail_over(self) -> None:
        """Another master takes over from the store."""
        self.former = self.reign
        self.new_reign(self.reign.engine.epoch + 1, trusted=True)

    @rule(name=WORKERS, choose=st.data())
    def die_before_persisting(self, name: str, choose: Any) -> None:
        """A master dies with a step in memory; nobody has seen its answer, and the next master knows nothing of it."""
        worker = self.connected(name)
        if worker is not None:
            self.reconnect(worker)
            stored = self.stored()
            worker.last = self.request(worker, choose)
            self.step(events.Requested(self.at, worker.stream, worker.last), persisted=False)
            assert self.stored() == stored
            self.fail_over()

    @rule()
    def fail_over_to_a_store_that_is_not_trusted(self) -> None:
        """What the output proves is all that counts, and it is all that was acknowledged."""
        self.former = self.reign
        self.new_reign(self.reign.engine.epoch + 1, trusted=False)

    @precondition(lambda self: self.former is not None)
    @rule()
    def wake_the_former_master(self) -> None:
        """It is fenced, in both stores, whatever it tries."""
        assert self.former is not None
        self.former.engine.step(events.Ticked(self.at))
        batch = self.former.batch()
        for store in self.former.stores:
            with pytest.raises(FencedError):
                self.wait(store.persist(batch))

    # -- what must hold ------------------------------------------------------------------------------------------------------------
    def stored(self) -> tuple[dict[str, str], dict[str, str]]:
        memory, valkey = (self.wait(store.load()).documents or {} for store in self.reign.stores)
        return memory, valkey

    def dump(self) -> dict[str, str]:
        """Every document that the engine's state makes."""
        engine = self.reign.engine
        found = {f"{documents.SHARD}{index}": documents.encode_shard(shard) for index, shard in engine.ledger.open.items()}
        found |= {f"{documents.SESSION}{session.id}": documents.encode_session(session) for session in engine.sessions}
        found |= {f"{documents.RECORD}{name}": record.to_text() for name, record in engine.publications.records.items()}
        return found | {documents.META: documents.encode_meta(engine.meta)}

    @invariant()
    def all_three_agree(self) -> None:
        memory, valkey = self.stored()
        assert memory == valkey
        state = self.dump()
        for docs in (state, memory):
            docs.pop(documents.META, None)
        for key in [key for key in state.keys() & memory.keys() if key.startswith("w:")]:
            # The number of a request that was granted and committed nothing is not worth a write: only repeats of others need it.
            mine, theirs = json.loads(state.pop(key)), json.loads(memory.pop(key))
            assert theirs.pop("last_request") <= mine.pop("last_request")
            # Nor is a speed, which is measured again.
            assert min(theirs.pop("rate"), mine.pop("rate")) >= 0
            assert mine == theirs
        assert state == memory

    @invariant()
    def what_was_acknowledged_stays_committed(self) -> None:
        ledger = self.reign.engine.ledger
        for record in self.accepted.values():
            shard = ledger.open.get(ShardId(record.shard))
            committed = RowSet([(0, TRUE_SIZES[record.shard])]) if shard is None else shard.committed
            assert shard is not None or record.shard in ledger.finished
            assert not committed.gaps(record.start, record.stop)


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="antinfer-test-") as folder:
        Agreement.valkey = EmbeddedServer(folder)
        Agreement.valkey.start()
        yield
        Agreement.valkey.stop()


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(max_examples=40, stateful_step_count=40)
