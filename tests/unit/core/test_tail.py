"""The tail and stuck ranges, in virtual time: whole jobs on workers of given speeds."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from antinfer.core import commands, events, invariants
from antinfer.core.causes import Cause
from antinfer.core.config import DeadlinePolicy, EngineConfig
from antinfer.core.engine import Phase
from antinfer.core.ids import LeaseId
from antinfer.core.messages import Commit, Grant, Heartbeat, LeaseCut, Push, Request, Return, Yield
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord
from tests.unit.core.builders import Worker, World, record, rows

SLOTS = 4
"""Leases that a worker asks for: one to work on and some to read ahead."""


def told(world: World, worker: Worker) -> list[Push]:
    return [sent.message for sent in world.of(commands.Send) if sent.stream == worker.stream and isinstance(sent.message, Push)]


def yields(world: World, worker: Worker) -> list[Yield]:
    return [each for push in told(world, worker) for each in push.yields]


# -- whole jobs ---------------------------------------------------------------------------------------------------------------------
@dataclass
class Job:
    """A world whose workers compute row after row, and do as they are told; time is that of the engine."""

    world: World
    row_ms: Callable[[int, int], float]
    """Time that one row of a shard takes a worker."""
    workers: list[Busy] = field(default_factory=list)

    def run(self, workers: int) -> int:
        """Return the time in ms at which every row is committed."""
        self.workers = [Busy(self, n) for n in range(workers)]
        agenda: list[tuple[float, int, Iterator[float]]] = []
        for n, worker in enumerate(self.workers):
            agenda += [(0.0, 2 * n, worker.work()), (0.0, 2 * n + 1, worker.beats())]
        agenda.append((0.0, 1_000, self._ticks()))
        heapq.heapify(agenda)
        while self.world.engine.phase is Phase.SERVING:
            at, number, run = heapq.heappop(agenda)
            assert at < 10_000_000, "the job does not end"
            self.world.at = int(at)
            heapq.heappush(agenda, (at + next(run), number, run))
        return self.world.at

    def _ticks(self) -> Iterator[float]:
        while True:
            self.world.step(events.Ticked(self.world.at))
            yield 200.0

    @property
    def computed(self) -> int:
        return sum(worker.computed for worker in self.workers)


class Busy:
    """One worker of a job."""

    def __init__(self, job: Job, number: int) -> None:
        self.job, self.number = job, number
        self.seen = Worker(job.world, f"w{number}")
        self.held: dict[LeaseId, tuple[Grant, int, int]] = {}
        """Grant, first row that is not computed, and stop."""
        self.computed = 0
        self.is_deaf = False
        self._read = 0

    def beats(self) -> Iterator[float]:
        while True:
            yield 1_000.0
            done = tuple(at for _, at, _ in self.held.values())
            beat = Heartbeat(self.seen.session, tuple(self.held), self.seen.number, done)
            self.job.world.step(events.HeartbeatSeen(self.job.world.at, self.seen.stream, beat))

    def work(self) -> Iterator[float]:
        while True:
            self._listen()
            if not self.held:
                self._ask()
                yield 50.0
                continue
            lease, (grant, at, stop) = next(iter(self.held.items()))
            if at >= stop:
                del self.held[lease]
                self._ask(record(grant, stop))
                continue
            yield self.job.row_ms(self.number, grant.shard)
            self.computed += 1
            grant, _, stop = self.held[lease]
            self.held[lease] = (grant, at + 1, stop)

    def _listen(self) -> None:
        pushes = told(self.job.world, self.seen)
        news, self._read = pushes[self._read :], len(pushes)
        for each in (each for push in news for each in push.yields if each.lease in self.held and not self.is_deaf):
            grant, at, stop = self.held[each.lease]
            keep = min(stop, max(at, at if each.keep is None else each.keep))
            if keep > grant.rows.start:
                self.held[each.lease] = (grant, at, keep)
                self._ask(returns=(Return(each.lease, keep),) if keep < stop else ())
            else:
                del self.held[each.lease]
                self._ask(returns=(Return(each.lease),))
        for cut in (cut for push in news for cut in push.cuts if cut.lease in self.held):
            self.held.pop(cut.lease)

    def _ask(self, *commits: CommitRecord, returns: tuple[Return, ...] = ()) -> None:
        self.seen.number += 1
        held = tuple(self.held)
        request = Request(
            self.seen.session,
            self.seen.number,
            commits=tuple(Commit(LeaseId.parse(each.staged.split(".")[0]), each) for each in commits),
            returns=returns,
            held=held,
            want=SLOTS - len(held),
            done=tuple(at for _, at, _ in self.held.values()),
        )
        self.seen.last = request
        for grant in self.seen.repeat().grants:
            self.held[grant.lease] = (grant, grant.rows.start, grant.rows.stop)


@pytest.mark.parametrize("where", [0, 7, 15], ids=["first", "middle", "last"])
def test_a_job_with_one_shard_twenty_times_as_dear_ends_in_time(where: int) -> None:
    shards, size = 16, 400
    job = Job(World([size] * shards), lambda worker, shard: 200.0 if shard == where else 10.0)
    ideal = (15 * size * 10 + size * 200) / 4
    took = job.run(4)
    assert took <= 1.25 * ideal, f"{took / ideal:.2f} x ideal"
    assert job.computed == shards * size, "no row was computed twice"


def test_a_worker_five_times_as_slow_does_not_hold_the_job_up() -> None:
    shards, size = 40, 300
    job = Job(World([size] * shards), lambda worker, shard: 50.0 if worker == 0 else 10.0)
    ideal = shards * size / (3 / 10 + 1 / 50)
    took = job.run(4)
    assert took <= 1.1 * ideal, f"{took / ideal:.2f} x ideal"


def test_a_short_job_of_equal_shards_is_not_cut_at_all() -> None:
    world = World([50] * 16)
    job = Job(world, lambda worker, shard: 10.0)
    job.run(4)
    assert world.engine.meta.totals.commits == 16


def test_tasks_shrink_towards_the_end_and_no_further_than_is_worth_it() -> None:
    world = World([6_000] * 8)
    job = Job(world, lambda worker, shard: 10.0)
    took = job.run(4)
    sizes = [command.records[0].rows.size for command in world.of(commands.Publish)]
    assert took <= 1.05 * 8 * 6_000 * 10 / 4
    assert max(sizes) == 6_000 and len(sizes) < 100
    assert sum(size < 90 for size in sizes) <= 10, "but for what a shard has left over"


# -- one step at a time -------------------------------------------------------------------------------------------------------------
def test_a_worker_that_will_be_busy_for_long_keeps_its_share_and_gives_the_rest() -> None:
    world = World([1_000], config=EngineConfig(ttl_ms=60_000))
    busy, one, two = world.worker("w1"), world.worker("w2"), world.worker("w3")
    grant = busy.take()
    for second in range(1, 4):
        world.tick(1_000)
        beat = Heartbeat(busy.session, (grant.lease,), 1, (second * 10,))
        world.step(events.HeartbeatSeen(world.at, busy.stream, beat))
    one.ask(1)
    two.ask(1)
    world.tick(200)
    assert yields(world, busy) == [Yield(grant.lease, 30 + 324)], "a third for each"
    world.silence(1_000)
    assert len(yields(world, busy)) == 1, "one word is enough"
    busy.number += 1
    request = Request(busy.session, busy.number, returns=(Return(grant.lease, 400),), held=(grant.lease,), done=(60,))
    for _ in range(2):
        world.step(events.Requested(world.at, busy.stream, request))
    assert [pending.rows for _, pending in world.engine.ledger.pending()] == [rows(400, 1_000)]
    assert world.engine.meta.causes[Cause.YIELDED.value] == 1
    assert one.take().rows.start == 400


def test_the_next_master_knows_how_fast_workers_are_and_shares_out_at_once() -> None:
    """Speeds are stored; what was computed before a master came is no speed."""
    world = World([2_000, 1_000], config=EngineConfig(ttl_ms=60_000))
    busy, one = world.worker("w1"), world.worker("w2")
    long, short = busy.take(), one.take()
    for second in range(1, 4):
        world.tick(1_000)
        world.step(events.HeartbeatSeen(world.at, busy.stream, Heartbeat(busy.session, (long.lease,), 1, (second * 100,))))
    busy.ask(commits=[record(long, 200)])
    heir = world.fail_over(at=900_000)
    for worker in (busy, one):
        worker.world = heir
    for told in (400, 500, 600):
        heir.at += 20
        heir.step(events.HeartbeatSeen(heir.at, busy.stream, Heartbeat(busy.session, (long.lease,), busy.number, (told,))))
    one.ask(1, commits=[record(short)])
    heir.tick(200)
    assert yields(heir, busy) == [Yield(long.lease, 600 + 700)], "half for each"
    heir.tick(1_000)
    heir.step(events.HeartbeatSeen(heir.at, busy.stream, Heartbeat(busy.session, (long.lease,), busy.number, (700,))))
    session = heir.engine.sessions.get(busy.session)
    assert session is not None and session.pace.rate == pytest.approx(0.1, rel=0.2)


def test_rows_given_back_are_not_lost_when_a_second_copy_stands_on_them() -> None:
    world = World([10], config=EngineConfig(copy_after_ms=1_000, ttl_ms=60_000))
    slow, quick = world.worker("slow"), world.worker("quick")
    first = slow.take()
    quick.ask(1)
    world.silence(2_000)
    copy = quick.take()
    slow.number += 1
    world.step(
        events.Requested(world.at, slow.stream, Request(slow.session, slow.number, returns=(Return(first.lease, 5),), held=(first.lease,)))
    )
    assert {lease.rows for lease in world.engine.ledger.leases.values()} == {rows(0, 10)}
    slow.ask(commits=[record(first, 5)])
    slow.ask(held=[])
    quick.ask(commits=[record(copy, start=5)])
    assert world.engine.ledger.is_complete


def test_what_does_not_answer_is_copied() -> None:
    world = World([100], config=EngineConfig(copy_after_ms=5_000, ttl_ms=60_000))
    deaf, idle = world.worker("w1"), world.worker("w2")
    grant = deaf.take()
    idle.ask(1)
    world.silence(5_200)
    assert idle.take().rows == grant.rows
    assert world.engine.counters()["second_copies"] == 1
    world.worker("w3").ask(1)
    before = len(world.commands)
    world.silence(4_000)
    assert world.commands[before:] == [] and world.engine.counters()["second_copies"] == 1, "one copy is enough"


# -- stuck ranges -------------------------------------------------------------------------------------------------------------------
STUCK = EngineConfig(ttl_ms=1 << 30, copy_after_ms=None, deadlines=DeadlinePolicy(shortest_ms=10_000, first_ms=50_000, answer_ms=3_000))


def beat(world: World, worker: Worker, grant: Grant, row: int) -> None:
    world.step(events.HeartbeatSeen(world.at, worker.stream, Heartbeat(worker.session, (grant.lease,), worker.number, (row,))))


def until_asked(world: World, worker: Worker, most_ms: int) -> int:
    """Return the time until `worker` is asked to give something back."""
    before, began = len(yields(world, worker)), world.at
    while len(yields(world, worker)) == before:
        world.tick(200)
        assert world.at - began <= most_ms
    return world.at - began


def test_a_stuck_range_is_asked_back_then_taken_and_goes_to_another_worker() -> None:
    world = World([1_000, 1_000], config=STUCK)
    stuck, other = world.worker("w1"), world.worker("w2")
    grant, theirs = stuck.take(), other.take()
    for second in range(1, 11):
        world.tick(1_000)
        beat(world, stuck, grant, second * 50)
    for second in range(11, 48):
        world.tick(1_000)
        beat(world, other, theirs, second)
    assert yields(world, stuck) == [], "four times the 10 s that the rest should take"
    until_asked(world, stuck, 6_000)
    assert yields(world, stuck)[-1] == Yield(grant.lease)
    world.silence(4_200)
    assert LeaseCut(grant.lease, Rows(0, 0)) in [cut for push in told(world, stuck) for cut in push.cuts]
    assert stuck.ask(1).grants == ()
    assert other.take().rows.start == grant.rows.start
    assert world.engine.meta.causes[Cause.STUCK.value] == 1
    assert world.engine.counters()["leases_taken"] == 1


def test_a_stuck_range_that_is_given_back_is_not_blamed() -> None:
    world = World([1_000, 1_000], config=STUCK)
    stuck, other = world.worker("w1"), world.worker("w2")
    grant, _ = stuck.take(), other.take()
    until_asked(world, stuck, 60_000)
    stuck.ask(1, returns=[grant.lease])
    (pending,) = [pending for _, pending in world.engine.ledger.pending()]
    assert (pending.strikes, pending.rows) == (0, grant.rows)
    assert other.take().rows == grant.rows


def test_the_first_batch_has_all_the_time_that_compiling_a_model_takes() -> None:
    world = World([1_000, 1_000], config=STUCK)
    stuck, other = world.worker("w1"), world.worker("w2")
    stuck.take()
    other.take()
    assert until_asked(world, stuck, 60_000) >= 50_000


def test_a_slow_range_is_left_alone_as_long_as_it_gets_on() -> None:
    world = World([1_000, 1_000], config=STUCK)
    slow, other = world.worker("w1"), world.worker("w2")
    grant, _ = slow.take(), other.take()
    beat(world, slow, grant, 0)
    for row in range(1, 60):
        world.silence(9_000)
        beat(world, slow, grant, row)
    assert yields(world, slow) == []


def test_patience_doubles_whenever_a_range_was_stuck() -> None:
    world = World([100, 100_000], config=STUCK)
    one, two = world.worker("w1"), world.worker("w2")
    holders = [one, two]
    grant = one.take()
    two.take()
    waited = []
    for n in range(3):
        holder = holders[n % 2]
        waited.append(until_asked(world, holder, 300_000))
        holder.ask(0, returns=[grant.lease])
        grant = holders[(n + 1) % 2].take()
    assert waited[1] >= 1.9 * waited[0] and waited[2] >= 1.9 * waited[1]


def test_patience_does_not_grow_with_drains() -> None:
    world = World([100, 100_000], config=STUCK)
    one, two = world.worker("w1"), world.worker("w2")
    grant, _ = one.take(), two.take()
    usual = until_asked(world, one, 60_000)
    again = World([100, 100_000], config=STUCK)
    one, two = again.worker("w1"), again.worker("w2")
    grant, _ = one.take(), two.take()
    for _ in range(6):
        one.ask(0, returns=[grant.lease])
        grant = one.take()
    assert grant.attempt == 7
    assert until_asked(again, one, 60_000) == usual


def test_nothing_is_taken_from_a_lonely_worker_or_blamed_on_a_master_that_slept() -> None:
    world = World([1_000, 1_000], config=STUCK)
    alone = world.worker("w1")
    alone.take()
    world.silence(120_000)
    assert yields(world, alone) == []
    other = world.worker("w2")
    other.take()
    world.tick(1 << 29)
    world.silence(2_000)
    assert yields(world, other) == []
    invariants.check(world.engine)
