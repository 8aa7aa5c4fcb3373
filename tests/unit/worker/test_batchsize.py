"""The batch size policy against simulated devices: rows per second, memory, noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antinfer.worker.tuning.batchsize import FIRST_ROWS, BatchSizePolicy, Decision, Sample


@dataclass
class Device:
    """Computes a batch in ``(rows + half) / rate`` seconds: at `half` rows it does half of what it can."""

    rate: float = 10_000.0
    half: float = 10.0
    memory: int = 80 << 30
    row_bytes: int = 1 << 20
    """Device memory that a row of the largest batch so far takes."""
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.largest = 0

    def speed(self, rows: int) -> float:
        return self.rate * rows / (rows + self.half)

    def fits(self, rows: int) -> bool:
        return rows * self.row_bytes <= self.memory

    def run(self, rows: int, executor: int = 0) -> Sample:
        self.largest = max(self.largest, rows)
        # Interference makes a batch slower, never faster.
        seconds = rows / self.speed(rows) * math.exp(abs(self.random.gauss(0, self.noise)))
        return Sample(rows, rows * 1000, seconds, executor, self.memory - self.largest * self.row_bytes)


def drive(policy: BatchSizePolicy, device: Device, batches: int = 400) -> list[Decision]:
    decisions = []
    for _ in range(batches):
        rows = policy.rows
        decision = policy.observe(device.run(rows)) if device.fits(rows) else policy.ran_out(rows)
        if decision is not None:
            decisions.append(decision)
    return decisions


def test_it_stops_at_the_knee_and_says_why() -> None:
    policy = BatchSizePolicy(FIRST_ROWS, 4096, probes=True)
    decisions = drive(policy, Device(half=10))
    # From 64 on, doubling brings 7 % and less.
    assert policy.rows == 128
    assert [decision.rows for decision in decisions] == [16, 32, 64, 128, 128]
    assert decisions[-1].settled and "knee" in decisions[-1].reason and "+7%" in decisions[-1].reason
    assert not any(decision.settled for decision in decisions[:-1])


def test_the_first_batch_of_each_process_is_not_timed() -> None:
    policy = BatchSizePolicy(8, 4096, probes=True)
    device = Device()
    for executor in (1, 2, 3):
        # Compiling takes a minute; had it counted, doubling would look like a wonder.
        slow = device.run(8, executor)
        assert policy.observe(Sample(8, slow.size_bytes, 60.0, executor)) is None
    for executor in (1, 2, 3, 1, 2, 3, 1):
        assert (decision := policy.observe(device.run(8, executor))) is None or executor == 1
    assert decision is not None and decision.rows == 16


def test_batches_that_overlap_are_timed_together() -> None:
    policy = BatchSizePolicy(8, 4096, max_bytes=64_000, probes=True)
    for turn in range(60):
        # Three at a time, each as long as the others: the last two are collected together with the first.
        policy.observe(Sample(policy.rows, policy.rows * 1000, 0.05 if turn % 3 == 0 else 1e-6 * (1 + turn % 7)))
    # Each doubling doubles the rows per second, so only the bytes end the search.
    assert policy.rows == 64


def test_batches_of_other_sizes_say_nothing_about_this_one() -> None:
    policy = BatchSizePolicy(8, 4096, probes=True)
    device = Device()
    assert all(policy.observe(device.run(rows)) is None for rows in [7, 4, 16, 1] * 10)
    assert policy.rows == 8


def test_batches_that_do_the_work_of_two_stages_are_compared_with_their_like() -> None:
    policy = BatchSizePolicy(8, 4096, probes=True)
    device, slow = Device(half=10), Device(half=10, rate=1_000)
    for turn in range(200):
        sample = (slow if turn % 2 else device).run(policy.rows)
        policy.observe(replace(sample, fused=bool(turn % 2), free_bytes=None))
    # Had they been mixed, every other doubling would have looked ten times slower.
    assert policy.rows == 128


@given(
    half=st.floats(0.1, 2_000),
    noise=st.floats(0, 0.15),
    rate=st.floats(1, 1e6),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=200)
def test_what_it_finds_is_near_the_best(half: float, noise: float, rate: float, seed: int) -> None:
    device = Device(rate=rate, half=half, noise=noise, seed=seed)
    policy = BatchSizePolicy(FIRST_ROWS, 4096, probes=True)
    decisions = drive(policy, device)
    assert decisions[-1].settled and sum(decision.settled for decision in decisions) == 1
    # It never shrinks on the way, but for the last step back.
    sizes = [decision.rows for decision in decisions]
    assert sizes[:-1] == sorted(sizes[:-1]) and len(sizes) <= 11
    # A knee of 8 % leaves at most 15 % on the table, and noise moves it by a few steps.
    assert device.speed(policy.rows) >= (0.8 - 2 * noise) * device.speed(4096)
    if noise == 0:
        assert policy.rows <= max(2 * FIRST_ROWS, 2 * 13 * half)


@pytest.mark.parametrize(("memory_rows", "found"), [(100, 64), (255, 128), (256, 128), (10_000, 4096)])
def test_memory_is_never_exceeded_when_it_is_known(memory_rows: int, found: int) -> None:
    device = Device(half=2_000, memory=memory_rows << 20)
    policy = BatchSizePolicy(FIRST_ROWS, 4096, probes=True)
    decisions = drive(policy, device)
    assert policy.rows == found and device.largest <= memory_rows
    assert not any("ran out" in decision.reason for decision in decisions)


def test_bytes_and_rows_are_limits() -> None:
    policy = BatchSizePolicy(8, 4096, max_bytes=100_000, probes=True)
    drive(policy, Device(half=2_000))
    assert policy.rows == 64
    policy = BatchSizePolicy(8, 50, probes=True)
    decisions = drive(policy, Device(half=2_000))
    assert policy.rows == 32 and "50" in decisions[-1].reason


def test_half_of_what_does_not_fit_and_all_of_it_again_later() -> None:
    device = Device(memory=300 << 20)
    policy = BatchSizePolicy(1024, 1024, probes=False)
    assert drive(policy, device, 2)[-1].rows == 256
    # Siblings that were cut before change nothing more.
    assert policy.ran_out(1024) is None and policy.ran_out(512) is None and policy.rows == 256
    device.memory = 2000 << 20
    decisions = drive(policy, device, 1000)
    assert [decision.rows for decision in decisions] == [512, 1024]
    assert policy.rows == 1024


def test_it_tries_again_more_and_more_seldom() -> None:
    device = Device(memory=300 << 20)
    policy = BatchSizePolicy(512, 512, probes=False)
    failures: list[int] = []
    at = 0
    while at < 5_000:
        if device.fits(policy.rows):
            policy.observe(device.run(policy.rows))
        else:
            failures.append(at)
            policy.ran_out(policy.rows)
        at += 1
    gaps = [later - earlier for earlier, later in pairwise(failures)]
    assert len(failures) <= 8 and all(later > 1.8 * earlier for earlier, later in pairwise(gaps))


@dataclass
class Opaque(Device):
    """Does not tell how much memory is free."""

    def run(self, rows: int, executor: int = 0) -> Sample:
        return replace(Device.run(self, rows, executor), free_bytes=None)


def outsize(policy: BatchSizePolicy, rows: int, fits_among: int) -> list[Decision]:
    """Run a batch out of memory, and of its halves always the one with the row that is to blame, until that fits."""
    decisions = []
    while rows > fits_among:
        if (decision := policy.ran_out(rows)) is not None:
            decisions.append(decision)
        rows //= 2
    return decisions


@pytest.mark.parametrize("at", [8, 16, 64])
@pytest.mark.parametrize("fits_among", [1, 3])
def test_an_outsize_row_while_probing_does_not_end_the_search(at: int, fits_among: int) -> None:
    policy = BatchSizePolicy(8, 4096, probes=True)
    device = Opaque(half=10)
    while policy.rows < at:
        policy.observe(device.run(policy.rows))
    cut = outsize(policy, at, fits_among)
    assert cut[-1].rows == policy.rows == (1 if fits_among == 1 else 2)
    # 64 batches for each step back up, and a few for each step of the search.
    again = drive(policy, device, 64 * 7 + 40)
    found = BatchSizePolicy(8, 4096, probes=True)
    assert again[-1].reason == drive(found, device)[-1].reason and policy.rows == found.rows == 128
    assert [decision.rows for decision in [*cut, *again] if decision.settled] == [128]


def test_memory_that_is_gone_for_a_while_as_the_search_begins_costs_little() -> None:
    policy = BatchSizePolicy(8, 4096, probes=True)
    device = Opaque(half=10, memory=5 << 20)
    assert [decision.settled for decision in drive(policy, device, 60)] == [False]
    device.memory = 80 << 30
    assert drive(policy, device, 150)[-1].settled and policy.rows == 128


@pytest.mark.parametrize("slots", [1, 3])
def test_a_limit_of_memory_that_nobody_knew_is_found_and_seldom_tried_again(slots: int) -> None:
    policy = BatchSizePolicy(8, 4096, probes=True)
    device = Opaque(half=2_000, memory=100 << 20)
    decisions: list[Decision] = []
    failures: list[int] = []
    for at in range(20_000 // slots):
        rows = policy.rows
        if not device.fits(rows):
            failures.append(at)
        for _ in range(slots):
            # Those that were cut to one size fail together.
            decision = policy.observe(device.run(rows)) if device.fits(rows) else policy.ran_out(rows)
            decisions += [] if decision is None else [decision]
    assert policy.rows == 64 and len(failures) <= 9
    gaps = [later - earlier for earlier, later in pairwise(failures)]
    assert all(later > 1.8 * earlier for earlier, later in pairwise(gaps))
    told = [at for at, decision in enumerate(decisions) if decision.settled]
    assert {decisions[at].rows for at in told} == {64} and "128 have run out of memory 2 times" in decisions[told[0]].reason
    assert sum("ran out" in decision.reason for decision in decisions[: told[0]]) == 2


def test_what_is_cut_is_not_found_until_the_larger_one_has_failed_again() -> None:
    policy = BatchSizePolicy(8, 4096, probes=True)
    device = Opaque(half=2_000, memory=100 << 20)
    while policy.rows < 128:
        policy.observe(device.run(policy.rows))
    for _ in range(2):
        assert not outsize(policy, 128, 64)[0].settled
        for batch in range(64):
            decision = policy.observe(device.run(policy.rows))
            assert (decision is None) == (batch < 63)
    assert decision is not None and decision.settled and decision.rows == policy.rows == 64
    device.memory = 80 << 30
    # More fits after all: the search goes on, and finds something better.
    better = drive(policy, device, 300)
    assert [decision.rows for decision in better if decision.settled] == [4096]


@given(
    half=st.floats(0.1, 2_000),
    fits=st.integers(8, 8_000),
    accidents=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 12)), max_size=6),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=200)
def test_a_row_that_fits_into_no_memory_leaves_no_trace(half: float, fits: int, accidents: list[tuple[int, int]], seed: int) -> None:
    spared, hit = (BatchSizePolicy(8, 4096, probes=True) for _ in range(2))
    devices = [Opaque(half=half, memory=fits << 20, noise=0.1, seed=seed) for _ in range(2)]
    random = Random(seed)
    for batches, good in accidents:
        assert drive(spared, devices[0], batches) == drive(hit, devices[1], batches)
        before = hit.rows
        if before > 1:
            hit.ran_out(before)
            rows = before // 2
            # Halves that do well are run in between, and may be all that fits now.
            for _ in range(random.randint(0, good)):
                hit.observe(Sample(rows, rows * 1000, 0.1))
            outsize(hit, rows, 1)
            assert hit.rows < before
            decision = hit.acquit(before)
            assert decision is not None and decision.rows == hit.rows == before and not decision.settled
            assert hit.acquit(before) is None
    assert drive(spared, devices[0], 1000) == drive(hit, devices[1], 1000)


def test_two_rows_that_fit_into_no_memory_one_in_each_half() -> None:
    policy = BatchSizePolicy(64, 64, probes=False)
    outsize(policy, 64, 1)
    assert policy.acquit(64) is not None and policy.rows == 64
    # The other half comes only now.
    outsize(policy, 32, 1)
    assert policy.acquit(64) is not None and policy.rows == 64
    assert drive(policy, Device(), 1000) == []


def test_a_row_that_fits_nowhere_acquits_no_other_size() -> None:
    policy = BatchSizePolicy(128, 128, probes=False)
    policy.ran_out(128)
    outsize(policy, 64, 1)
    assert policy.acquit(32) is not None and policy.rows == 32
    assert policy.acquit(64) is not None and policy.rows == 64
    assert policy.acquit(64) is None and policy.acquit(0) is None
    assert [decision.rows for decision in drive(policy, Device(), 64)] == [128]


@pytest.mark.parametrize(
    ("fitted", "rows", "cut"),
    [
        ([64], 5, 32),
        ([64], 64, 32),
        # Bytes cut it shorter than the rows would: half of those would change nothing.
        ([], 20, 10),
        ([12], 40, 20),
        ([25], 40, 25),
    ],
)
def test_a_few_rows_left_over_cut_no_deeper_than_what_has_fitted(fitted: list[int], rows: int, cut: int) -> None:
    policy = BatchSizePolicy(64, 64, probes=False)
    for each in fitted:
        policy.observe(Device().run(each))
    policy.ran_out(rows)
    assert policy.rows == cut
    # From there it goes back to where it was.
    assert drive(policy, Device(), 64 * 3)[-1].rows == policy.rows == 64


@given(
    most=st.integers(1, 5_000),
    probes=st.booleans(),
    batches=st.lists(st.tuples(st.sampled_from(["full", "some", "stale"]), st.floats(0, 1), st.integers(1, 40)), max_size=25),
    fits=st.integers(1, 5_000),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100)
def test_whatever_happens_it_finds_back(most: int, probes: bool, batches: list[tuple[str, float, int]], fits: int, seed: int) -> None:
    """Batches of all sizes fit or not, by accident; from then on the device is a plain one."""
    policy = BatchSizePolicy(min(8, most) if probes else most, most, probes=probes)
    random, device = Random(seed), Opaque(half=2_000, memory=fits << 20)
    chosen = policy.rows
    for kind, share, times in batches:
        for _ in range(times):
            rows = policy.rows
            rows = {"full": rows, "some": max(1, int(share * rows)), "stale": 2 * rows}[kind]
            before = policy.rows
            decision = policy.ran_out(rows) if random.random() < share * share / 10 else policy.observe(device.run(rows))
            assert 1 <= policy.rows <= most and (decision is None or decision.rows == policy.rows)
            assert decision is not None or policy.rows == before
    failures = 0
    for _ in range(4_000):
        failures += not device.fits(policy.rows)
        drive(policy, device, 1)
    assert failures <= 20
    while not device.fits(policy.rows):
        # A larger one is on trial right now.
        drive(policy, device, 1)
    # Doubling pays on this device as long as its memory allows: less than half of what fits is never the end.
    assert 2 * policy.rows >= min(fits, most if probes else chosen)


def test_one_row_is_the_end_of_halving() -> None:
    policy = BatchSizePolicy(4, 4, probes=False)
    assert [policy.ran_out(policy.rows) is None for _ in range(4)] == [False, False, True, True]
    assert policy.rows == 1


def test_what_was_found_before_is_taken_over_before_the_first_batch_only() -> None:
    policy = BatchSizePolicy(8, 4096, probes=True)
    decision = policy.recall(256, "NVIDIA H100")
    assert decision is not None and decision.rows == policy.rows == 256 and "NVIDIA H100" in decision.reason
    assert drive(policy, Device(), 100) == []
    for policy, rows in [
        (BatchSizePolicy(8, 128, probes=True), 256),
        (BatchSizePolicy(64, 64, probes=False), 32),
        (BatchSizePolicy(8, 128, probes=True), 0),
    ]:
        assert policy.recall(rows, "CPU") is None
    late = BatchSizePolicy(8, 4096, probes=True)
    late.observe(Device().run(8))
    assert late.recall(256, "CPU") is None
