"""The share of raw rows: the best by the formula, found from any start on a model of a pipeline, and then left alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antinfer.worker.tuning.shares import (
    CALM_SECONDS,
    LEAST_CHANGE,
    WINDOW_BATCHES,
    Aim,
    Rates,
    SharePolicy,
    Turns,
    Work,
)

RATE = st.floats(1.0, 1e5)
SHARE = st.floats(0.0, 1.0)
STEPS = 1000
BATCH = 256


@given(RATE, RATE, st.floats(0.01, 1.0), SHARE)
def test_no_other_share_makes_more(cores: float, ready: float, slower: float, most: float) -> None:
    rates = Rates(cores, ready, slower * ready)
    share = rates.best_share(most)
    best = max(rates.together(most * step / STEPS) for step in range(STEPS + 1))
    assert 0 <= share <= most
    assert rates.together(share) >= (1 - 1e-9) * best


@given(RATE, RATE, RATE)
def test_neither_side_waits(cores: float, ready: float, raw: float) -> None:
    rates = Rates(cores, ready, raw)
    share = rates.best_share()
    predictors = 1 / ((1 - share) / ready + share / raw)
    assert (share == 0 and cores >= ready) or predictors == pytest.approx(cores / (1 - share))


@given(RATE, RATE, st.floats(0.01, 1.0))
def test_of_equal_shares_the_smallest_is_chosen(cores: float, ready: float, slower: float) -> None:
    rates = Rates(cores, ready, slower * ready)
    share = rates.best_share()
    assert all(rates.together(0.99 * share * step / 10) < rates.together(share) for step in range(11) if share > 0.001)


@pytest.mark.parametrize(
    ("rates", "most", "share"),
    [
        (Rates(100.0, 100.0, 50.0), 1.0, 0.0),
        (Rates(200.0, 100.0, 50.0), 1.0, 0.0),
        (Rates(0.0, 100.0, 50.0), 1.0, 1.0),
        (Rates(0.0, 100.0, 50.0), 0.4, 0.4),
        (Rates(50.0, 100.0, 100.0), 1.0, 0.5),
        (Rates(50.0, 100.0, 100.0), 0.3, 0.3),
        (Rates(50.0, 100.0, 110.0), 1.0, pytest.approx(0.52, abs=0.01)),
        (Rates(25.0, 100.0, 50.0), 1.0, pytest.approx(0.6)),
    ],
    ids=["even", "fast cores", "no cores", "no cores, bounded", "free", "bounded", "counted for the other", "usual"],
)
def test_corners(rates: Rates, most: float, share: float) -> None:
    assert rates.best_share(most) == share


@dataclass
class Plant:
    """Cores and predictors at work, whose shares are what the policy says; the cost of a raw row may depend on the share."""

    cores: float
    """Rows a second, like the other rates."""
    ready: float
    front: float
    aside: bool
    """The front works beside the model: what it does while the model works costs nothing."""
    share: float
    noise: float = 0.0
    seed: int = 0
    most: float | None = None
    copies: int = 8
    aims: list[Aim] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy = SharePolicy("classify", self.most)
        self.now = 0.0
        self.works = [Work(copies=self.copies), Work(copies=2), Work(copies=2)]
        self._random = random.Random(self.seed)

    def raw_seconds(self, share: float) -> float:
        """Return what a raw row costs the predictors."""
        if not self.aside:
            return 1 / self.ready + 1 / self.front
        return max(1 / self.ready, 1 / self.front - (1 - share) / share / self.ready) if share else 1 / self.ready

    def rate(self, share: float) -> float:
        rates = Rates(self.cores, self.ready, 1 / self.raw_seconds(share))
        return rates.together(share)

    def best(self) -> float:
        return max(self.rate(step / STEPS) for step in range(STEPS + 1))

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            rows = self.rate(self.share)
            ready, raw = rows * (1 - self.share), rows * self.share
            costs = (self.copies / self.cores, 2 / self.ready, 2 * self.raw_seconds(self.share))
            for kind, (done, cost) in enumerate(zip((ready, ready, raw), costs, strict=True)):
                self._add(kind, done, cost * self._random.uniform(1 - self.noise, 1 + self.noise))
            aim = self.policy.step(self.now, *self.works)
            if aim is not None:
                self.aims.append(aim)
                self.share = aim.share

    def _add(self, kind: int, rows: float, cost: float) -> None:
        work = self.works[kind]
        done = work.rows + round(rows)
        self.works[kind] = replace(work, rows=done, batches=done // BATCH, seconds=work.seconds + rows * cost)


PLANTS = st.builds(
    Plant,
    cores=st.floats(2_000, 30_000),
    ready=st.floats(8_000, 30_000),
    front=st.floats(4_000, 60_000),
    aside=st.booleans(),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 1000),
)


@settings(max_examples=100)
@given(PLANTS, st.sampled_from([0.0, 0.05, 0.1]))
def test_the_best_share_is_found_from_any_start_and_stays(plant: Plant, noise: float) -> None:
    plant.noise = noise
    plant.run(120)
    before = len(plant.aims)
    assert plant.aims and before <= 8, [aim.reason for aim in plant.aims]
    assert plant.rate(plant.share) >= 0.85 * plant.best(), (plant.share, plant.rate(plant.share), plant.best())
    plant.run(300)
    assert len(plant.aims) - before <= 4, [aim.reason for aim in plant.aims]


@settings(max_examples=50)
@given(PLANTS, SHARE)
def test_no_aim_passes_the_bound_of_the_user(plant: Plant, most: float) -> None:
    bounded = replace(plant, most=most, noise=0.1)
    bounded.run(60)
    assert all(aim.share <= most for aim in bounded.aims)


def test_it_follows_a_machine_that_changes() -> None:
    plant = Plant(cores=9_000, ready=20_000, front=25_000, aside=False, share=0.9)
    plant.run(60)
    plant.cores = 3_000
    plant.run(60)
    assert plant.rate(plant.share) >= 0.9 * plant.best()
    assert [round(aim.share, 1) for aim in (plant.aims[0], plant.aims[-1])] == [0.4, 0.7]


COUNTS = (Work(2_280, 9, 2.0, 8), Work(10_150, 40, 1.0, 2), Work(5_700, 23, 1.0, 2))
"""Of one second: 9,120, 20,300 and 11,400 rows a second with the copies that there are."""


def after(seconds: int) -> tuple[Work, ...]:
    return tuple(Work(seconds * work.rows, seconds * work.batches, seconds * work.seconds, work.copies) for work in COUNTS)


def test_a_decision_explains_itself() -> None:
    policy = SharePolicy("classify")
    lines = [aim.reason for second in range(20) if (aim := policy.step(float(second), *after(second))) is not None]
    assert lines == [
        "classify: aims at 41% raw rows: the cores make 9,120 rows/s, the model 20,300 of theirs or 11,400 raw ones, together 15,398"
    ]
    policy = SharePolicy("classify", 0.25)
    (aim,) = [aim for second in range(20) if (aim := policy.step(float(second), *after(second))) is not None]
    assert aim.reason.startswith("classify: aims at 25% raw rows (gpu_share allows 25%): the cores make 9,120 rows/s")


def test_there_is_no_aim_while_a_kind_is_unknown_and_later_its_last_rate_counts() -> None:
    policy = SharePolicy("classify")
    few = Work(WINDOW_BATCHES - 1, WINDOW_BATCHES - 1, 1.0)
    for second in range(20):
        cores, ready, _ = after(second)
        assert policy.step(float(second), cores, ready, few if second else Work()) is None
    found = [policy.step(20.0 + second, *after(20 + second)) for second in range(20)]
    assert [aim.share for aim in found if aim is not None] == [pytest.approx(0.41, abs=0.01)]
    # The cores get twice the copies, and no raw row is taken any more.
    raw = after(39)[2]
    later = []
    for second in range(40, 60):
        cores, ready, _ = after(second)
        later.append(policy.step(float(second), replace(cores, copies=16), ready, raw))
    assert [aim.share for aim in later if aim is not None] == [pytest.approx(0.06, abs=0.01)]


def test_what_is_done_meanwhile_is_left_out_after_a_pause() -> None:
    policy = SharePolicy("classify")
    for second in range(20):
        policy.step(float(second), *after(second))
    policy.pause()
    slow = Work(0, 0, 1000.0)
    later = [
        policy.step(20.0 + second, *(replace(work, seconds=work.seconds + slow.seconds) for work in after(20 + second)))
        for second in range(20)
    ]
    assert later == [None] * 20


def test_an_aim_that_goes_up_and_down_is_doubted_until_it_is_calm() -> None:
    policy = SharePolicy("classify")
    rates = {high: Rates(9_000.0 if high else 6_500.0, 20_000.0, 10_000.0) for high in (False, True)}
    assert LEAST_CHANGE < rates[False].best_share() - rates[True].best_share() < 4 * LEAST_CHANGE
    changes = [aim for second in range(50) if (aim := policy._decide(float(second), rates[bool(second % 2)])) is not None]
    assert 2 <= len(changes) <= 4
    assert policy._decide(50.0 + CALM_SECONDS, rates[changes[-1].share == rates[False].best_share()]) is not None


@given(SHARE, st.lists(st.sampled_from(["both", "ready", "raw"]), min_size=200, max_size=200))
def test_turns_keep_to_the_aim_where_there_is_a_choice_and_make_up_for_little(aim: float, there: list[str]) -> None:
    turns = Turns(aim, BATCH)
    for kind in there:
        turns.took(BATCH, raw=turns.is_raw if kind == "both" else kind == "raw")
    taken = []
    for _ in range(200):
        taken.append(turns.is_raw)
        turns.took(BATCH, raw=taken[-1])
    assert sum(taken) == pytest.approx(200 * aim, abs=3.5)


def test_turns_are_evenly_spread() -> None:
    turns, taken = Turns(0.5, BATCH), []
    for _ in range(40):
        turns.took(BATCH, raw=False)
    for _ in range(12):
        taken.append(turns.is_raw)
        turns.took(BATCH, raw=taken[-1])
    assert taken == [True] * 4 + [False, True] * 4


@pytest.mark.parametrize(
    ("aim", "before", "under_way", "may"),
    [
        (0.0, "raw raw", 0, True),
        (0.0, "", 1, True),
        (0.0, "raw", 1, False),
        (0.0, "", 3, False),
        (0.5, "ready", 4, True),
        (0.5, "raw", 2, True),
        (0.5, "raw", 3, False),
        (0.9, "raw", 3, True),
        (0.8, "raw raw raw raw raw", 4, False),
        (1.0, "raw raw raw raw raw", 5, True),
    ],
)
def test_raw_batches_leave_room_for_ready_ones(aim: float, before: str, under_way: int, may: bool) -> None:
    turns = Turns(aim, BATCH)
    for kind in before.split():
        turns.took(BATCH, raw=kind == "raw")
    assert turns.may_be_raw(under_way) is may


def test_batches_that_grow_are_reckoned_with_as_they_are() -> None:
    turns, taken = Turns(0.25, 8), []
    for _ in range(40):
        taken.append(turns.is_raw)
        turns.took(BATCH, raw=taken[-1])
    assert sum(taken) == 10


def test_there_is_no_aim_while_nobody_is_there() -> None:
    policy, work = SharePolicy("classify"), Work(0, 0, 0.0)
    for second in range(0, 40, 2):
        work = Work(work.rows + 1_000, work.batches + 10, work.seconds + 1.0)
        assert policy.step(float(second), replace(work, copies=0), work, work) is None
        assert policy.step(float(second), work, replace(work, copies=0), work) is None
