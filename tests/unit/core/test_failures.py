"""Who pays for what fails, in virtual time."""

from __future__ import annotations

import pytest

from antinfer.core import commands, events
from antinfer.core.budgets import BadRowBudget, StorageBudget, WorkerBudget, backoff_ms
from antinfer.core.causes import Cause
from antinfer.core.config import EngineConfig
from antinfer.core.engine import Phase
from antinfer.core.messages import Failure, FailureKind, Heartbeat, Push, Sizing, Verdict
from antinfer.core.ranges import UNSIZED
from tests.unit.core.builders import Worker, World, record, rows

NO_MODULE = Failure(None, FailureKind.FATAL, "No module named 'nets' (process 4711)", "Traceback ...")


def causes(world: World) -> dict[str, int]:
    return dict(world.engine.meta.causes)


def break_off(world: World, worker: Worker) -> None:
    """The worker is killed: its connection ends, and it does not come back."""
    world.step(events.StreamBroken(world.at, worker.stream))
    world.silence(1_400)


# -- pauses -------------------------------------------------------------------------------------------------------------------------
def test_pauses_double_up_to_a_limit_and_spread_by_a_quarter() -> None:
    spread = {backoff_ms(1_000, 60_000, 1, shard) for shard in range(200)}
    assert min(spread) >= 750 and max(spread) <= 1_250 and len(spread) > 100
    means = [sum(backoff_ms(1_000, 60_000, n, shard) for shard in range(200)) / 200 for n in (1, 2, 3, 10, 200)]
    assert means == pytest.approx([1_000, 2_000, 4_000, 60_000, 60_000], rel=0.05)
    assert backoff_ms(1_000, 60_000, 3, "a") == backoff_ms(1_000, 60_000, 3, "a"), "a replay decides the same"


# -- start errors -------------------------------------------------------------------------------------------------------------------
def test_the_only_worker_that_cannot_start_fails_the_job_at_once_with_the_users_traceback() -> None:
    world = World([5])
    answer = world.worker().ask(failures=(NO_MODULE,), leaving=False)
    assert answer.verdict is Verdict.FAILED
    assert world.of(commands.GiveUp) == [commands.GiveUp(NO_MODULE.error, "Traceback ...")]
    assert causes(world) == {"start_error": 1}


def test_the_same_error_on_a_second_worker_fails_the_job_although_others_still_start() -> None:
    world = World([5])
    one, two, _ = world.worker("w1"), world.worker("w2"), world.worker("w3")
    assert one.ask(failures=(NO_MODULE,), leaving=True).verdict is Verdict.DRAIN
    assert world.engine.phase is Phase.SERVING
    elsewhere = Failure(None, FailureKind.FATAL, "No module named 'nets' (process 99)", "Traceback of two")
    assert two.ask(failures=(elsewhere,)).verdict is Verdict.FAILED
    assert world.of(commands.GiveUp) == [commands.GiveUp(elsewhere.error, "Traceback of two")]


def test_a_worker_that_cannot_start_does_not_stop_those_that_can() -> None:
    world = World([5])
    fit, broken = world.worker("w1"), world.worker("w2")
    grant = fit.take()
    assert broken.ask(failures=(NO_MODULE,), leaving=True).verdict is Verdict.DRAIN
    assert fit.ask(commits=[record(grant)]).verdict is Verdict.DONE


def test_a_worker_that_tries_to_start_again_and_again_ends_a_job_in_which_nobody_else_works() -> None:
    world = World([5, 5])
    first = world.worker("w1")
    first.ask(commits=[record(first.take())])
    first.ask(leaving=True)
    for n in range(3):
        assert world.engine.phase is Phase.SERVING, n
        world.worker("w2").ask(failures=(NO_MODULE,), leaving=True)
    assert world.engine.phase is Phase.FAILED


