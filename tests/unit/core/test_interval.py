"""How often to commit: by the measured rate of losses."""

from __future__ import annotations

import pytest

from antinfer.core import events
from antinfer.core.commands import Send
from antinfer.core.config import EngineConfig
from antinfer.core.interval import CommitPace, IntervalPolicy, best_interval_ms
from antinfer.core.messages import HeldRange, Push
from tests.unit.core.builders import World

POLICY = IntervalPolicy()


def wasted(interval_ms: float, mean_ms: float, cost_ms: float) -> float:
    """Share of a worker's time that commits and lost work take, by the usual model: half an interval is lost each time."""
    return cost_ms / interval_ms + (interval_ms / 2 + cost_ms) / mean_ms


@pytest.mark.parametrize("mean_s", [20, 300, 3_600, 86_400])
def test_no_other_interval_wastes_much_less(mean_s: int) -> None:
    best = best_interval_ms(POLICY, mean_s * 1_000)
    waste = wasted(best, mean_s * 1_000, POLICY.cost_ms)
    assert all(waste <= 1.1 * wasted(best * factor, mean_s * 1_000, POLICY.cost_ms) for factor in (0.2, 0.5, 0.8, 1.25, 2, 5))


def test_it_stays_within_its_limits() -> None:
    assert best_interval_ms(POLICY, 100) == POLICY.shortest_ms
    assert best_interval_ms(POLICY, 1e12) == POLICY.longest_ms


def test_it_begins_with_seconds_grows_while_nothing_happens_and_shrinks_with_losses() -> None:
    pace = CommitPace(POLICY)
    assert 1_500 <= pace.told_ms <= 3_000
    told = [interval for at in range(0, 3_600_000, 1_000) if (interval := pace.note(at, 4)) is not None]
    assert told == sorted(told) and told[-1] > 60_000
    assert len(told) < 20, "workers are told seldom"
    for _ in range(200):
        pace.lost()
    shrunk = pace.note(3_600_000, 4)
    assert shrunk is not None and shrunk < 10_000


@pytest.mark.parametrize("workers", [1, 4, 100])
def test_the_way_to_half_a_minute_costs_a_job_few_commits_however_many_its_workers(workers: int) -> None:
    pace, commits, at = CommitPace(POLICY), 0.0, 0
    while pace.told_ms < 30_000:
        commits += workers * 200 / pace.told_ms
        at += 200
        pace.note(at, workers)
    assert commits < 160, commits


def test_it_believes_a_spot_market_after_a_few_losses() -> None:
    pace = CommitPace(POLICY)
    told = [pace.told_ms]
    for second in range(30):
        if second and second % 5 == 0:
            pace.lost()
        told += [interval for interval in (pace.note(second * 1_000, 4),) if interval is not None]
    assert max(told) < 1.6 * best_interval_ms(POLICY, 20_000), "from the first on"
    assert 0.7 * best_interval_ms(POLICY, 20_000) < told[-1], "but no more than it is"


def test_workers_are_told_where_the_job_leaves_it_to_the_master() -> None:
    silent, told = World([10]), World([10], config=EngineConfig(interval=POLICY))
    assert silent.worker().welcome.commit_ms == 0
    assert told.worker("w1").welcome.commit_ms == best_interval_ms(POLICY, POLICY.expected_ms)
    for n in range(4):
        spot = told.worker(f"spot-{n}")
        told.step(events.StreamBroken(told.at, spot.stream))
        told.silence(1_400)
        told.worker("w1")
    pushed = [sent.message.commit_ms for sent in told.of(Send) if isinstance(sent.message, Push) and sent.message.commit_ms]
    assert pushed and pushed == sorted(pushed, reverse=True)
    assert told.worker("w9").welcome.commit_ms == pushed[-1]


@pytest.mark.parametrize("keeps", [False, True], ids=["started again", "joins again with what it holds"])
def test_who_is_started_again_under_its_name_counts_as_lost(keeps: bool) -> None:
    world = World([10], config=EngineConfig(interval=POLICY))
    first, worker = world.worker("w0"), world.worker("w1")
    for _ in range(60):
        world.tick(1_000)
        first.beat()
        worker.beat()
    grown = worker.join().commit_ms
    for _ in range(3):
        grant = worker.welcome.regranted[0] if worker.welcome.regranted else worker.take()
        worker.join((HeldRange(grant.lease, grant.shard, grant.rows),) if keeps else ())
        world.tick(1_000)
    assert (worker.join().commit_ms < grown) is not keeps
