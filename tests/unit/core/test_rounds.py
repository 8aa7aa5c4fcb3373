"""Retry rounds: exactly the rows in quarantine are granted and committed once more, whatever dies."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.core import commands, events
from antinfer.core.budgets import BadRowBudget
from antinfer.core.config import EngineConfig
from antinfer.core.engine import Engine, Phase
from antinfer.core.ids import ShardId, StagedName
from antinfer.core.messages import Acceptance, Failure, FailureKind, Grant
from antinfer.core.plan import PlanIndex
from antinfer.core.ranges import Rows, RowSet
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.core.rounds import GAP, RetriedShard, Round
from tests.unit.core.builders import Worker, World, record

PLAN = (100, None, 40, 20_000)
SIZES = (100, 60, 40, 20_000)
"""What the shards turned out to have."""
WAITING = {0: {3, 4, 5, 50, 99}, 1: {0, 59}, 3: {7, 8, 19_999}}


def runs(offsets: set[int]) -> list[Rows]:
    return list(RowSet((offset, offset + 1) for offset in sorted(offsets)))


def make_round(number: int = 1) -> Round:
    return Round(number, {ShardId(shard): RetriedShard(SIZES[shard], runs(rows)) for shard, rows in WAITING.items()})


def earlier() -> list[CommitRecord]:
    """Round 0: each shard in one commit."""
    return [
        CommitRecord(
            shard=shard,
            start=0,
            stop=rows,
            staged=StagedName(f"1-{shard + 1}.{shard}.0-{rows}.aa"),
            objects=(StagedObject("part"),),
            rows_out=rows - len(WAITING.get(shard, ())),
            rows_quarantined=len(WAITING.get(shard, ())),
            schema="s",
        )
        for shard, rows in enumerate(SIZES)
    ]


class Retrying(World):
    """A world whose job was finished, and has rows in quarantine."""

    def __init__(self, *, config: EngineConfig | None = None, documents: dict[str, str] | None = None) -> None:
        self.at = 0
        self.config = config or EngineConfig()
        self.documents = documents or {}
        self.published = earlier()
        self._reign(2, trusted=True)

    def _reign(self, epoch: int, *, trusted: bool) -> None:
        self.engine = Engine(self.config, PlanIndex(PLAN, complete=True), epoch, make_round())
        self.commands: list[commands.Command] = self.engine.start(self.at, self.documents, trusted=trusted)
        self.persist()
        if self.engine.phase is Phase.SWEEPING:
            self.step(events.StagingSwept(self.at))
            for recover in self.of(commands.Recover):
                self.step(events.Published(self.at, tuple(record.staged for record in recover.records)))
            self.step(events.OutputListed(self.at, tuple(self.published)))

    def step(self, event: events.Event) -> list[commands.Command]:
        given = super().step(event)
        for command in given:
            if isinstance(command, commands.Publish):
                self.published += command.records
        return given

    def restart(self, *, wiped: bool) -> None:
        """The master dies; the next one finds what was durable, or only the output."""
        if wiped:
            self.documents = {}
        self._reign(self.engine.epoch + 1, trusted=not wiped)

    def done(self) -> list[tuple[int, int]]:
        """Every row of the round that a record speaks of, as often as one does."""
        new = [record for record in self.published if record.round]
        return sorted((r.shard, row) for r in new for row in WAITING.get(r.shard, ()) if r.start <= row < r.stop)


def again(grant: Grant, stop: int | None = None, *, bad: int = 0, nonce: str = "aa") -> CommitRecord:
    made = record(grant, stop, nonce=nonce, quarantined=bad)
    retried = sum(made.start <= row < made.stop for row in WAITING.get(made.shard, ()))
    return replace(made, round=1, rows_retried=retried, rows_out=retried - bad)


@given(st.sets(st.integers(0, 30_000), min_size=1), st.integers(0, 30_000), st.integers(0, 30_000))
def test_rows_of_a_shard_are_counted(offsets: set[int], start: int, stop: int):
    shard = RetriedShard(30_001, runs(offsets))
    start, stop = min(start, stop), max(start, stop)
    assert shard.count(Rows(start, stop)) == sum(start <= offset < stop for offset in offsets)
    ranges = list(shard.ranges())
    assert sum(shard.count(each) for each in ranges) == len(shard) == len(offsets)
    assert all({first, stop - 1} <= offsets for first, stop in ranges)
    assert all(after.start - before.stop >= GAP for before, after in pairwise(ranges))


@pytest.mark.parametrize("wrong", [[Rows(3, 3)], [Rows(4, 5), Rows(1, 2)], [Rows(0, 2), Rows(2, 3)], [Rows(8, 11)]])
def test_runs_that_are_none(wrong: list[Rows]):
    with pytest.raises(ValueError, match="not in order"):
        RetriedShard(10, wrong)


def test_only_ranges_with_rows_of_the_round_are_granted():
    world = Retrying()
    granted = world.worker().ask(10).grants
    assert [(grant.shard, grant.rows) for grant in granted] == [(0, (3, 100)), (1, (0, 60)), (3, (7, 9)), (3, (19_999, 20_000))]
    assert all(grant.attempt == 1 for grant in granted)


def test_a_round_ends_when_all_of_its_rows_were_tried_again():
    world = Retrying()
    worker = world.worker()
    grants = worker.ask(10).grants
    worker.ask(commits=[again(grant, bad=grant.shard == 1) for grant in grants])
    assert world.done() == sorted((shard, row) for shard, rows in WAITING.items() for row in rows)
    totals = world.engine.meta.totals
    assert (totals.rows_done, totals.rows_quarantined, totals.rows_out) == (sum(SIZES), 1, sum(SIZES) - 1)
    assert world.engine.progress().rows_retried == 10
    assert world.engine.phase is Phase.SETTLING


def test_a_record_of_another_round_or_of_other_rows_is_refused():
    """A worker of the finished job that wakes up computes whole ranges, with the code of then."""
    world = Retrying()
    worker = world.worker()
    (grant,) = worker.ask(1).grants
    right = again(grant)
    for wrong in (record(grant, nonce="bb"), replace(right, round=2), replace(right, rows_retried=4), replace(right, round=0)):
        (outcome,) = worker.ask(commits=[wrong]).outcomes
        assert outcome.acceptance is Acceptance.REFUSED
    (outcome,) = worker.ask(commits=[right]).outcomes
    assert outcome.acceptance is Acceptance.ACCEPTED


def test_documents_of_the_finished_job_are_not_those_of_the_round():
    """An external store still holds what the last master of the job wrote there."""
    finished = World(SIZES)
    worker = finished.worker()
    worker.ask(commits=[record(grant) for grant in worker.ask(10).grants])
    assert finished.documents
    world = Retrying(documents=dict(finished.documents))
    assert world.worker().ask(1).grants[0].rows == (3, 100)


def test_rows_that_fail_again_do_not_fail_the_job():
    world = Retrying(config=EngineConfig(bad_rows=BadRowBudget(0.0, max_rows=0)))
    worker = world.worker()
    worker.ask(commits=[again(grant, bad=1) for grant in worker.ask(10).grants])
    assert world.engine.phase is Phase.SETTLING


def test_results_of_a_round_that_was_never_opened():
    engine = Engine(EngineConfig(), PlanIndex(PLAN, complete=True), 5)
    engine.start(0, None, trusted=False)
    engine.step(events.StagingSwept(0))
    late = replace(earlier()[0], start=3, stop=4, round=1, rows_retried=1)
    engine.step(events.OutputListed(0, (*earlier(), late)))
    assert engine.phase is Phase.FAILED
    assert "round 1" in engine.failure


@pytest.mark.parametrize("seed", range(60))
def test_whatever_dies_every_row_is_tried_again_once(seed: int):
    """A random life: masters that die, with their store or without, workers that die, fail, give back and come late."""
    print("seed", seed)
    dice = random.Random(seed)
    world = Retrying(config=EngineConfig(task_rows=dice.choice([None, 7, 5_000])))
    workers: list[Worker] = []
    late: list[CommitRecord] = []
    for n in range(dice.randrange(10, 60)):
        act = dice.choice(["join", "ask", "ask", "commit", "commit", "return", "fail", "silence", "die", "wipe", "late"])
        if world.engine.phase is not Phase.SERVING:
            break
        if act in ("die", "wipe"):
            world.restart(wiped=act == "wipe")
            workers = []
        elif act == "join" or not workers:
            workers.append(world.worker(f"w{n}"))
        elif act == "silence":
            world.silence(world.config.ttl_ms + 1_000)
            workers = []
        else:
            _live(dice, act, dice.choice(workers), late, str(n))
    _finish(world)
    assert world.done() == sorted((shard, row) for shard, rows in WAITING.items() for row in rows), "\n".join(map(str, world.published))
    totals = world.engine.meta.totals
    assert totals.rows_out + totals.rows_quarantined == totals.rows_done == sum(SIZES)


def _live(dice: random.Random, act: str, worker: Worker, late: list[CommitRecord], nonce: str) -> None:
    if act == "ask":
        worker.ask(dice.randrange(1, 4))
        return
    if act == "late" and late:
        # Of a worker that somebody else was given the rows of.
        outcome = worker.ask(commits=[dice.choice(late)]).outcomes[0]
        assert outcome.acceptance in (Acceptance.REFUSED, Acceptance.ACCEPTED)
        return
    held = sorted(worker.leases())
    if not held:
        return
    lease = worker.world.engine.ledger.leases[dice.choice(held)]
    grant = Grant(lease.id, lease.shard, lease.rows)
    late.append(again(grant, nonce=f"{nonce}x"))
    if act == "commit":
        stop = dice.randrange(lease.rows.start + 1, lease.rows.stop + 1)
        made = again(grant, stop, nonce=nonce)
        worker.ask(commits=[replace(made, rows_quarantined=made.rows_retried, rows_out=0) if dice.random() < 0.3 else made])
    elif act == "return":
        worker.ask(returns=[lease.id], held=[other for other in held if other != lease.id])
    else:
        worker.ask(failures=(Failure(lease.id, FailureKind.RANGE, "it died"),), held=[other for other in held if other != lease.id])


def _finish(world: Retrying) -> None:
    """Let a healthy worker do what is left."""
    world.silence(world.config.ttl_ms + 1_000)
    worker = world.worker("last")
    for n in range(500):
        if world.engine.phase is not Phase.SERVING:
            return
        grants = worker.ask(5).grants
        if grants:
            worker.ask(commits=[again(grant, nonce=f"z{n}") for grant in grants])
        else:
            world.silence(70_000)
            worker = world.worker(f"last-{n}")
    raise AssertionError("the round does not end")
