"""What is counted and told of interruptions that were mended, of workers that come back late, and of a store that was away."""

from __future__ import annotations

import pytest

from antinfer.core import events
from antinfer.core.causes import Cause
from antinfer.core.messages import AtWork, Failure, FailureKind, HeldRange, Interruption, Request, Return, Verdict
from tests.unit.core.builders import Worker, World, record, rows


def causes(world: World) -> dict[str, int]:
    return dict(world.engine.meta.causes)


def whats(world: World, shard: int = 0, row: int | None = None) -> list[str]:
    return [entry.what for entry in world.engine.story.of(shard, row)]


def tell(worker: Worker, *told: Interruption, **more: object) -> Request:
    worker.number += 1
    worker.last = Request(worker.session, worker.number, held=tuple(worker.leases()), interruptions=told, **more)  # type: ignore[arg-type]
    worker.repeat()
    return worker.last


# -- mended by the worker -----------------------------------------------------------------------------------------------------------
def test_what_a_worker_has_mended_is_counted_once_and_told_of_its_rows() -> None:
    world = World([100])
    worker = world.worker()
    grant = worker.take()
    tell(worker, Interruption(Cause.PROCESS_CRASH, detail="Segfault", ranges=(AtWork(grant.lease, rows(10, 20)),)))
    worker.repeat()
    assert causes(world) == {"process_crash": 1}
    assert whats(world, 0, 15) == ["leased", "process_crash: Segfault"] and whats(world, 0, 25) == ["leased"]
    tell(worker, Interruption(Cause.PROCESS_AGED, 7))
    assert causes(world) == {"process_crash": 1, "process_aged": 7}


def test_a_range_that_has_gone_elsewhere_has_no_such_line() -> None:
    world = World([100])
    one, two = world.worker("w1"), world.worker("w2")
    grant = one.take()
    tell(two, Interruption(Cause.GPU_OOM, ranges=(AtWork(grant.lease, grant.rows),)))
    assert causes(world) == {"gpu_oom": 1} and whats(world) == ["leased"]


def test_what_was_counted_outlives_the_master_and_is_not_counted_again_by_the_next() -> None:
    world = World([100])
    worker = world.worker()
    tell(worker, Interruption(Cause.PROCESS_LEAK))
    heir = world.fail_over()
    worker.repeat(heir)
    assert causes(heir) == {"process_leak": 1, "master_lost": 1}


# -- workers that leave -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cause", [Cause.PREEMPTED, Cause.DRAINED])
def test_rows_that_go_back_say_why(cause: Cause) -> None:
    world = World([10, 10])
    worker = world.worker()
    first, _ = worker.take(), worker.take()
    tell(worker, returns=(Return(first.lease, 4),), cause=cause)
    tell(worker, cause=cause, leaving=True)
    assert whats(world, 0) == ["leased", f"returned ({cause.value})", f"worker left ({cause.value})"]
    assert whats(world, 1) == ["leased", f"worker left ({cause.value})"]
    assert causes(world) == {cause.value: 1}


def test_a_worker_that_was_told_to_go_leaves_for_the_reason_that_the_master_knows() -> None:
    world = World([10])
    worker = world.worker("w1")
    worker.take()
    world.step(events.DrainRequested(world.at, worker.name, Cause.PREEMPTED))
    tell(worker, cause=Cause.DRAINED, leaving=True)
    assert causes(world) == {"preempted": 1} and whats(world)[-1] == "worker left (preempted)"


def test_a_worker_that_gives_up_leaves_for_what_it_gives_up_for() -> None:
    world = World([10])
    worker = world.worker()
    worker.take()
    tell(worker, failures=(Failure(None, FailureKind.STORAGE, "it keeps dying", cause=Cause.HOST_DIED),), leaving=True)
    assert causes(world) == {"host_died": 1} and whats(world)[-1] == "worker left (host_died)"


def test_a_worker_that_starts_again_under_its_name_has_lost_what_it_held() -> None:
    world = World([10])
    worker = world.worker("w1")
    worker.take()
    worker.join()
    assert causes(world) == {"worker_lost": 1} and whats(world)[-1] == "worker_lost: its worker joined again"
    worker.join()
    assert causes(world) == {"worker_lost": 1}, "it held nothing"


# -- workers that wake up late ------------------------------------------------------------------------------------------------------
def test_any_word_of_a_session_that_has_ended_counts_once() -> None:
    world = World([10, 10])
    late = world.worker("w1")
    grant = late.take()
    world.silence(world.config.ttl_ms + 400)
    assert causes(world) == {"node_lost": 1}
    late.beat(held=[grant.lease])
    late.beat(held=[grant.lease])
    assert late.ask(commits=[record(grant)], held=[grant.lease]).verdict is Verdict.UNKNOWN_SESSION
    assert causes(world) == {"node_lost": 1, "woke_late": 1}
    assert whats(world)[-1] == "commit refused (woke_late: its session had ended)"


def test_a_range_that_others_have_had_since_is_not_granted_again_and_says_so() -> None:
    world = World([10])
    late = world.worker("w1")
    grant = late.take()
    world.silence(world.config.ttl_ms + 400)
    heir = world.worker("w2")
    heir.ask(commits=[record(heir.take(), 5)])
    late.join((HeldRange(grant.lease, grant.shard, grant.rows),))
    assert whats(world)[-1] == "woke_late: not granted again"


def test_a_commit_under_a_lease_that_was_taken_away_is_late_and_one_that_was_overtaken_is_not() -> None:
    world = World([10, 10])
    worker = world.worker("w1")
    grant = worker.take()
    tell(worker, returns=(Return(grant.lease),))
    worker.ask(commits=[record(grant)])
    assert causes(world) == {"woke_late": 1} and whats(world)[-1] == "commit refused (woke_late: its lease had ended)"


def test_sessions_that_went_with_their_store_have_not_woken_late() -> None:
    world = World([10])
    worker = world.worker("w1")
    heir = world.fail_over(trusted=False)
    heir.step(events.StagingSwept(heir.at))
    heir.step(events.OutputListed(heir.at, ()))
    worker.world = heir
    worker.beat(held=[], answered=0)
    assert causes(heir) == {}


# -- the store ----------------------------------------------------------------------------------------------------------------------
def test_a_store_that_was_away_is_counted_at_once() -> None:
    world = World([10])
    world.step(events.InterruptionSeen(world.at, Cause.STORE_LOST, "connection refused"))
    assert causes(world) == {"store_lost": 1}
    assert causes(world.fail_over()) == {"store_lost": 1}, "it is durable"


def test_a_loss_that_was_told_is_not_counted_again_by_what_follows_from_it() -> None:
    world = World([10])
    worker = world.worker()
    kept = record(worker.take(), 5)
    worker.ask(commits=[kept])
    for told in (False, True):
        heir = world.fail_over(trusted=False)
        if told:
            heir.step(events.InterruptionSeen(heir.at, Cause.STORE_LOST, "wiped"))
            heir.step(events.InterruptionSeen(heir.at, Cause.GPU_OOM, "counted before", 3))
        heir.step(events.StagingSwept(heir.at))
        heir.step(events.Published(heir.at, (kept.staged,)))
        heir.step(events.OutputListed(heir.at, (kept,)))
        assert causes(heir) == ({"store_lost": 1, "gpu_oom": 3} if told else {"store_lost": 1})
