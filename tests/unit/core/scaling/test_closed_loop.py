"""The controller and a cluster that does not obey, in virtual time."""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from antinfer.core.causes import Cause
from antinfer.core.scaling import remedies, shares
from antinfer.core.scaling.actions import DeleteWorker, DrainWorker, FailJob, StartWorkers, Topic
from antinfer.core.scaling.planning import Controller
from antinfer.core.scaling.values import (
    PREEMPTIBLE,
    PROTECTED,
    Allowance,
    GiveBack,
    Measure,
    Observed,
    WorkerSeen,
    WorkerState,
)
from tests.unit.core.scaling.cluster import GIB, STEP_MS, Cluster, desired, reversals

FOREVER = 1e12
"""Rows that no test gets through."""
MINUTE = 60_000
LOOPS = settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.6, 1.0])


def actions_of(cluster: Cluster) -> int:
    return sum(cluster.counts[kind.__name__] for kind in (StartWorkers, DrainWorker, DeleteWorker))


def check_bounds(cluster: Cluster) -> None:
    """What holds at every moment of every run."""
    assert cluster.most_active <= cluster.desired.most
    assert cluster.most_counted <= cluster.desired.most, "those who leave count but for `surge` of them"


def check_rows(cluster: Cluster) -> None:
    held = sum(pod.held for pod in cluster.pods.values())
    assert cluster.pool + held + cluster.committed == pytest.approx(cluster.rows, rel=1e-9)


# -- capacity -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@LOOPS
@given(
    seed=SEEDS,
    share=SHARES,
    most=st.integers(1, 25),
    protected=st.integers(0, 12),
    spot=st.integers(0, 12),
    drops=st.sampled_from([0, 0.2]),
)
def test_a_job_that_takes_what_there_is_converges_and_then_does_nothing(
    seed: int, share: float, most: int, protected: int, spot: int, drops: float
) -> None:
    places = {PROTECTED: protected, PREEMPTIBLE: spot}
    cluster = Cluster(desired(most=most, on_demand=share), FOREVER, random.Random(seed), places, drops=drops)
    cluster.run(8 * MINUTE)
    before = actions_of(cluster)
    cluster.run(12 * MINUTE)
    assert actions_of(cluster) == before
    check_bounds(cluster)
    fits = max(n for n in range(most + 1) if all(places[name] >= count for name, count in shares.split(n, share).items()))
    assert len(cluster.alive()) >= fits
    assert reversals(cluster.totals) <= 1, "once too many were asked for, then never again"


@pytest.mark.parametrize("surge", [None, 0, 2])
def test_preemption_all_the_time_never_makes_too_many(seed: int, surge: int | None) -> None:
    places = {PROTECTED: 20, PREEMPTIBLE: 40}
    cluster = Cluster(desired(most=12, on_demand=0.25, surge=surge), FOREVER, random.Random(seed), places, lives_ms=MINUTE, drops=0.1)
    cluster.run(8 * MINUTE)
    assert cluster.preempted > 20
    check_bounds(cluster)
    check_rows(cluster)
    assert reversals(cluster.totals) == 0, "who is taken away is replaced, and the number of workers stays"


