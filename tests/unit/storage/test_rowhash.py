"""The order-free hash of row identities."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antinfer.storage import rowhash

offsets = st.lists(st.integers(0, 1 << 40), max_size=50, unique=True)


def splitmix(value: int) -> int:
    """The finaliser of splitmix64 in plain integers: an independent statement of what numpy computes."""
    mask = (1 << 64) - 1
    value ^= value >> 30
    value = value * 0xBF58476D1CE4E5B9 & mask
    value ^= value >> 27
    value = value * 0x94D049BB133111EB & mask
    return value ^ value >> 31


def expected(shard: int, rows: list[int]) -> str:
    mask, gamma = (1 << 64) - 1, 0x9E3779B97F4A7C15
    seed = splitmix((shard + 1) * gamma & mask)
    return f"{sum(splitmix((row + 1) * gamma & mask ^ seed) for row in rows) & mask:016x}"


@given(st.integers(0, 1 << 40), offsets)
def test_matches_plain_integers(shard: int, rows: list[int]):
    assert rowhash.hash_rows(shard, rows) == expected(shard, rows)


@given(st.integers(0, 1000), offsets, st.randoms(use_true_random=False))
def test_order_does_not_matter(shard: int, rows: list[int], random):
    shuffled = random.sample(rows, len(rows))
    assert rowhash.hash_rows(shard, rows) == rowhash.hash_rows(shard, shuffled)


@given(st.integers(0, 1000), st.integers(0, 100_000), st.integers(0, 80_000), st.integers(0, 80_000))
def test_ranges_add_up(shard: int, start: int, first: int, second: int):
    whole = rowhash.hash_range(shard, start, start + first + second)
    left, right = rowhash.hash_range(shard, start, start + first), rowhash.hash_range(shard, start + first, start + first + second)
    assert rowhash.combine(left, right) == whole
    assert rowhash.without(whole, left) == right


def test_a_range_is_its_rows():
    assert rowhash.hash_range(7, 100_000, 200_000) == rowhash.hash_rows(7, range(100_000, 200_000))
    assert rowhash.hash_range(7, 5, 5) == rowhash.hash_rows(7, []) == rowhash.EMPTY


def test_input_is_left_alone():
    import numpy as np

    rows = np.arange(10, dtype=np.uint64)
    rowhash.hash_rows(1, rows)
    assert rows.tolist() == list(range(10))


def test_mistakes_show():
    whole = rowhash.hash_range(3, 0, 1000)
    assert rowhash.hash_range(3, 0, 999) != whole
    assert rowhash.hash_rows(3, [*range(1000), 5]) != whole
    assert rowhash.hash_rows(3, [*range(1, 1000), 1000]) != whole
    assert rowhash.hash_range(4, 0, 1000) != whole
    assert rowhash.hash_range(3, 1, 2) != rowhash.hash_range(2, 2, 3)
