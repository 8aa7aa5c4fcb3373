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


def test_memory_that_shrinks_while_probing_ends_the_search_at_what_did_well() -> None:
    policy = BatchSizePolicy(8, 4096, probes=True)
    device = Device(half=2_000)
    while policy.rows < 64:
        sample = device.run(policy.rows)
        policy.observe(Sample(sample.rows, sample.size_bytes, sample.seconds))
    decision = policy.ran_out(64)
    assert decision is not None and decision.rows == 32 and decision.settled
    assert drive(policy, Device(), 1000) == [] and policy.rows == 32


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
