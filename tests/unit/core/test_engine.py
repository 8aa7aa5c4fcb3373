"""The engine, one operation of DESIGN section 3 at a time. Whole-system behaviour is in ``tests/sim``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from antinfer.core import commands, documents, events
from antinfer.core.budgets import BadRowBudget
from antinfer.core.config import EngineConfig
from antinfer.core.engine import Phase
from antinfer.core.ids import LeaseId, ShardId, WorkerId
from antinfer.core.messages import Acceptance, Commit, Failure, FailureKind, HeldRange, Push, Sizing, Verdict
from antinfer.core.ranges import UNSIZED
from tests.unit.core.builders import World, record, rows


def accepted(answer):
    return [outcome.acceptance for outcome in answer.outcomes]


def finish(world: World) -> None:
    """Do what a perfect shell would do until the job is over."""
    done = 0
    while done < len(world.commands):
        command = world.commands[done]
        done += 1
        match command:
            case commands.Publish(records):
                world.step(events.Published(world.at, tuple(each.staged for each in records)))
            case commands.Flush(records):
                world.step(events.Flushed(world.at, tuple(each.staged for each in records)))
            case commands.ListStaging():
                world.step(events.StagingListed(world.at, ()))
            case commands.AuditOutput():
                world.step(events.OutputAudited(world.at, ()))
            case commands.Seal():
                world.step(events.Sealed(world.at))


# -- leasing and committing ---------------------------------------------------------------------------------------------------------
def test_a_job_runs_to_its_seal():
    world = World([10, 0, 5])
    worker = world.worker()
    first, second = worker.ask(2).grants
    answer = worker.ask(commits=[record(first), record(second)])
    assert accepted(answer) == [Acceptance.ACCEPTED] * 2
    assert answer.verdict is Verdict.DONE
    finish(world)
    assert world.engine.phase is Phase.DONE
    assert world.engine.progress().rows_done == 15
    assert not [key for key in world.documents if key.startswith(("s:", "r:"))], "finished work leaves no document"


def test_a_prefix_commit_leaves_the_rest_leased():
    world = World([10])
    worker = world.worker()
    grant = worker.take()
    (outcome,) = worker.ask(commits=[record(grant, 4)]).outcomes
    assert outcome.acceptance is Acceptance.ACCEPTED
    assert outcome.left == rows(4, 10)
    (outcome,) = worker.ask(commits=[record(grant, start=4)]).outcomes
    assert outcome.left is None
    assert world.engine.ledger.is_complete


def test_a_prefix_out_of_order_is_asked_for_again_not_refused():
    worker = World([10]).worker()
    grant = worker.take()
    (outcome,) = worker.ask(commits=[record(grant, start=4)]).outcomes
    assert outcome.acceptance is Acceptance.RETRY


def test_tasks_are_cut_to_size_and_the_reader_of_a_shard_keeps_it():
    world = World([10, 10], config=EngineConfig(task_rows=4))
    one, two = world.worker("w1"), world.worker("w2")
    first = one.take()
    other = two.take()
    assert (first.shard, first.rows, other.shard) == (0, rows(0, 4), 1)
    second = one.ask(1, commits=[record(first)]).grants[0]
    assert (second.shard, second.rows) == (0, rows(4, 8))


def test_returned_rows_go_to_the_head_of_the_queue():
    world = World([5, 5, 5])
    worker = world.worker()
    first, _ = worker.ask(2).grants
    again = worker.ask(1, returns=[first.lease]).grants[0]
    assert (again.shard, again.attempt) == (first.shard, 2)


def test_several_returns_come_back_in_plan_order():
    world = World([5, 5, 5])
    worker = world.worker()
    worker.ask(3)
    worker.ask(leaving=True)
    grants = world.worker("w2").ask(3).grants
    assert [grant.shard for grant in grants] == [0, 1, 2]


# -- idempotence --------------------------------------------------------------------------------------------------------------------
def test_a_repeated_request_gets_the_first_answer():
    world = World([5, 5, 5])
    worker = world.worker()
    first = worker.ask(2)
    assert worker.repeat() == first
    assert len(world.engine.ledger.leases) == 2


def test_a_repeat_gets_the_first_answer_from_the_next_master():
    world = World([5, 5, 5])
    worker = world.worker()
    grant = worker.take()
    first = worker.ask(1, commits=[record(grant)])
    heir = world.fail_over()
    again = worker.repeat(heir)
    assert again.grants == first.grants
    assert accepted(again) == [Acceptance.ACCEPTED]
    assert heir.engine.progress().rows_done == 5


def test_a_late_duplicate_of_an_older_request_changes_nothing():
    world = World([5, 5, 5])
    worker = world.worker()
    worker.ask(1)
    old = worker.last
    worker.ask(1)
    before = dict(world.documents)
    assert world.step(events.Requested(world.at, worker.stream, old)) == []
    assert world.documents == before


def test_a_repeated_commit_is_known_by_its_staged_name_after_its_lease_is_gone():
    world = World([5, 5])
    worker = world.worker()
    done = record(worker.take())
    worker.ask(commits=[done])
    assert accepted(worker.ask(commits=[done])) == [Acceptance.ACCEPTED]
    assert world.engine.progress().rows_done == 5


# -- fencing ------------------------------------------------------------------------------------------------------------------------
def test_a_zombie_is_refused_and_its_rows_are_done_by_another():
    world = World([5])
    zombie = world.worker("w1")
    stale = record(zombie.take())
    world.silence(11_000)
    fresh = record(world.worker("w2").take())
    answer = zombie.ask(commits=[stale])
    assert answer.verdict is Verdict.UNKNOWN_SESSION
    zombie.join()
    assert accepted(zombie.ask(commits=[stale])) == [Acceptance.REFUSED]
    assert fresh.staged != stale.staged


def test_a_commit_staged_under_another_lease_is_refused():
    world = World([5, 5])
    worker = world.worker()
    first, second = worker.ask(2).grants
    (outcome,) = worker.ask(commits=[Commit(second.lease, replace(record(second), staged=record(first).staged))]).outcomes
    assert (outcome.acceptance, outcome.left) == (Acceptance.REFUSED, second.rows)
    assert not world.engine.publications.records


def test_a_commit_of_what_another_session_holds_is_refused():
    world = World([5, 5])
    grant = world.worker("w1").take()
    (outcome,) = world.worker("w2").ask(commits=[record(grant)]).outcomes
    assert (outcome.acceptance, outcome.left) == (Acceptance.REFUSED, None)
    assert not world.engine.publications.records


@pytest.mark.parametrize(("ms", "survives"), [(800, True), (1_200, False)], ids=["within the grace", "after it"])
def test_a_broken_stream_leaves_the_grace_period(ms, survives):
    world = World([5])
    worker = world.worker()
    worker.take()
    world.step(events.StreamBroken(world.at, worker.stream))
    world.silence(ms)
    assert bool(world.engine.ledger.leases) is survives


def test_a_master_that_slept_gives_everybody_a_fresh_time_to_live():
    world = World([5])
    worker = world.worker()
    worker.take()
    world.tick(60_000)
    assert world.engine.ledger.leases, "it was the master that was silent"
    world.silence(11_000)
    assert not world.engine.ledger.leases


def test_a_lease_whose_answer_was_lost_comes_back_by_heart_beat():
    world = World([5])
    worker = world.worker()
    worker.take()
    worker.beat(held=[], answered=0)
    assert world.engine.ledger.leases, "the answer may still be on its way"
    worker.beat(held=[], answered=1)
    assert not world.engine.ledger.leases


def test_a_worker_that_joins_again_keeps_what_nobody_touched():
    world = World([10, 5])
    worker = world.worker()
    kept, lost = worker.ask(2).grants
    worker.ask(commits=[record(kept, 4)])
    held = (HeldRange(kept.lease, kept.shard, rows(4, 10)), HeldRange(lost.lease, lost.shard, lost.rows))
    world.silence(11_000)
    assert world.worker("w2").take().shard == kept.shard
    welcome = worker.join(held)
    assert [(grant.shard, grant.rows) for grant in welcome.regranted] == [(lost.shard, lost.rows)]
    assert welcome.regranted[0].lease > lost.lease


# -- unsized shards -----------------------------------------------------------------------------------------------------------------
def test_an_unsized_shard_is_leased_open_ended_committed_by_prefix_and_sized_at_its_end():
    world = World([None])
    worker = world.worker()
    grant = worker.take()
    assert grant.rows == rows(0, UNSIZED)
    worker.ask(commits=[record(grant, 4)])
    assert not world.engine.ledger.is_complete
    worker.ask(sizings=(Sizing(grant.lease, 7),), commits=[record(grant, 7, start=4)])
    assert world.engine.ledger.is_complete


def test_a_shard_that_ends_where_the_last_prefix_ended_needs_no_empty_commit():
    world = World([None])
    worker = world.worker()
    grant = worker.take()
    worker.ask(commits=[record(grant, 4)])
    assert worker.ask(sizings=(Sizing(grant.lease, 4),)).verdict is Verdict.DONE


def test_two_sizes_of_one_shard_fail_the_job():
    world = World([None])
    worker = world.worker()
    grant = worker.take()
    worker.ask(sizings=(Sizing(grant.lease, 7),))
    answer = worker.ask(sizings=(Sizing(grant.lease, 8),))
    assert answer.verdict is Verdict.FAILED
    assert "input changed" in answer.reason


# -- the tail -----------------------------------------------------------------------------------------------------------------------
def test_a_second_copy_first_commit_wins_and_the_loser_is_told():
    world = World([10], config=EngineConfig(copy_after_ms=5_000, ttl_ms=60_000))
    slow, quick = world.worker("slow"), world.worker("quick")
    first = slow.take()
    assert quick.ask(1).verdict is Verdict.WAIT
    world.silence(6_000)
    assert [sent.message for sent in world.of(commands.Send) if sent.stream == quick.stream][-1] == Push(verdict=Verdict.WORK)
    copy = quick.take()
    assert copy.rows == first.rows
    quick.ask(commits=[record(copy, 6)])
    pushes = [sent.message for sent in world.of(commands.Send) if sent.stream == slow.stream and isinstance(sent.message, Push)]
    cut = [cut for push in pushes for cut in push.cuts]
    assert (cut[-1].lease, cut[-1].rows) == (first.lease, rows(6, 10))
    (outcome,) = slow.ask(commits=[record(first)]).outcomes
    assert (outcome.acceptance, outcome.left) == (Acceptance.REFUSED, rows(6, 10))


def test_rows_of_two_leases_become_pending_only_when_the_last_one_ends():
    world = World([10], config=EngineConfig(copy_after_ms=1_000, ttl_ms=60_000))
    one, two = world.worker("w1"), world.worker("w2")
    first = one.take()
    two.ask(1)
    world.silence(2_000)
    copy = two.take()
    one.ask(returns=[first.lease])
    assert not list(world.engine.ledger.pending())
    two.ask(returns=[copy.lease])
    assert [pending.rows for _, pending in world.engine.ledger.pending()] == [rows(0, 10)]


def test_a_worker_that_hoards_is_asked_to_yield_when_another_starves():
    world = World([5, 5])
    hoarder, hungry = world.worker("w1"), world.worker("w2")
    _, last = hoarder.ask(2).grants
    assert hungry.ask(1).verdict is Verdict.WAIT
    world.tick(200)
    assert hoarder.world.of(commands.Send)[-1].message.yields[0].lease == last.lease
    hoarder.ask(returns=[last.lease])
    assert world.of(commands.Send)[-2].message.verdict is Verdict.WORK, "the starving one is nudged"
    assert hungry.take().shard == last.shard


def test_a_worker_that_only_wants_to_read_ahead_takes_nothing_from_anybody():
    world = World([5, 5])
    worker = world.worker("w1")
    worker.ask(2)
    assert worker.ask(1).verdict is Verdict.WAIT
    before = len(world.commands)
    world.silence(2_000)
    assert world.commands[before:] == []


# -- failures -----------------------------------------------------------------------------------------------------------------------
def test_a_range_that_keeps_failing_is_split_until_the_row_is_alone_and_then_quarantined():
    world = World([8])
    worker = world.worker()
    poison, grants, seen = 5, [], set()
    for _ in range(40):
        answer = worker.ask(1, **_verdicts(grants, poison))
        grants = list(answer.grants)
        seen |= {grant.rows for grant in grants if grant.quarantine}
        if answer.verdict is Verdict.DONE:
            break
    assert world.engine.ledger.is_complete
    assert seen == {rows(5, 6)}


def _verdicts(grants, poison):
    bad = [g for g in grants if g.rows.start <= poison < g.rows.stop and not g.quarantine]
    good = [record(g, quarantined=1 if g.quarantine else 0) for g in grants if g not in bad]
    return {"commits": good, "failures": tuple(Failure(g.lease, FailureKind.RANGE, "killed") for g in bad), "held": []}


def test_storage_trouble_rests_the_range_and_does_not_split_it():
    world = World([8, 8])
    worker = world.worker()
    first = worker.take()
    other = worker.ask(1, failures=(Failure(first.lease, FailureKind.STORAGE, "no route"),)).grants[0]
    assert other.shard != first.shard
    assert worker.ask(1).verdict is Verdict.WAIT
    world.silence(1_400)
    again = worker.take()
    assert (again.shard, again.rows) == (first.shard, first.rows)


def test_a_fatal_failure_ends_the_job_for_everybody_with_the_users_traceback():
    world = World([5, 5])
    one, two = world.worker("w1"), world.worker("w2")
    one.take()
    answer = one.ask(failures=(Failure(None, FailureKind.FATAL, "no module named nets", "Traceback ..."),))
    assert answer.verdict is Verdict.FAILED
    assert two.ask(1).verdict is Verdict.FAILED
    assert world.of(commands.GiveUp) == [commands.GiveUp("no module named nets", "Traceback ...")]


def test_workers_that_give_up_one_after_the_other_end_the_job():
    world = World([5, 5], config=EngineConfig(worker_failures=3))
    lost = Failure(None, FailureKind.STORAGE, "the stage host keeps dying")
    survivor = world.worker("w0")
    grant = survivor.take()
    for name in ("w1", "w2"):
        world.worker(name).ask(failures=(lost,), leaving=True)
    survivor.ask(commits=[record(grant, 2)])
    for name in ("w3", "w4"):
        world.worker(name).ask(failures=(lost,), leaving=True)
    assert world.engine.phase is Phase.SERVING, "a commit between shows that it can be done"
    world.worker("w5").ask(failures=(lost,), leaving=True)
    assert world.engine.phase is Phase.FAILED
    assert "keeps dying" in world.of(commands.GiveUp)[0].reason


def test_another_output_schema_is_a_user_error():
    world = World([5, 5])
    worker = world.worker()
    first, second = worker.ask(2).grants
    answer = worker.ask(commits=[record(first), record(second, schema="t")])
    assert accepted(answer) == [Acceptance.ACCEPTED, Acceptance.REFUSED]
    assert answer.verdict is Verdict.FAILED
    assert "schema" in answer.reason


@pytest.mark.parametrize(("allowed", "phase"), [(0.1, Phase.SETTLING), (0.0, Phase.FAILED)], ids=["within budget", "over budget"])
def test_the_share_of_bad_rows_is_judged_at_the_latest_at_the_end(allowed, phase):
    world = World([10], config=EngineConfig(bad_rows=BadRowBudget(max_fraction=allowed)))
    worker = world.worker()
    worker.ask(commits=[record(worker.take(), quarantined=1)])
    assert world.engine.phase is phase


def test_a_drained_worker_gets_nothing_more():
    world = World([5, 5])
    worker = world.worker("w1")
    grant = worker.take()
    world.step(events.DrainRequested(world.at, WorkerId("w1")))
    answer = worker.ask(1, returns=[grant.lease])
    assert (answer.verdict, answer.grants) == (Verdict.DRAIN, ())
    assert world.worker("w2").take().shard == grant.shard


# -- the plan streams ---------------------------------------------------------------------------------------------------------------
def test_leasing_starts_with_the_first_chunk_and_the_job_ends_with_the_last():
    world = World([5], complete=False)
    worker = world.worker()
    answer = worker.ask(1, commits=[record(worker.take())])
    assert answer.verdict is Verdict.WAIT
    world.step(events.PlanExtended(world.at, (6,)))
    assert worker.ask(1).grants[0].rows == rows(0, 6)
    assert world.engine.phase is Phase.SERVING


def test_an_empty_data_set_is_a_complete_job():
    world = World([], complete=False)
    world.step(events.PlanCompleted(world.at))
    finish(world)
    assert world.engine.phase is Phase.DONE


# -- fail-over and rebuilding -------------------------------------------------------------------------------------------------------
def test_the_next_master_goes_on_where_the_last_durable_step_left_off():
    world = World([10, 5, 5])
    worker = world.worker()
    first, second = worker.ask(2).grants
    worker.ask(commits=[record(first, 4)])
    heir = world.fail_over()
    assert [command for command in heir.commands if isinstance(command, commands.Publish)], "publication rolls forward"
    worker.world = heir
    assert accepted(worker.ask(commits=[record(first, start=4), record(second)])) == [Acceptance.ACCEPTED] * 2
    assert worker.take().lease.epoch == 2


def test_after_the_loss_of_the_store_the_output_decides():
    world = World([10, 5, 5])
    worker = world.worker()
    first, second = worker.ask(2).grants
    flushed, published = record(first, 4), record(second)
    worker.ask(commits=[flushed, published])
    heir = world.fail_over(trusted=False)
    (sweep,) = heir.of(commands.SweepStaging)
    assert heir.commands == [sweep] and set(sweep.keep) == {flushed.staged, published.staged}
    heir.step(events.StagingSwept(0))
    assert heir.engine.phase is Phase.RECOVERING
    (recover,) = heir.of(commands.Recover)
    assert {each.staged for each in recover.records} == set(sweep.keep), "only now can no other store's master publish the same rows"
    heir.step(events.Published(0, (flushed.staged,), missing=(published.staged,)))
    assert isinstance(heir.commands[-1], commands.ListOutput)
    heir.step(events.OutputListed(0, (flushed, flushed), unflushed=(flushed,)))
    assert heir.engine.progress().rows_done == 4
    assert heir.worker("w2").ask(3).grants[0].rows == rows(4, 10)
    assert f"{documents.RECORD}{flushed.staged}" in heir.documents
    assert f"{documents.RECORD}{published.staged}" not in heir.documents


def test_a_lost_acknowledged_result_stops_the_job_loudly():
    world = World([10])
    worker = world.worker()
    done = record(worker.take())
    worker.ask(commits=[done])
    world.step(events.Published(world.at, (), missing=(done.staged,)))
    assert world.engine.phase is Phase.FAILED


def test_nothing_is_granted_before_the_output_is_read():
    world = World([5])
    heir = world.fail_over(trusted=False)
    assert heir.worker().welcome.verdict is Verdict.NOT_MASTER


def test_staging_is_collected_only_where_the_lease_is_known_to_be_closed():
    world = World([5, 5])
    worker = world.worker()
    standing, gone = worker.ask(2).grants
    worker.ask(returns=[gone.lease])
    leases = (standing.lease, gone.lease, LeaseId(1, 99), LeaseId(2, 1))
    names = (*(f"{lease}.0.0-5.aa" for lease in leases), "not ours")
    world.step(events.StagingListed(world.at, names))
    assert world.of(commands.Collect) == [commands.Collect((f"{gone.lease}.0.0-5.aa",))]


def test_documents_survive_the_round_trip():
    world = World([10, None, 5], config=EngineConfig(task_rows=4))
    worker = world.worker()
    first, *_ = worker.ask(4).grants
    worker.ask(commits=[record(first, 2)], returns=[first.lease])
    heir = world.fail_over()
    assert _without_times(heir) == _without_times(world)
    assert heir.engine.meta.totals == world.engine.meta.totals


def _without_times(world):
    return {key: documents.encode_shard(shard) for key, shard in world.engine.ledger.open.items()}


def test_a_worker_keeps_its_work_when_the_rebuilt_ledger_has_not_got_to_its_shard():
    world = World([10, 5, 5])
    grants = world.worker().ask(3).grants
    heir = world.fail_over(trusted=False)
    heir.step(events.StagingSwept(0))
    heir.step(events.OutputListed(0, ()))
    held = HeldRange(grants[1].lease, grants[1].shard, grants[1].rows)
    nowhere = HeldRange(grants[2].lease, ShardId(7), grants[2].rows)
    welcome = heir.worker(held=(held, nowhere)).welcome
    assert [(grant.shard, grant.rows) for grant in welcome.regranted] == [(held.shard, held.rows)]
    assert heir.worker("w2").take(3).shard == 2
