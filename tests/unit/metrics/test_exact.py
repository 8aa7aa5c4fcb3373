from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.metrics import ExactSum
from antinfer.metrics.exact import UNIT_BITS, divide, pack_integer, square_root, sum_square_units, sum_units, unpack_integer

finite = st.floats(allow_nan=False, allow_infinity=False)
# Extremes, subnormals and cancellation, which uniform draws seldom meet.
corners = st.sampled_from(
    [0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 2.225073858507201e-308, 1.7976931348623157e308, 1.0, 2**-53]
)
floats = st.lists(finite | corners | corners.map(lambda value: -value), max_size=60)


def exact(values: list[float]) -> Fraction:
    return sum(map(Fraction, values), Fraction(0))


@given(floats)
def test_sum_is_the_exact_sum(values: list[float]) -> None:
    assert Fraction(sum_units(np.array(values)), 1 << UNIT_BITS) == exact(values)


@given(floats)
def test_sum_of_squares_is_exact(values: list[float]) -> None:
    expected = sum((Fraction(value) ** 2 for value in values), Fraction(0))
    assert Fraction(sum_square_units(np.array(values)), 1 << (2 * UNIT_BITS)) == expected


@given(floats)
def test_sum_rounds_as_fsum_does(values: list[float]) -> None:
    total = ExactSum()
    total.add(np.array(values))
    try:
        expected = math.fsum(values)
    except OverflowError:
        # fsum gives up on intermediate overflow; Fraction rounds the true sum, and refuses only what no float64 can hold.
        try:
            expected = float(exact(values))
        except OverflowError:
            expected = math.inf if exact(values) > 0 else -math.inf
    assert float(total) == expected


@pytest.mark.parametrize("size", [1, 32767, 32768, 32769, 200_000])
@pytest.mark.parametrize("spread", [1, 40, 700])
def test_sum_of_many_values_over_chunk_borders(size: int, spread: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = np.ldexp(generator.standard_normal(size), generator.integers(-spread, spread, size))
    total = ExactSum()
    total.add(values)
    assert float(total) == math.fsum(values)
    squares = sum(int(value * 2**900) ** 2 for value in map(Fraction, values[:500].tolist()))
    assert Fraction(sum_square_units(values[:500]), 1 << (2 * UNIT_BITS)) == Fraction(squares, 1 << 1800)


@pytest.mark.parametrize("extreme", [1.7976931348623157e308, 2.0**-1022 - 2.0**-1074, 0.5 + 2**-53])
def test_a_whole_chunk_of_extreme_values_stays_exact(extreme: float) -> None:
    values = np.full(1 << 15, extreme)
    assert Fraction(sum_units(values), 1 << UNIT_BITS) == Fraction(extreme) * (1 << 15)
    assert Fraction(sum_square_units(values), 1 << (2 * UNIT_BITS)) == Fraction(extreme) ** 2 * (1 << 15)


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(2**53, 2**53 + 3), max_size=30))
def test_integers_beyond_float64_stay_exact(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    assert sum_units(array) == sum(values) << UNIT_BITS
    assert sum_square_units(array) == sum(value**2 for value in values) << (2 * UNIT_BITS)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "uint64", "float16", "float32"])
def test_every_type_of_number_is_summed(dtype: str) -> None:
    values = np.array([0, 1, 1, 1], dtype=dtype)
    assert sum_units(values) == 3 << UNIT_BITS
    assert sum_square_units(values) == 3 << (2 * UNIT_BITS)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, math.inf], math.inf),
        ([1.0, -math.inf], -math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan, math.inf], math.nan),
        ([], 0.0),
        ([1.7976931348623157e308] * 2, math.inf),
        ([-1.7976931348623157e308] * 2, -math.inf),
        ([1.7976931348623157e308] * 2 + [-1.7976931348623157e308] * 2 + [1.0], 1.0),
    ],
)
def test_infinities_and_nan_follow_ieee_addition(values: list[float], expected: float) -> None:
    total = ExactSum()
    total.add(np.array(values))
    assert float(total) == expected or (math.isnan(expected) and math.isnan(float(total)))
    if values:
        assert total.over(4) == expected / 4 or math.isnan(expected) or abs(expected) == math.inf


def test_the_mean_of_huge_values_does_not_overflow() -> None:
    total = ExactSum()
    total.add(np.full(4, 1.7976931348623157e308))
    assert total.over(4) == 1.7976931348623157e308


@given(floats, st.randoms(use_true_random=False), st.integers(1, 7))
def test_grouping_and_order_do_not_change_the_state(values: list[float], shuffle: object, groups: int) -> None:
    whole = ExactSum()
    whole.add(np.array(values))
    shuffled = list(values)
    shuffle.shuffle(shuffled)  # type: ignore[attr-defined]
    merged = ExactSum()
    for group in range(groups):
        part = ExactSum()
        part.add(np.array(shuffled[group::groups]))
        merged.merge(json.loads(json.dumps(part.state())))
    assert merged.state() == whole.state()


@given(st.integers())
def test_packed_integers_come_back_and_are_canonical(value: int) -> None:
    packed = pack_integer(value)
    assert unpack_integer(json.loads(json.dumps(packed))) == value
    assert value == 0 or int(str(packed[0]), 16) % 2 == 1


@given(st.fractions(min_value=0), st.integers(-2200, 1900))
def test_square_root_is_rounded_to_nearest(value: Fraction, shift: int) -> None:
    value *= Fraction(2) ** shift
    root = square_root(value.numerator, value.denominator)
    if math.isinf(root):
        assert value >= Fraction(2) ** 2048 * (1 - Fraction(1, 2**54)) ** 2
        return
    below, above = (
        Fraction(root) + Fraction(math.nextafter(root, to)) for to in (-math.inf, math.inf) if math.isfinite(math.nextafter(root, to))
    )
    assert value == 0 or (max(below, 0) / 2) ** 2 <= value <= (above / 2) ** 2


def test_square_root_just_above_a_tie_is_rounded_up() -> None:
    value = Fraction(2**53 + 1) ** 2 + Fraction(1, 2**400)
    assert square_root(value.numerator, value.denominator) == 2.0**53 + 2


@given(st.integers(), st.integers(min_value=1))
def test_divide_rounds_to_nearest_even(numerator: int, denominator: int) -> None:
    assert divide(numerator, denominator) == float(Fraction(numerator, denominator))