def test_starts_that_failed_before_a_commit_are_no_proof_when_the_worker_that_can_is_away() -> None:
    world = World([5, 5])
    fit = world.worker("w1")
    first = fit.take()
    for _ in range(5):
        world.worker("w2").ask(failures=(NO_MODULE,), leaving=True)
    fit.ask(commits=[record(first)])
    fit.ask(leaving=True)
    for n in range(2):
        world.worker("w2").ask(failures=(NO_MODULE,), leaving=True)
        assert world.engine.phase is Phase.SERVING, n
    back = world.worker("w1")
    assert back.ask(commits=[record(back.take())]).verdict is Verdict.DONE


def test_a_user_error_after_the_start_fails_the_job_at_once() -> None:
    world = World([5, 5])
    one, two = world.worker("w1"), world.worker("w2")
    one.take()
    two.take()
    assert one.ask(failures=(NO_MODULE,)).verdict is Verdict.FAILED
    assert causes(world) == {"user_error": 1}


def test_a_node_that_breaks_while_it_works_does_not_end_a_job_that_others_do() -> None:
    world = World([5, 5])
    one, two = world.worker("w1"), world.worker("w2")
    one.take()
    grant = two.take()
    again = Failure(None, FailureKind.FATAL, "no CUDA device", cause=Cause.START_ERROR)
    assert one.ask(failures=(again,), leaving=True).verdict is Verdict.DRAIN
    assert two.ask(commits=[record(grant)]).verdict is Verdict.WORK
    assert causes(world) == {"start_error": 1}


def test_a_broken_node_does_not_end_a_job_that_another_master_took_over() -> None:
    world = World([100] * 3)
    fit = world.worker("fit")
    fit.ask(commits=[record(fit.take(), 10)])
    heir = world.fail_over()
    for _ in range(4):
        heir.worker("broken").ask(failures=(NO_MODULE,), leaving=True)
    assert heir.engine.phase is Phase.SERVING


# -- workers that give up -----------------------------------------------------------------------------------------------------------
NO_MEMORY = Failure(None, FailureKind.STORAGE, "the stage host dies", cause=Cause.HOST_DIED)


def test_a_report_that_is_repeated_counts_once() -> None:
    world = World([8, 8], config=EngineConfig(worker_failures=2))
    world.worker("w1").ask(failures=(NO_MEMORY,), leaving=True)
    unlucky = world.worker("w2")
    unlucky.ask(failures=(NO_MEMORY,))
    for _ in range(5):
        unlucky.repeat()
    assert world.engine.phase is Phase.SERVING
    assert causes(world)["host_died"] == 2


def test_a_worker_that_reports_again_because_its_answer_was_lost_counts_once() -> None:
    world = World([8, 8], config=EngineConfig(worker_failures=2))
    for _ in range(5):
        world.worker("w1").ask(failures=(NO_MEMORY,), leaving=True)
    assert world.engine.phase is Phase.SERVING
    world.worker("w2").ask(failures=(NO_MEMORY,), leaving=True)
    assert world.engine.phase is Phase.FAILED


def test_workers_that_give_up_do_not_end_a_job_in_which_others_get_on() -> None:
    world = World([1_000] * 2, config=EngineConfig(worker_failures=3))
    fit = world.worker("fit")
    grant = fit.take()
    for n in range(20):
        world.worker(f"w{n}").ask(failures=(NO_MEMORY,), leaving=True)
        world.silence(1_000)
        world.step(events.HeartbeatSeen(world.at, fit.stream, Heartbeat(fit.session, (grant.lease,), fit.number, (n + 1,))))
    assert world.engine.phase is Phase.SERVING


@pytest.mark.parametrize("failure", [NO_MODULE, NO_MEMORY])
def test_once_every_row_is_committed_no_failure_matters(failure: Failure) -> None:
    world = World([8], config=EngineConfig(worker_failures=1))
    worker, late = world.worker("w1"), world.worker("w2")
    grant = worker.take()
    assert worker.ask(commits=[record(grant)]).verdict is Verdict.DONE
    assert late.ask(failures=(failure, Failure(grant.lease, FailureKind.FATAL, "no such column")), leaving=True).verdict is Verdict.DRAIN
    assert world.engine.phase is Phase.SETTLING
    assert world.engine.failure == ""


