"""Leaks, and memory that is only used, in virtual time."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from antinfer.core.causes import Cause
from antinfer.worker.pipeline.leaks import LEAST_BYTES, Life, Memory, lifetime

MIB = 1 << 20


def watch(size: Callable[[float], float], seconds: int = 3600) -> tuple[float, str]:
    """Return when a process that holds `size` MiB after so many seconds is found to leak, and why; the end when it is not."""
    life = Life()
    for at in range(seconds):
        why = life.holds(float(at), Memory(int(size(at) * MIB), 0, 0))
        if why:
            assert why.cause is Cause.PROCESS_LEAK
            return at, why.why
    return seconds, ""


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_is_found_before_it_hurts(seed: int) -> None:
    chance = random.Random(seed)
    at, why = watch(lambda at: 800 + 2 * at + chance.uniform(0, 200))
    found = re.fullmatch(r"its memory grew from \d+ to \d+ MiB and goes on by (\d+) MiB a minute", why)
    assert found is not None and 80 <= int(found[1]) <= 160
    assert 200 < at < 600


@pytest.mark.parametrize(
    "size",
    [
        lambda at: 4000.0,
        lambda at: 500 + min(at, 300) * 10.0,  # warms up for five minutes, and stays
        lambda at: 500 + (at % 120) * 30.0,  # fills a cache and empties it
        lambda at: 20_000 + at * 0.2,  # grows, but by less than anybody misses
        lambda at: 500 + 1000 * (at > 1000) + 1500 * (at > 2000),  # larger batches
    ],
)
def test_memory_that_is_used_is_no_leak(size: Callable[[float], float]) -> None:
    at, why = watch(size)
    # Something that grows for five minutes cannot be told from a leak, but it is found once at most.
    assert not why or at <= 300


@pytest.mark.parametrize(("kind", "words"), [(1, "its shared memory grew"), (2, "its GPU memory grew")])
def test_every_kind_of_memory_counts(kind: int, words: str) -> None:
    life = Life()
    found = [life.holds(float(at), Memory(*(at * 5 * MIB if index == kind else 0 for index in range(3)))) for at in range(600)]
    assert any(why is not None and why.why.startswith(words) for why in found)
    assert LEAST_BYTES > 0


def test_a_life_has_its_length() -> None:
    assert lifetime("off") == (None, None) and lifetime(7) == (7, None) and lifetime("90.0s") == (None, 90.0)
    batches = Life(batches=3)
    assert [bool(batches.lived(float(at))) for at in range(4)] == [False, False, True, True]
    seconds = Life(seconds=10.0)
    assert [bool(seconds.lived(at)) for at in (100.0, 105.0, 110.0)] == [False, False, True]
    assert not any(Life().lived(float(at)) for at in range(1000))
