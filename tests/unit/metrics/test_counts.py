from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.metrics.counts import pack_counts, unpack_counts


@given(st.lists(st.integers(0, 300) | st.integers(0, 2**63 - 1), min_size=1, max_size=130))
def test_counts_come_back(values: list[int]) -> None:
    counts = np.array(values, dtype=np.int64)
    packed = json.loads(json.dumps(pack_counts(counts)))
    assert unpack_counts(packed, len(values)).tolist() == values
    assert isinstance(packed, list) == (len(values) <= 64)


def test_many_zeros_are_short() -> None:
    assert len(pack_counts(np.zeros(100_000, dtype=np.int64))) < 200


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-8],
        lambda text: "i1" + text[2:],
        lambda text: text[:9] + "!!!!" + text[9:],
        lambda text: text[3:],
        lambda text: [1],
    ],
    ids=["cut", "type", "alien characters", "no type", "too few"],
)
def test_damage_is_noticed(damage: object) -> None:
    packed = pack_counts(np.arange(100))
    with pytest.raises(ValueError):
        unpack_counts(damage(packed), 100)  # type: ignore[operator]
