from __future__ import annotations

import math
import zlib
from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from antinfer.metrics.elementary import _LN2_HIGH, _LN2_LOW, log, log_likelihood

getcontext().prec = 60


def log_complement(values: np.ndarray) -> np.ndarray:
    return log_likelihood(values, np.zeros(len(values), dtype=bool))


def ulps(found: float, true: Decimal) -> float:
    return float(abs(Decimal(found) - true) / Decimal(math.ulp(float(true))))


def test_the_constants_add_up_to_ln_2() -> None:
    assert abs(Decimal(_LN2_HIGH) + Decimal(_LN2_LOW) - Decimal(2).ln()) < Decimal(2) ** -98
    assert all(Fraction(_LN2_HIGH * power) == Fraction(_LN2_HIGH) * power for power in range(1075))


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
@example(5e-324)
@example(1.0)
@example(math.nextafter(1.0, 0.0))
@example(math.nextafter(1.0, 2.0))
@example(math.sqrt(0.5))
def test_log_is_within_3_units_in_the_last_place(value: float) -> None:
    assert ulps(float(log(np.array([value]))[0]), Decimal(value).ln()) <= 3


@given(st.floats(min_value=0, max_value=1, exclude_max=True))
@example(5e-324)
@example(1e-17)
@example(0.5)
@example(1 - 1e-15)
def test_log_complement_keeps_the_digits_of_small_values(value: float) -> None:
    exact = Decimal(value)
    # Decimal would round 1 - value; below 1e-12 five terms of the series hold more digits than are compared.
    true = (1 - exact).ln() if value > 1e-12 else -sum(exact**power / power for power in range(1, 6))
    assert ulps(float(log_complement(np.array([value]))[0]), Decimal(true)) <= 4


def test_the_likelihood_of_a_hit_is_the_plain_logarithm(seed: int) -> None:
    values = np.random.default_rng(seed).random(1000) + 1e-9
    hits = values > 0.3
    found = log_likelihood(values / 2, hits)
    assert found[hits].tolist() == log(values[hits] / 2).tolist()
    assert found[~hits].tolist() == log_complement(values[~hits] / 2).tolist()


def test_log_of_one_is_zero() -> None:
    assert log(np.array([1.0]))[0] == 0.0
    assert log_complement(np.array([0.0]))[0] == 0.0


@pytest.mark.parametrize("function", [log, log_complement])
def test_a_value_gives_the_same_bits_wherever_it_stands(function: object, seed: int) -> None:
    values = np.random.default_rng(seed).uniform(1e-9, 1 - 1e-9, 1001)
    whole = function(values)  # type: ignore[operator]
    assert [function(values[index : index + 1])[0] for index in range(1001)] == whole.tolist()  # type: ignore[operator]
    assert function(values[::3]).tolist() == whole[::3].tolist()  # type: ignore[operator]


def test_known_bits() -> None:
    # Frozen: another result on another machine, numpy or Python is the fault that this module is there to prevent.
    values = np.array([1e-300, 0.1, 0.3, 0.7, 0.75, 0.999999, 1.0, 3.0])
    grid = np.arange(1, 1 << 16) / (3 << 15)
    assert zlib.crc32(log(grid).astype("<f8").tobytes()) == 2895531873
    assert zlib.crc32(log_complement(grid).astype("<f8").tobytes()) == 1695440669
    assert [value.hex() for value in log(values).tolist()] == [
        "-0x1.5963447f87fb5p+9",
        "-0x1.26bb1bbb55515p+1",
        "-0x1.34378fcbda721p+0",
        "-0x1.6d3c324e13f50p-2",
        "-0x1.269621134db92p-2",
        "-0x1.0c6f82d74d230p-20",
        "0x0.0p+0",
        "0x1.193ea7aad030bp+0",
    ]
    assert [value.hex() for value in log_complement(values[:6]).tolist()] == [
        "-0x1.56e1fc2f8f359p-997",
        "-0x1.af8e8210a415ep-4",
        "-0x1.6d3c324e13f4fp-2",
        "-0x1.34378fcbda720p+0",
        "-0x1.62e42fefa39efp+0",
        "-0x1.ba18a998fc064p+3",
    ]
