"""`on_demand` is kept exactly, for every number of workers."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.core.scaling.shares import split
from antinfer.core.scaling.values import PREEMPTIBLE, PROTECTED


@pytest.mark.parametrize(
    ("total", "share", "protected"),
    [
        (10, 0.5, 5), (4, 0.25, 1), (5, 0.6, 3), (10, 0.6, 6), (1, 0.6, 1), (1, 0.1, 1), (3, 0.0, 0), (3, 1.0, 3), (100, 0.07, 7),
        (100, 0.29, 29), (0, 0.6, 0),
    ],
)  # fmt: skip
def test_known_shares(total: int, share: float, protected: int) -> None:
    assert split(total, share) == {PROTECTED: protected, PREEMPTIBLE: total - protected}


@given(total=st.integers(0, 5_000), cents=st.integers(0, 1_000))
def test_at_least_the_share_and_not_one_more(total: int, cents: int) -> None:
    exact = Fraction(cents, 1_000) * total
    protected = split(total, cents / 1_000)[PROTECTED]
    assert exact <= protected < exact + 1


@given(total=st.integers(0, 5_000), share=st.floats(0, 1))
def test_growing_by_one_changes_one_class_by_one(total: int, share: float) -> None:
    before, after = split(total, share), split(total + 1, share)
    assert sorted(after[name] - before[name] for name in before) == [0, 1]