def test_what_a_worker_says_of_rows_that_are_anothers_fails_nothing() -> None:
    world = World([8])
    former, worker = world.worker("w1"), world.worker("w2")
    grant = former.take()
    former.ask(returns=[grant.lease])
    worker.take()
    former.ask(failures=(Failure(grant.lease, FailureKind.FATAL, "no such column"),))
    assert world.engine.phase is Phase.SERVING


def test_the_worker_that_commits_the_last_row_hears_that_too_many_are_bad() -> None:
    world = World([8], config=EngineConfig(bad_rows=BadRowBudget(max_fraction=0.5)))
    worker = world.worker()
    assert worker.ask(commits=[record(worker.take(), quarantined=5)]).verdict is Verdict.FAILED


# -- ranges -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [FailureKind.RANGE, FailureKind.STORAGE])
def test_a_range_that_failed_moves_to_another_worker(kind: FailureKind) -> None:
    world = World([8], config=EngineConfig(storage=StorageBudget(first_ms=1)))
    one, two = world.worker("w1"), world.worker("w2")
    grant = one.take()
    assert one.ask(1, failures=(Failure(grant.lease, kind, "broken pipe"),)).verdict is Verdict.WAIT
    world.tick(200)
    assert one.ask(1).grants == ()
    assert two.take().rows == grant.rows


def test_a_range_that_failed_comes_back_when_nobody_else_takes_it() -> None:
    world = World([8, 100], config=EngineConfig(elsewhere_ms=2_000))
    one, two = world.worker("w1"), world.worker("w2")
    grant, _ = one.take(), two.take()
    one.ask(1, failures=(Failure(grant.lease, FailureKind.RANGE, "segmentation fault"),))
    world.silence(1_800)
    assert one.ask(1).grants == ()
    world.silence(400)
    assert one.take().rows == grant.rows


def test_a_lonely_worker_gets_its_failed_range_again_at_once() -> None:
    world = World([8])
    worker = world.worker()
    grant = worker.take()
    assert worker.ask(1, failures=(Failure(grant.lease, FailureKind.RANGE, "killed"),)).grants[0].rows == grant.rows


def test_a_lonely_worker_rests_before_it_gets_a_range_that_fails_again_and_again() -> None:
    world = World([1])
    worker, budget = world.worker(), world.config.ranges
    grant, rests = worker.take(), []
    for _ in range(budget.quarantine_after):
        worker.ask(failures=(Failure(grant.lease, FailureKind.RANGE, "killed"),))
        failed_at = world.at
        while not (grants := worker.ask(1).grants):
            world.tick(1)
        grant = grants[0]
        rests.append(world.at - failed_at)
    assert rests == [0, *(backoff_ms(budget.first_ms, budget.longest_ms, failures, 0, 0) for failures in (1, 2))]
    assert grant.quarantine


def test_another_worker_gets_a_range_at_once_however_often_it_failed() -> None:
    world = World([1])
    one, two = world.worker("w1"), world.worker("w2")
    for holder, other in ((one, two), (two, one), (one, two)):
        holder.ask(failures=(Failure(holder.take().lease, FailureKind.RANGE, "killed"),))
        assert holder.ask(1).grants == ()
        other.ask(returns=[other.take().lease])


def test_storage_that_fails_for_long_ends_the_job_but_preemptions_do_not_count() -> None:
    world = World([8], config=EngineConfig(storage_attempts=3, storage=StorageBudget(first_ms=1, longest_ms=1)))
    for n in range(9):
        spot = world.worker(f"spot-{n}")
        spot.take()
        spot.ask(leaving=True)
    worker = world.worker("w1")
    for tried in range(3):
        assert world.engine.phase is Phase.SERVING, tried
        world.tick(200)
        worker.ask(failures=(Failure(worker.take().lease, FailureKind.STORAGE, "no route"),))
    assert world.of(commands.GiveUp)[0].reason == "no route (tried 3 times)"