def test_a_hundred_preemptions_cost_nobody_anything(seed: int) -> None:
    cluster = Cluster(desired(most=20), 20 * 0.05 * 15 * MINUTE, random.Random(seed), {PREEMPTIBLE: 40}, lives_ms=MINUTE)
    ways = ["node_deleted", "killed", "signal", "evicted"]

    def also(c: Cluster) -> None:
        if c.now % 30_000 == 0 and (pods := [p for p in c.alive() if p.ready_at is not None and p.runs and p.leave_at is None]):
            c.preempt(c.rng.choice(pods), ways[c.now // 30_000 % len(ways)])

    cluster.run(40 * MINUTE, also)
    assert cluster.done_at is not None
    assert cluster.preempted >= 100, "otherwise this has shown nothing"
    assert all(cluster.counts[how] > 0 for how in (*ways, "scheduler", "eviction", "taint", "kubelet"))
    ends = cluster.controller.memory.ends
    assert ends[Cause.PREEMPTED] >= 100
    assert all(cause.is_blameless and not remedies.of(cause).pauses for cause in ends), ends
    assert not cluster.controller.memory.loops.going_on() and not cluster.controller.memory.nodes.known
    assert round(cluster.committed) == round(cluster.rows), "no row is lost or done twice"


@pytest.mark.parametrize("away_ms", [0, 20_000, 5 * MINUTE], ids=["at once", "while they wait", "after they were withdrawn"])
@pytest.mark.parametrize("policy", ["greedy", "deadline"])
def test_thirty_workers_deleted_at_once_are_replaced_within_ten_seconds_of_capacity(seed: int, policy: str, away_ms: int) -> None:
    deadline = 60 * MINUTE if policy == "deadline" else None
    rows = 0.05 * 30 * 0.95 * 60 * MINUTE if deadline else FOREVER
    cluster = Cluster(desired(most=30, deadline_at=deadline), rows, random.Random(seed), {PREEMPTIBLE: 40})
    cluster.run(4 * MINUTE)
    old = {pod.facts.name for pod in cluster.alive()}
    assert len(old) >= 28
    cluster.delete_pods(cluster.alive())
    if away_ms:
        cluster.set_capacity(PREEMPTIBLE, 0)
        cluster.capacity[PREEMPTIBLE] = 0
        cluster.run(cluster.now + away_ms)
        assert not cluster.alive()
        cluster.set_capacity(PREEMPTIBLE, 40)
    since = cluster.now
    while len([pod for pod in cluster.alive() if pod.facts.name not in old]) < len(old):
        cluster.step()
        assert cluster.now - since < 10_000
    check_bounds(cluster)
    check_rows(cluster)


def test_a_pod_that_stays_for_ever_is_not_waited_for(seed: int) -> None:
    cluster = Cluster(desired(most=8), FOREVER, random.Random(seed), {PREEMPTIBLE: 20})
    cluster.run(2 * MINUTE)
    lost = {pod.facts.name: pod.facts.node for pod in cluster.alive()[:3]}
    for node in set(lost.values()):
        cluster.lose_node(node)
    since = cluster.now
    while len(cluster.alive()) < 8:
        cluster.step()
        assert cluster.now - since < 10_000
    cluster.run(cluster.now + 10 * MINUTE)
    assert lost.keys() <= cluster.pods.keys(), "they are there still, with a deletion time"
    assert len(cluster.alive()) == 8
    check_rows(cluster)


# -- deadlines ------------------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@LOOPS
@given(
    seed=SEEDS,
    share=SHARES,
    workers=st.floats(3, 14),
    minutes=st.integers(12, 30),
    lives=st.sampled_from([None, 4, 10]),
    spot=st.floats(0.6, 1.4),
)
@example(seed=2465, share=0.0, workers=9.235141556342882, minutes=29, lives=4, spot=1.3542822698958037)
@example(seed=901749037, share=0.0, workers=8.366423221765622, minutes=24, lives=4, spot=0.9462136543240427)
@example(seed=1, share=0.0, workers=14.0, minutes=12, lives=4, spot=1.0)
@example(seed=19, share=0.0, workers=4.0 * 0.6, minutes=12, lives=4, spot=0.6)
@example(seed=0, share=0.0, workers=3.0, minutes=12, lives=4, spot=1.25)
@example(seed=24148, share=0.25, workers=3.0, minutes=15, lives=4, spot=1.23046875)
@example(seed=2652120312, share=0.0, workers=3.3631002217660697, minutes=16, lives=4, spot=1.0)
@example(seed=5, share=0.0, workers=14.0, minutes=12, lives=4, spot=0.6)
def test_a_deadline_that_can_be_kept_is_kept_within_a_tenth(
    seed: int, share: float, workers: float, minutes: int, lives: int | None, spot: float
) -> None:
    deadline, rate = minutes * MINUTE, {PROTECTED: 0.05, PREEMPTIBLE: 0.05 * spot}
    places = {PROTECTED: 40, PREEMPTIBLE: 40}
    wish = desired(most=30, on_demand=share, deadline_at=deadline)
    lives_ms = None if lives is None else lives * MINUTE
    cluster = Cluster(wish, workers * 0.05 * deadline, random.Random(seed), places, rate, lives_ms=lives_ms, task_rows=300)
    cluster.run(2 * deadline)
    assert cluster.done_at is not None
    assert 0.9 * deadline <= cluster.done_at <= deadline, cluster.done_at / deadline
    assert not [tell for _, tell in cluster.told if tell.topic is Topic.DEADLINE]
    assert reversals(cluster.totals) <= 4, "it follows what it measures, not every measurement"
    check_bounds(cluster)
    check_rows(cluster)


@pytest.mark.slow
@LOOPS
@given(seed=SEEDS, over=st.floats(1.3, 4), minutes=st.integers(10, 30), lives=st.sampled_from([None, 5]))
def test_a_deadline_that_cannot_be_kept_is_told_early(seed: int, over: float, minutes: int, lives: int | None) -> None:
    deadline = minutes * MINUTE
    wish = desired(most=10, deadline_at=deadline)
    lives_ms = None if lives is None else lives * MINUTE
    cluster = Cluster(wish, over * 10 * 0.05 * deadline, random.Random(seed), {PREEMPTIBLE: 40}, lives_ms=lives_ms)
    cluster.run(deadline // 2)
    told = [at for at, tell in cluster.told if tell.topic is Topic.DEADLINE and tell.text]
    assert told and told[0] <= deadline // 10
    assert cluster.totals[-1] == 10, "and it does what it can"


def test_a_deadline_that_capacity_does_not_allow_is_told_with_the_reason(seed: int) -> None:
    wish = desired(most=20, deadline_at=30 * MINUTE)
    cluster = Cluster(wish, 12 * 0.05 * 30 * MINUTE, random.Random(seed), {PREEMPTIBLE: 4})
    cluster.run(4 * MINUTE)
    texts = [tell.text for _, tell in cluster.told if tell.topic is Topic.DEADLINE]
    assert any("4 workers that have a place" in text for text in texts), texts


# -- budgets, the tail, giving back ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
@LOOPS
@given(seed=SEEDS, share=SHARES, money=st.booleans(), lives=st.sampled_from([None, 2]))
@example(seed=16391, share=0.5, money=True, lives=2)
@example(seed=723526581, share=0.5, money=False, lives=2)
@example(seed=352787756, share=0.25, money=True, lives=2)
@example(seed=1451837823, share=0.0, money=False, lives=2)
def test_a_budget_is_used_but_never_exceeded(seed: int, share: float, money: bool, lives: int | None) -> None:
    prices = {PROTECTED: 3.0 if money else 1.0, PREEMPTIBLE: 1.0}
    allowance = Allowance(money=4.0) if money else Allowance(gpu_hours=2.0)
    places = {PROTECTED: 20, PREEMPTIBLE: 20}
    lives_ms = None if lives is None else lives * MINUTE
    cluster = Cluster(desired(most=16, on_demand=share, allowance=allowance), FOREVER, random.Random(seed), places, lives_ms=lives_ms)
    cluster.run(120 * MINUTE)
    used = sum(ms / 3_600_000 * prices[name] for name, ms in cluster.cost_ms.items())
    limit = 4.0 if money else 2.0
    assert cluster.failed is not None and "budget" in cluster.failed.reason
    assert 0.85 * limit <= used <= limit
    told = [at for at, tell in cluster.told if tell.topic is Topic.BUDGET and tell.text]
    assert told and told[0] <= 3 * MINUTE, "that it cannot last is told early"
    assert reversals(cluster.totals) <= 1
    check_rows(cluster)


def test_a_budget_survives_its_controller(seed: int) -> None:
    cluster = Cluster(desired(most=10, allowance=Allowance(gpu_hours=1.0)), FOREVER, random.Random(seed), {PREEMPTIBLE: 20})
    cluster.run(3 * MINUTE)
    cluster.restart_controller("job-2")
    cluster.run(60 * MINUTE)
    assert cluster.failed is not None
    assert 0.85 <= sum(cluster.cost_ms.values()) / 3_600_000 <= 1.0


def test_near_the_end_workers_are_given_back_instead_of_idling(seed: int) -> None:
    cluster = Cluster(desired(least=10, most=10), 46_000, random.Random(seed), {PREEMPTIBLE: 20}, task_rows=4_000, commit_ms=5_000)
    idle: list[int] = []
    cluster.run(60 * MINUTE, lambda c: idle.append(max((c.now - p.idle_since for p in c.alive() if p.idle_since is not None), default=0)))
    assert cluster.done_at is not None
    assert cluster.counts["DrainWorker"] > 0, "otherwise nobody was idle"
    assert max(idle) <= cluster.desired.policy.idle_ms + 2 * STEP_MS
    assert cluster.counts["started"] == 10, "and nobody comes instead"


def test_workers_are_given_back_at_once_and_not_taken_again_until_then(seed: int) -> None:
    cluster = Cluster(desired(most=20), FOREVER, random.Random(seed), {PREEMPTIBLE: 40})
    cluster.run(2 * MINUTE)
    assert len(cluster.alive()) == 20
    cluster.desired = replace(cluster.desired, give_back=(GiveBack("owner-1", 8, 7 * MINUTE),))
    cluster.run(2 * MINUTE + 10_000)
    assert len(cluster.alive()) == 12
    seen: set[int] = set()
    cluster.run(7 * MINUTE - STEP_MS, lambda c: seen.add(len(c.alive())))
    assert seen == {12}
    cluster.run(8 * MINUTE)
    assert len(cluster.alive()) == 20


def test_a_new_controller_in_the_middle_changes_nothing(seed: int) -> None:
    cluster = Cluster(desired(most=15, on_demand=0.6), FOREVER, random.Random(seed), {PROTECTED: 20, PREEMPTIBLE: 20}, lives_ms=2 * MINUTE)
    for reign in range(2, 8):
        cluster.run(cluster.now + MINUTE)
        cluster.restart_controller(f"job-{reign}")
    check_bounds(cluster)
    check_rows(cluster)
    cluster.lives_ms = None
    cluster.run(cluster.now + 2 * MINUTE)
    assert {name: len(cluster.alive(name)) for name in (PROTECTED, PREEMPTIBLE)} == {PROTECTED: 9, PREEMPTIBLE: 6}


# -- faults ---------------------------------------------------------------------------------------------------------------------------
def test_a_node_on_which_workers_crash_is_avoided_and_the_job_ends(seed: int) -> None:
    cluster = Cluster(desired(most=10), 100_000, random.Random(seed), {PREEMPTIBLE: 20})
    bad = next(iter(cluster.nodes.values()))
    bad.crashes = True
    cluster.run(60 * MINUTE)
    assert cluster.done_at is not None
    assert cluster.avoided.keys() == {bad.name}
    on_it = [at for at, _, node in cluster.placements if node == bad.name]
    assert 3 <= len(on_it) <= 3 + bad.slots


def test_an_image_that_is_not_there_fails_the_job_soon_and_a_flake_does_not(seed: int) -> None:
    gone = Cluster(desired(), 10_000, random.Random(seed), {PREEMPTIBLE: 20}, image_fails_until=10**9)
    gone.run(10 * MINUTE)
    assert isinstance(gone.failed, FailJob) and "manifest for r/x:1 not found" in gone.failed.reason
    assert 90_000 <= gone.now <= 100_000
    flake = Cluster(desired(), 10_000, random.Random(seed), {PREEMPTIBLE: 20}, image_fails_until=60_000)
    flake.run(10 * MINUTE)
    assert flake.done_at is not None


def test_a_worker_that_always_crashes_fails_the_job_after_some_rounds(seed: int) -> None:
    cluster = Cluster(desired(), 10_000, random.Random(seed), {PREEMPTIBLE: 20}, crash_code=1)
    cluster.run(30 * MINUTE)
    assert cluster.failed is not None and "exit code 1" in cluster.failed.reason
    assert cluster.counts["started"] <= 12 * 10


def test_memory_is_raised_until_workers_live(seed: int) -> None:
    cluster = Cluster(desired(), 10_000, random.Random(seed), {PREEMPTIBLE: 20}, oom_below=7 * GIB)
    cluster.run(30 * MINUTE)
    assert cluster.done_at is not None
    assert cluster.controller.memory.raised == {PREEMPTIBLE: 8 * GIB}
    assert {Cause.OUT_OF_MEMORY} == cluster.controller.memory.ends.keys() - {Cause.DRAINED}
    capped = Cluster(desired(), 10_000, random.Random(seed), {PREEMPTIBLE: 20}, oom_below=9 * GIB)
    capped.run(30 * MINUTE)
    assert capped.failed is not None and "memory" in capped.failed.reason


# -- work -----------------------------------------------------------------------------------------------------------------------------
def calls_of_a_turn(workers: int) -> int:
    """Count the calls, ours and of builtins, that a turn makes when a tenth of the workers has just been preempted."""
    ended = workers // 10
    seen = tuple(
        WorkerSeen(
            f"job-1-{n}", PROTECTED if n % 2 else PREEMPTIBLE, WorkerState.LEAVING if n < ended else WorkerState.READY, 0, 0, ready_at=0,
            node=f"n-{n // 4}", uncommitted_rows=n, was_told=n < ended,
        )
        for n in range(workers)
    )  # fmt: skip
    measures = {PROTECTED: Measure(0.05, 0.01, 20_000), PREEMPTIBLE: Measure(0.05, 0.1, 20_000)}
    wish = desired(least=workers, most=workers, on_demand=0.5, deadline_at=3_600_000)
    controller, calls = Controller(), 0
    observed = Observed(seen, 10**9, 10**8, measures=measures)
    controller.memory.observe(wish, observed, 0)

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        actions = controller.turn(wish, observed, 1_000)
    finally:
        sys.setprofile(None)
    assert sum(len(action.names) for action in actions if isinstance(action, StartWorkers)) == min(ended, 100)
    return calls


def test_the_work_of_a_turn_grows_with_the_workers_and_is_small() -> None:
    """Calls, not time: a thousand workers take some tens of thousands, a few milliseconds on any machine."""
    few, many = calls_of_a_turn(1_000), calls_of_a_turn(4_000)
    print(f"{few} calls for 1,000 workers, {many} for 4,000")
    assert few <= 20 * 1_000
    assert many <= 4.2 * few


def test_nothing_is_asked_of_the_launcher_while_nothing_changes(seed: int) -> None:
    cluster = Cluster(desired(most=30, on_demand=0.5), FOREVER, random.Random(seed), {PROTECTED: 40, PREEMPTIBLE: 40})
    cluster.run(3 * MINUTE)
    assert len(cluster.alive()) == 30
    before = actions_of(cluster)
    cluster.run(10 * MINUTE)
    assert actions_of(cluster) == before
    cluster.delete_pods(cluster.alive()[:10])
    cluster.run(12 * MINUTE)
    assert cluster.counts["started"] == 40
    assert actions_of(cluster) - before <= 12, "ten starts go in one action or a few"
