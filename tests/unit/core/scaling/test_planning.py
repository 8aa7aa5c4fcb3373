"""Single plans: what is done about what is seen."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace

import pytest

from antinfer.core.causes import Cause
from antinfer.core.scaling.actions import AvoidNode, DeleteWorker, DrainWorker, FailJob, StartWorkers, Tell, Topic
from antinfer.core.scaling.memory import Memory
from antinfer.core.scaling.planning import Controller, plan
from antinfer.core.scaling.values import (
    PREEMPTIBLE,
    PROTECTED,
    Allowance,
    Desired,
    Ending,
    GiveBack,
    Measure,
    Observed,
    Obstacle,
    Severity,
    WorkerClass,
    WorkerSeen,
    WorkerState,
)
from tests.unit.core.scaling.cluster import GIB, desired

NO_PLACE = Obstacle(Cause.NO_CAPACITY, Severity.WAITING, "0/3 nodes are available: 3 Insufficient cpu.")


def worker(n: int, state: WorkerState = WorkerState.READY, worker_class: str = PREEMPTIBLE, **changes: object) -> WorkerSeen:
    ready_at = 0 if state is WorkerState.READY else None
    given = {"since": 0, "created_at": 0, "node": f"node-{n}", "ready_at": ready_at, "uncommitted_rows": 100, **changes}
    return WorkerSeen(f"job-1-{n}", worker_class, state, **given)  # type: ignore[arg-type]


def observed(*workers: WorkerSeen, **changes: object) -> Observed:
    given: dict[str, object] = {"remaining_rows": 10**9, "unleased_rows": 10**8, **changes}
    return Observed(workers, **given)  # type: ignore[arg-type]


def settled(wish: Desired, *workers: WorkerSeen, now: int = 1_000) -> Controller:
    """Return a controller that has seen `workers`, and wants that many."""
    controller = Controller()
    alive = sum(each.state is not WorkerState.ENDED for each in workers)
    controller.memory.aim = replace(controller.memory.aim, wanted=max(alive, 1), grew_at=now)
    controller.turn(wish, observed(*workers), now)
    return controller


def started(actions: object) -> list[str]:
    return [name for action in actions if isinstance(action, StartWorkers) for name in action.names]  # type: ignore[attr-defined]


def of(kind: type, actions: object) -> list:
    return [action for action in actions if isinstance(action, kind)]  # type: ignore[attr-defined]


# -- idempotence ----------------------------------------------------------------------------------------------------------------------
def test_the_same_plan_twice_and_nothing_remembered_by_planning() -> None:
    wish, controller = desired(least=5, on_demand=0.6), Controller()
    seen = observed(worker(1, WorkerState.ENDED, ending=Ending(Cause.WORKER_CRASHED)), worker(2), worker(3))
    controller.memory.observe(wish, seen, 1_000)
    before = copy.deepcopy(vars(controller.memory))
    first = plan(wish, seen, controller.memory, 1_000)
    assert plan(wish, seen, controller.memory, 1_000) == first
    assert len(started(first.actions)) >= 2
    after = vars(controller.memory)
    unchanged = {key: value for key, value in before.items() if key not in ("loops", "nodes")}
    assert {key: after[key] for key in unchanged} == unchanged


def test_workers_that_do_not_show_yet_are_not_asked_for_twice_and_later_under_the_same_names() -> None:
    wish, controller = desired(least=4, most=4), Controller()
    names = started(controller.turn(wish, observed(), 0))
    assert names == ["job-1-1", "job-1-2", "job-1-3", "job-1-4"]
    for at in range(1_000, 15_000, 1_000):
        assert started(controller.turn(wish, observed(), at)) == []
    assert started(controller.turn(wish, observed(), 15_000)) == names, "asking again for what is there does no harm"
    shown = observed(*(worker(n, WorkerState.STARTING) for n in (1, 2, 3, 4)))
    assert started(controller.turn(wish, shown, 16_000)) == []
    assert started(controller.turn(wish, observed(), 17_000)) == ["job-1-5", "job-1-6", "job-1-7", "job-1-8"], "a name is never used again"


def test_a_new_controller_takes_over_what_it_sees() -> None:
    workers = [worker(n) for n in range(1, 6)]
    actions = Controller().turn(desired(prefix="job-2", least=5, most=5), observed(*workers), 99_000)
    assert not started(actions) and not of(DrainWorker, actions)


def test_a_new_controller_that_takes_what_there_is_keeps_what_it_finds() -> None:
    workers = [worker(n) for n in range(1, 9)]
    controller = Controller()
    for at in range(99_000, 199_000, 1_000):
        assert not of(DrainWorker, controller.turn(desired(prefix="job-2", most=20), observed(*workers), at))


def test_a_worker_that_was_told_to_leave_is_told_once_and_counts_no_more() -> None:
    wish = desired(least=1, most=3, give_back=(GiveBack("a", 2, 10**6),))
    workers = [worker(n) for n in (1, 2, 3)]
    controller = settled(desired(most=3), *workers)
    first = of(DrainWorker, controller.turn(wish, observed(*workers), 2_000))
    assert len(first) == 2
    for at in range(3_000, 60_000, 1_000):
        actions = controller.turn(wish, observed(*workers), at)
        assert not of(DrainWorker, actions) and not of(DeleteWorker, actions) and not started(actions)
    overdue = of(DeleteWorker, controller.turn(wish, observed(*workers), 63_000))
    assert {action.name for action in overdue} == {action.name for action in first}


# -- replacement ----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "gone",
    [
        {"state": WorkerState.LEAVING, "ending": Ending(Cause.PREEMPTED), "was_told": True},
        {"state": WorkerState.LOST, "ending": Ending(Cause.NODE_LOST)},
        {"state": WorkerState.ENDED, "ending": Ending(Cause.PREEMPTED)},
    ],
    ids=["leaving", "lost", "ended"],
)
def test_the_replacement_starts_before_the_old_one_has_stopped(gone: dict[str, object]) -> None:
    wish = desired(most=3)
    controller = settled(wish, *(worker(n) for n in (1, 2, 3)))
    seen = observed(worker(1, **gone), worker(2), worker(3))  # type: ignore[arg-type]
    assert len(started(controller.turn(wish, seen, 2_000))) == 1
    for at in range(3_000, 10_000, 1_000):
        assert not started(controller.turn(wish, seen, at)), "once, however long the old object stays"


def test_surge_limits_how_many_may_leave_beside_the_most_there_may_be() -> None:
    wish = desired(most=4, surge=1)
    controller = settled(wish, *(worker(n) for n in (1, 2, 3, 4)))
    leaving = [worker(n, WorkerState.LEAVING, ending=Ending(Cause.PREEMPTED), was_told=True) for n in (1, 2, 3)]
    assert len(started(controller.turn(wish, observed(*leaving, worker(4)), 2_000))) == 1
    new = worker(5, WorkerState.STARTING)
    assert len(started(controller.turn(wish, observed(*leaving[:1], worker(4), new), 3_000))) == 2


def test_a_worker_on_a_node_that_will_be_taken_is_drained_while_its_replacement_starts() -> None:
    wish = desired(most=2)
    controller = settled(wish, worker(1), worker(2))
    doomed = worker(1, WorkerState.LEAVING, ending=Ending(Cause.PREEMPTED, "spot notice"))
    actions = controller.turn(wish, observed(doomed, worker(2)), 2_000)
    assert [(a.name, a.cause) for a in of(DrainWorker, actions)] == [("job-1-1", Cause.PREEMPTED)]
    assert len(started(actions)) == 1


def test_starts_are_limited_in_rate_and_made_in_parallel() -> None:
    wish, controller, shown = desired(least=300, most=300), Controller(), 0
    counts = []
    for at in range(0, 12_000, 1_000):
        seen = observed(*(worker(n, WorkerState.STARTING) for n in range(1, shown + 1)))
        counts.append(len(started(controller.turn(wish, seen, at))))
        shown += counts[-1]
    assert counts == [100, *[20] * 10, 0]


@pytest.mark.parametrize("cause", [Cause.PREEMPTED, Cause.DRAINED])
def test_no_number_of_preemptions_costs_anything(cause: Cause) -> None:
    wish = desired(most=1)
    controller = settled(wish, worker(1))
    for n in range(1, 101):
        seen = observed(worker(n, WorkerState.ENDED, ending=Ending(cause)))
        assert started(controller.turn(wish, seen, 10_000 * n)) == [f"job-1-{n + 1}"], "at once"
        controller.turn(wish, observed(worker(n + 1, since=10_000 * n)), 10_000 * n + 5_000)
    assert controller.memory.ends == {cause: 100}
    assert not controller.memory.loops.going_on() and not controller.memory.nodes.known


def test_pauses_of_a_crash_loop_grow_until_the_job_fails_with_what_was_said() -> None:
    wish, controller, at, n, waits = desired(most=1), Controller(), 0, 1, []
    assert started(controller.turn(wish, observed(), at)) == ["job-1-1"]
    failure = None
    while failure is None:
        ended_at = at = at + 3_000
        end = worker(n, WorkerState.ENDED, created_at=at - 3_000, ending=Ending(Cause.START_ERROR, "exit code 1: no module named x"))
        while True:
            actions = controller.turn(wish, observed(end), at)
            failure = next(iter(of(FailJob, actions)), None)
            if failure is not None or started(actions):
                break
            at += 250
        waits.append(at - ended_at)
        n += 1
    assert n - 1 == wish.policy.tries
    assert all(0.7 * 2_000 * 2**round_ <= wait <= 1.3 * 2_000 * 2**round_ + 250 for round_, wait in enumerate(waits[:-1])), waits
    assert "no module named x" in failure.reason


def test_workers_that_crash_together_are_one_round_and_the_others_are_still_replaced() -> None:
    wish = desired(most=20)
    controller = settled(wish, *(worker(n, WorkerState.STARTING) for n in range(1, 21)))
    crashed = [worker(n, WorkerState.ENDED, ending=Ending(Cause.START_ERROR)) for n in range(1, 9)]
    preempted = [worker(n, WorkerState.ENDED, ending=Ending(Cause.PREEMPTED)) for n in range(9, 13)]
    others = [worker(n) for n in range(13, 21)]
    assert len(started(controller.turn(wish, observed(*crashed, *preempted, *others), 2_000))) == 4
    assert not controller.memory.loops.going_on()
    later = observed(*crashed, *others, *(worker(n, WorkerState.STARTING) for n in range(21, 25)))
    assert len(started(controller.turn(wish, later, 5_000))) == 8


@pytest.mark.parametrize(("ready_ms", "fails"), [(60_000, False), (59_000, True)])
def test_workers_that_work_and_have_not_committed_yet_keep_the_others_from_failing_the_job(ready_ms: int, fails: bool) -> None:
    wish, controller, at, failures = desired(most=2), Controller(), 0, []
    for n in range(1, wish.policy.tries + 1):
        at += 2 * (wish.policy.first_pause_ms << n)
        end = worker(n, WorkerState.ENDED, created_at=at - 1_000, ending=Ending(Cause.WORKER_CRASHED))
        failures += of(FailJob, controller.turn(wish, observed(end, worker(99, ready_at=at - ready_ms)), at))
    assert bool(failures) is fails


def test_a_row_that_is_committed_keeps_a_crash_loop_from_failing_the_job() -> None:
    wish, controller, at = desired(most=1), Controller(), 0
    for n in range(1, 20):
        at += min(2 * (wish.policy.first_pause_ms << n), 2 * wish.policy.longest_pause_ms)
        end = worker(n, WorkerState.ENDED, created_at=at - 1_000, ending=Ending(Cause.WORKER_CRASHED))
        assert not of(FailJob, controller.turn(wish, observed(end, committed_rows=n), at))
    assert controller.memory.loops.going_on()[0].rounds == 19, "the pauses go on growing all the same"


# -- memory, nodes, images ------------------------------------------------------------------------------------------------------------
def test_running_out_of_memory_raises_it_for_the_replacement_up_to_the_cap() -> None:
    wish, controller, limits = desired(most=1), Controller(), []
    controller.turn(wish, observed(), 0)
    for n in range(1, 4):
        ended = worker(
            n, WorkerState.ENDED, memory_bytes=limits[-1] if limits else 0, ending=Ending(Cause.OUT_OF_MEMORY), created_at=n * 999
        )
        for at in range(n * 1_000, n * 1_000 + 900, 100):
            start = of(StartWorkers, controller.turn(wish, observed(ended), at))
            if start:
                limits.append(start[0].memory_bytes)
                break
    assert limits == [6 * GIB, 8 * GIB], "what did not fit into the most there may be pauses, and does not grow"
    assert controller.memory.loops.resting(PREEMPTIBLE) == 1
    assert controller.memory.ends == {Cause.OUT_OF_MEMORY: 3}


def test_a_node_with_repeated_faults_is_avoided_only_while_others_work() -> None:
    wish = desired(most=4)
    controller = settled(wish, *(worker(n) for n in (1, 2, 3, 4)))
    told = []
    for n in range(10, 13):
        bad = worker(n, WorkerState.ENDED, node="bad", ending=Ending(Cause.WORKER_CRASHED, "SIGSEGV"))
        told += of(AvoidNode, controller.turn(wish, observed(bad, *(worker(n) for n in (1, 2, 3, 4))), 1_000 * n))
    assert [(a.node, a.until) for a in told] == [("bad", 12_000 + wish.policy.node_memory_ms)]
    assert "SIGSEGV" in told[0].why
    start = of(StartWorkers, controller.turn(wish, observed(*(worker(n) for n in (1, 2, 3))), 30_000))
    assert start[0].avoid == ("bad",)
    late = 13_000 + wish.policy.node_memory_ms
    controller.turn(wish, observed(*(worker(n) for n in (1, 2, 3))), late)
    assert controller.memory.nodes.avoided(late) == {}

    alone = Controller()
    for n in range(1, 9):
        bad = worker(n, WorkerState.ENDED, node="bad", ending=Ending(Cause.NODE_LOST))
        assert not of(AvoidNode, alone.turn(wish, observed(bad), 1_000 * n)), "it may as well be the job"


@pytest.mark.parametrize(
    ("severity", "cause", "patience_ms"),
    [
        (Severity.INVALID, Cause.IMAGE_ERROR, 10_000),
        (Severity.MISSING_CONFIG, Cause.CONFIG_ERROR, 30_000),
        (Severity.MISSING_IMAGE, Cause.IMAGE_ERROR, 90_000),
        (Severity.UNREACHABLE, Cause.IMAGE_ERROR, 600_000),
    ],
)
def test_what_keeps_every_worker_from_starting_fails_the_job_soon(severity: Severity, cause: Cause, patience_ms: int) -> None:
    wish, controller = desired(most=2), Controller()
    stuck = [worker(n, WorkerState.STARTING, obstacle=Obstacle(cause, severity, "Failed to pull image x: not found")) for n in (1, 2)]
    for at in range(0, patience_ms, 1_000):
        assert not of(FailJob, controller.turn(wish, observed(*stuck), at)), "not at the first flake"
    (failure,) = of(FailJob, controller.turn(wish, observed(*stuck), patience_ms))
    assert "Failed to pull image x: not found" in failure.reason
    assert failure.hint


def test_what_has_worked_before_gets_ten_times_the_patience() -> None:
    wish = desired(most=1)
    controller = settled(wish, worker(1))
    stuck = worker(2, WorkerState.STARTING, obstacle=Obstacle(Cause.IMAGE_ERROR, Severity.MISSING_IMAGE, "not found"), since=800_000)
    assert not any(of(FailJob, controller.turn(wish, observed(stuck), at)) for at in range(2_000, 902_000, 1_000))
    assert of(FailJob, controller.turn(wish, observed(stuck), 902_000))


def test_one_node_that_cannot_pull_is_left_while_others_can() -> None:
    wish = desired(most=2)
    controller = settled(wish, worker(1), worker(2))
    stuck = worker(3, WorkerState.STARTING, node="flaky", obstacle=Obstacle(Cause.IMAGE_ERROR, Severity.MISSING_IMAGE, "not found"))
    for at in range(2_000, 90_001, 1_000):
        actions = controller.turn(wish, observed(worker(1), stuck), at)
        assert not of(FailJob, actions) and not of(DeleteWorker, actions)
    actions = controller.turn(wish, observed(worker(1), stuck), 91_000)
    assert [a.name for a in of(DeleteWorker, actions)] == ["job-1-3"]
    assert len(started(actions)) == 1
    assert controller.memory.nodes.known == {"flaky"}


def test_the_words_of_the_kubelet_are_kept_while_it_only_waits() -> None:
    wish, controller = desired(most=1), Controller()
    tried = Obstacle(Cause.IMAGE_ERROR, Severity.MISSING_IMAGE, 'ErrImagePull: failed to pull "r/x:2": manifest unknown')
    waits = Obstacle(Cause.IMAGE_ERROR, Severity.MISSING_IMAGE, "ImagePullBackOff")
    for at, obstacle in ((0, tried), (20_000, waits), (40_000, tried), (90_000, waits)):
        actions = controller.turn(wish, observed(worker(1, WorkerState.STARTING, obstacle=obstacle)), at)
    (failure,) = of(FailJob, actions)
    assert "manifest unknown" in failure.reason


def test_a_right_that_is_missing_fails_the_job_and_a_full_quota_only_waits() -> None:
    wish = desired(most=2, least=2)
    for obstacle, fails in ((Obstacle(Cause.CONFIG_ERROR, Severity.INVALID, "cannot create pods"), True), (NO_PLACE, False)):
        controller, failures, asked = Controller(), [], Counter[str]()
        for at in range(0, 600_000, 1_000):
            actions = controller.turn(wish, observed(refused=dict.fromkeys(controller.memory.asked, obstacle)), at)
            failures += of(FailJob, actions)
            asked.update(started(actions))
        assert bool(failures) is fails
        if not fails:
            assert sorted(asked) == ["job-1-1", "job-1-2"], "asked for again under the same names"
            assert 8 <= asked["job-1-1"] <= 20, "after pauses that grow"


def test_pending_workers_are_told_with_the_words_of_the_scheduler() -> None:
    wish = desired(least=3, most=3)
    waiting = [worker(n, WorkerState.PENDING, node="", obstacle=NO_PLACE) for n in (1, 2)]
    controller = settled(wish, *waiting, worker(3))
    assert not of(Tell, controller.turn(wish, observed(*waiting, worker(3)), 2_000))
    told = of(Tell, controller.turn(wish, observed(*waiting, worker(3)), 31_000))
    assert told == [Tell(Topic.PENDING, f"2 of 3 workers wait for a place: {NO_PLACE.detail}")]
    assert not of(Tell, controller.turn(wish, observed(*waiting, worker(3)), 32_000))
    assert of(Tell, controller.turn(wish, observed(*(worker(n) for n in (1, 2, 3))), 33_000)) == [Tell(Topic.PENDING, "")]


# -- what is paid ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_heard", [True, False], ids=["heard", "an object alone"])
def test_an_object_that_should_be_gone_costs_nothing_and_holds_nobody_up(is_heard: bool) -> None:
    """Of a budget of 6 min one worker has used up 5; the other must have left after 2, and its object stays."""
    wish = desired(most=1, allowance=Allowance(gpu_hours=0.1), classes={PREEMPTIBLE: WorkerClass(gpus=1.0)})
    controller = Controller(Memory({PREEMPTIBLE: 300_000}))
    stays = worker(1, WorkerState.LEAVING, ending=Ending(Cause.DRAINED), was_told=True, is_heard=is_heard)
    failures = []
    for at in range(0, 400_000, 1_000):
        failures += [(at, each) for each in of(FailJob, controller.turn(wish, observed(stays), at))]
    used_ms = controller.memory.used_ms[PREEMPTIBLE] - 300_000
    if is_heard:
        assert used_ms == 399_000 and not failures
    else:
        assert used_ms == 120_000
        assert failures[0][0] == 121_000 and "budget" in failures[0][1].reason


# -- fewer ----------------------------------------------------------------------------------------------------------------------------
def test_who_has_least_to_lose_leaves() -> None:
    rows = {1: 500, 2: 20, 3: 900, 4: 10}
    workers = [worker(n, uncommitted_rows=held) for n, held in rows.items()]
    controller = settled(desired(most=4), *workers)
    actions = controller.turn(desired(most=4, give_back=(GiveBack("a", 2, 10**6),)), observed(*workers), 2_000)
    assert [a.name for a in of(DrainWorker, actions)] == ["job-1-4", "job-1-2"]
    assert not of(DeleteWorker, actions)


def test_of_those_with_nothing_to_lose_the_one_that_has_been_idle_longest_leaves() -> None:
    workers = [worker(n, uncommitted_rows=0, idle_since=since) for n, since in ((1, 1_500), (2, 500), (3, 1_000), (4, None))]
    controller = settled(desired(most=4), *workers)
    actions = controller.turn(desired(most=4, give_back=(GiveBack("a", 2, 10**6),)), observed(*workers), 2_000)
    assert [a.name for a in of(DrainWorker, actions)] == ["job-1-2", "job-1-3"]


def test_who_has_no_place_or_has_not_begun_leaves_first() -> None:
    seen = [
        worker(1),
        worker(2, WorkerState.STARTING),
        worker(3, WorkerState.PENDING, node="", obstacle=NO_PLACE),
        worker(4, uncommitted_rows=0),
    ]
    controller = settled(desired(most=4), *seen)
    actions = controller.turn(desired(most=2), observed(*seen), 2_000)
    assert [a.name for a in of(DeleteWorker, actions)] == ["job-1-3", "job-1-2"]
    assert not of(DrainWorker, actions)


def test_workers_given_back_stay_away_until_then_and_never_below_the_least() -> None:
    workers = [worker(n) for n in range(1, 7)]
    controller = settled(desired(most=6), *workers)
    wish = desired(most=6, least=2, give_back=(GiveBack("a", 3, 200_000),))
    actions = controller.turn(wish, observed(*workers), 2_000)
    left = [w for w in workers if w.name not in {a.name for a in of(DrainWorker, actions)}]
    assert len(left) == 3
    assert Tell(Topic.GIVE_BACK, "at most 3 workers, as others were given back") in actions
    for at in range(3_000, 190_000, 1_000):
        actions = controller.turn(wish, observed(*left), at)
        assert not of(DrainWorker, actions) and not started(actions), "the same request is one request"
    more = replace(wish, give_back=(*wish.give_back, GiveBack("b", 3, 200_000)))
    actions = controller.turn(more, observed(*left), 190_000)
    assert len(of(DrainWorker, actions)) == 1, "two are kept"
    assert any("workers.min" in a.text for a in of(Tell, actions))
    assert len(started(controller.turn(more, observed(*left[:2]), 200_000))) >= 1


def test_a_request_to_give_workers_back_holds_for_the_next_controller_and_until_it_is_withdrawn() -> None:
    workers = [worker(n, uncommitted_rows=100 - n) for n in range(1, 7)]
    controller = settled(desired(most=6), *workers)
    wish = desired(most=6, give_back=(GiveBack("a", 2),))
    actions = controller.turn(wish, observed(*workers), 2_000)
    assert [a.name for a in of(DrainWorker, actions)] == ["job-1-6", "job-1-5"], "those with the least uncommitted work"
    (kept,) = controller.memory.given_back.values()
    assert kept == GiveBack("a", 2, had=6)
    left = workers[:4]
    another = Controller()
    for at in range(10**6, 10**6 + 60_000, 1_000):
        actions = another.turn(desired(most=6, give_back=(kept,)), observed(*left), at)
        assert not of(DrainWorker, actions) and not started(actions), "a new controller neither gives back again nor starts others"
    actions = another.turn(desired(most=6, give_back=(replace(kept, workers=3),)), observed(*left), 10**6 + 60_000)
    assert len(of(DrainWorker, actions)) == 1, "another number is about the workers that there were at first"
    assert started(another.turn(desired(most=6), observed(*left[:3]), 10**6 + 61_000)), "withdrawn"


def test_near_the_end_idle_workers_are_given_back_below_the_least() -> None:
    wish = desired(least=4, most=4)
    workers = [worker(1, uncommitted_rows=700), *(worker(n, uncommitted_rows=0, idle_since=5_000) for n in (2, 3, 4))]
    controller = settled(wish, *workers)
    assert not of(DrainWorker, controller.turn(wish, observed(*workers, unleased_rows=0, remaining_rows=700), 14_000))
    assert not of(DrainWorker, controller.turn(wish, observed(*workers, unleased_rows=50, remaining_rows=750), 15_000))
    actions = controller.turn(wish, observed(*workers, unleased_rows=0, remaining_rows=700), 16_000)
    assert [a.name for a in of(DrainWorker, actions)] == ["job-1-2", "job-1-3", "job-1-4"]
    assert not started(controller.turn(wish, observed(workers[0], unleased_rows=0, remaining_rows=690), 17_000))


def test_nobody_is_started_for_what_is_over_before_they_could_begin() -> None:
    known = {PREEMPTIBLE: Measure(rate=0.1, startup_ms=60_000)}
    wish = desired(most=3)
    controller = settled(wish, *(worker(n) for n in (1, 2, 3)))
    assert not started(controller.turn(wish, observed(worker(1), worker(2), remaining_rows=5_000, measures=known), 2_000))
    assert len(started(controller.turn(wish, observed(worker(1), worker(2), remaining_rows=500_000, measures=known), 3_000))) == 1
    assert len(started(Controller().turn(wish, observed(remaining_rows=10, measures=known), 0))) == 1, "somebody has to do it"


def test_when_the_share_changes_the_new_ones_are_ready_before_the_others_leave() -> None:
    workers = [worker(n) for n in (1, 2, 3, 4)]
    controller = settled(desired(most=6), *workers)
    wish = desired(most=6, on_demand=0.5)
    controller.memory.aim = replace(controller.memory.aim, grew_at=10**9)
    actions = controller.turn(wish, observed(*workers), 2_000)
    assert [(a.worker_class, len(a.names)) for a in of(StartWorkers, actions)] == [(PROTECTED, 2)]
    assert not of(DrainWorker, actions)
    new = [worker(n, WorkerState.STARTING, PROTECTED) for n in (5, 6)]
    assert not of(DrainWorker, controller.turn(wish, observed(*workers, *new), 3_000))
    ready = [worker(n, WorkerState.READY, PROTECTED) for n in (5, 6)]
    actions = controller.turn(wish, observed(*workers, *ready), 4_000)
    assert len(of(DrainWorker, actions)) == 2 and not started(actions)


def test_objects_of_ended_workers_go_but_the_last_that_failed() -> None:
    wish = desired(most=1)
    controller = settled(wish, worker(99))
    failed = [replace(worker(n, WorkerState.ENDED, ending=Ending(Cause.WORKER_CRASHED)), since=n) for n in range(30)]
    gone = [worker(n, WorkerState.ENDED, ending=Ending(Cause.PREEMPTED)) for n in range(30, 40)]
    deleted = {a.name for a in of(DeleteWorker, controller.turn(wish, observed(worker(99), *failed, *gone), 2_000))}
    assert deleted == {w.name for w in (*failed[:10], *gone)}


def test_a_job_that_is_done_starts_nobody() -> None:
    ended = worker(1, WorkerState.ENDED, ending=Ending(Cause.LEFT_EARLY))
    actions = Controller().turn(desired(least=5, most=5), observed(ended, worker(2), remaining_rows=0, is_done=True), 0)
    assert actions == ()