def test_a_worker_names_the_cause_where_it_knows_more() -> None:
    world = World([8, 8, 8])
    worker = world.worker()
    one, two, three = worker.ask(3).grants
    worker.ask(
        failures=(
            Failure(one.lease, FailureKind.STORAGE, "no space left", cause=Cause.DISK_FULL),
            Failure(two.lease, FailureKind.RANGE, "killed", cause=Cause.OUT_OF_MEMORY),
            Failure(three.lease, FailureKind.RANGE, "killed"),
        )
    )
    assert causes(world) == {"disk_full": 1, "out_of_memory": 1, "process_crash": 1}
    assert world.engine.counters()["cause_disk_full"] == 1


# -- workers that are lost ----------------------------------------------------------------------------------------------------------
def test_a_killed_workers_ranges_are_leased_again_within_two_seconds() -> None:
    world = World([8, 8])
    killed, other = world.worker("w1"), world.worker("w2")
    lost = killed.take()
    other.take()
    assert other.ask(1).verdict is Verdict.WAIT
    world.step(events.StreamBroken(world.at, killed.stream))
    began = world.at
    while commands.Send(other.stream, Push(verdict=Verdict.WORK)) not in world.commands:
        world.tick(200)
        assert world.at - began < 1_500
    assert other.take().rows == lost.rows
    assert causes(world) == {"worker_lost": 1}


def test_silence_and_broken_connections_are_told_apart() -> None:
    world = World([8, 8])
    silent, broken = world.worker("w1"), world.worker("w2")
    silent.take()
    broken.take()
    world.step(events.StreamBroken(world.at, broken.stream))
    world.silence(world.config.ttl_ms + 400)
    assert causes(world) == {"worker_lost": 1, "node_lost": 1}


def test_what_is_preempted_any_number_of_times_is_never_quarantined() -> None:
    """With notice: nothing is anybody's fault."""
    world = World([1])
    for n in range(50):
        spot = world.worker(f"spot-{n}")
        assert spot.take().quarantine == ""
        spot.ask(leaving=True)
    assert causes(world) == {"drained": 50}


def test_a_row_that_is_lost_with_worker_after_worker_is_given_up_in_the_end() -> None:
    world = World([64])
    poison, seen, n = 21, [], 0
    while not world.engine.ledger.is_complete:
        n += 1
        assert n < 100
        worker = world.worker(f"w{n}")
        grant = worker.take()
        while grant.quarantine or not grant.rows.start <= poison < grant.rows.stop:
            seen += [grant.rows] if grant.quarantine else []
            answer = worker.ask(1, commits=[record(grant)])
            if answer.verdict is Verdict.DONE:
                break
            grant = answer.grants[0]
        else:
            break_off(world, worker)
    assert seen == [rows(poison, poison + 1)]
    assert n > world.config.ranges.losses_after, "nodes that are taken away look like this too"


def test_a_row_that_kills_is_found_in_a_shard_that_nobody_has_counted() -> None:
    world = World([None])
    poison, size, seen, lost = 1_700, 3_000, [], 0
    while not world.engine.ledger.is_complete:
        worker = world.worker(f"w{lost}")
        while grants := worker.ask(1).grants:
            (grant,) = grants
            if grant.quarantine:
                seen.append(grant.rows)
            elif grant.rows.start <= poison < grant.rows.stop:
                lost += 1
                assert lost < 60
                break_off(world, worker)
                break
            if grant.rows.stop == UNSIZED:
                worker.ask(sizings=(Sizing(grant.lease, size),))
            worker.ask(commits=[record(grant, min(size, grant.rows.stop))])
    assert seen == [rows(poison, poison + 1)]


def test_what_is_suspected_runs_alone_so_that_neighbours_are_not_blamed_for_it() -> None:
    """Batches are filled across borders: a worker is lost with whatever else it computes beside the row that kills."""
    world = World([4] * 4, config=EngineConfig(bad_rows=BadRowBudget(max_fraction=1.0)))
    poison, seen, lost = (2, 1), [], 0
    while not world.engine.ledger.is_complete:
        assert lost < 60
        worker = world.worker(f"w{lost}")
        held = list(worker.ask(4).grants)
        while held and worker.leases():
            together = held[:1] if held[0].alone else [grant for grant in held if not grant.alone]
            unseen = [grant for grant in together if not grant.quarantine]
            if any(grant.shard == poison[0] and grant.rows.start <= poison[1] < grant.rows.stop for grant in unseen):
                lost += 1
                break_off(world, worker)
                break
            seen += [(grant.shard, grant.rows) for grant in together if grant.quarantine]
            worker.ask(commits=[record(grant, quarantined=bool(grant.quarantine)) for grant in together])
            held = [grant for grant in held if grant not in together]
    assert seen == [(2, rows(1, 2))]


def test_rows_behind_the_first_in_line_are_not_blamed_for_a_lost_worker() -> None:
    world = World([1, 1])
    for n in range(30):
        worker = world.worker(f"w{n}")
        first, second = worker.ask(2).grants
        assert second.quarantine == ""
        if first.quarantine:
            break
        break_off(world, worker)
    assert first.quarantine


def test_a_range_that_gets_on_is_not_blamed_for_lost_workers() -> None:
    world = World([100])
    for n in range(30):
        worker = world.worker(f"w{n}")
        grant = worker.take()
        assert grant.quarantine == "" and grant.rows == rows(n, 100)
        worker.ask(commits=[record(grant, n + 1)])
        break_off(world, worker)


def test_a_worker_in_a_crash_loop_gets_work_after_pauses_that_grow() -> None:
    world = World([8], config=EngineConfig(workers=WorkerBudget(first_ms=1_000, longest_ms=60_000)))
    pauses = []
    for _ in range(4):
        worker = world.worker("w1")
        answer = worker.ask(1)
        pauses.append(answer.retry_ms)
        if not answer.grants:
            assert answer.verdict is Verdict.WAIT
            world.at += answer.retry_ms
            worker.take()
        break_off(world, worker)
    assert pauses[:2] == [0, 0]
    assert 750 <= pauses[2] <= 1_250 and 1_500 <= pauses[3] <= 2_500


def test_a_commit_ends_the_pauses() -> None:
    world = World([8])
    for n in range(3):
        worker = world.worker("w1")
        world.at += worker.ask(1).retry_ms
        grant = worker.take() if n == 2 else None
        if grant is not None:
            worker.ask(commits=[record(grant, grant.rows.start + 1)])
        break_off(world, worker)
    assert world.worker("w1").ask(1).grants


HOPELESS = Failure(None, FailureKind.FATAL, "fails on every row so far: corrupt", "Traceback ...", Cause.HOPELESS)


def test_code_that_fails_on_every_row_ends_a_job_without_results_at_once() -> None:
    world = World([8])
    first, second = world.worker("w1"), world.worker("w2")
    assert not first.welcome.has_results
    first.take()
    first.ask(failures=(HOPELESS,))
    assert world.engine.phase is Phase.FAILED and world.of(commands.GiveUp)[0].traceback == HOPELESS.traceback
    assert second.ask(1).verdict is Verdict.FAILED


def test_code_that_has_worked_is_not_hopeless_on_a_worker_that_met_bad_rows_first() -> None:
    world = World([100, 100])
    late, other = world.worker("late"), world.worker("other")
    held = late.take()
    grant = other.take()
    other.ask(commits=[record(grant, grant.rows.start + 1)])
    assert late.ask(failures=(HOPELESS,), leaving=True).verdict is Verdict.DRAIN
    assert world.engine.phase is Phase.SERVING and causes(world)["hopeless"] == 1
    # Its rows are there for others at once, and its next life knows better.
    again = world.worker("late")
    assert again.welcome.has_results and again.take().rows == held.rows


def test_a_job_whose_rows_are_all_quarantined_has_no_results() -> None:
    world = World([100])
    worker = world.worker("w1")
    grant = worker.take()
    worker.ask(commits=[record(grant, 10, quarantined=10)])
    assert not world.worker("w2").welcome.has_results
    worker.ask(failures=(HOPELESS,))
    assert world.engine.phase is Phase.FAILED


def test_causes_outlive_the_master() -> None:
    world = World([8])
    break_off(world, world.worker("w1"))
    world.worker("w2").take()
    assert dict(world.fail_over().engine.meta.causes) == {"worker_lost": 1, "master_lost": 1}
