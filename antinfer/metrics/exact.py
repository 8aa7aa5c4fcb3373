"""Exact sums of float64 values: the reason why merged metrics do not depend on grouping or order.

Every finite float64 is a whole multiple of 2**-1074, so a sum of them is one integer in that unit. Integers add without rounding, in any
order and any grouping; the sum is rounded to float64 once, at the very end, to the nearest value with ties to even.

The vectorised path splits each value into mantissa and exponent, the mantissa into two digits of at most 27 bits, and adds the digits of
equal exponent with `numpy.bincount`. A chunk holds so few values that none of these float64 partial sums can leave the 53 bits in which
they are exact.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

UNIT_BITS: Final = 1074
"""Sums are kept in units of 2**-UNIT_BITS, sums of squares in units of 2**-(2 * UNIT_BITS)."""

# Digits have at most 27 bits and partial sums must stay within 53: up to 2**26 values would be exact; 2**15 fit the cache.
_CHUNK: Final = 1 << 15
_EXACT_INTEGERS: Final = 1 << 53
# numpy.frexp gives mantissas of 53 bits below 1 and exponents down to -1073, so the lowest mantissa bit it can name is 2**-(1073 + 53).
_LOWEST_EXPONENT: Final = -1073
_MANTISSA_BITS: Final = 53
_FREXP_SLACK: Final = _MANTISSA_BITS - _LOWEST_EXPONENT - UNIT_BITS
_VELTKAMP: Final = float((1 << 27) + 1)


def sum_units(values: NDArray[Any]) -> int:
    """Return the exact sum of finite `values` (booleans, integers or floats up to float64) in units of 2**-1074."""
    if _needs_big_integers(values):
        return sum(map(int, values.tolist())) << UNIT_BITS
    total = 0
    for chunk in _chunks(values):
        mantissas, shifts, lowest = _split(chunk)
        mantissas *= 2.0**26
        high = np.trunc(mantissas)
        mantissas -= high
        mantissas *= 2.0**27
        total += _fold(shifts, [(high, 27), (mantissas, 0)], step=1) << (lowest - _LOWEST_EXPONENT)
    return total >> _FREXP_SLACK


def sum_square_units(values: NDArray[Any]) -> int:
    """Return the exact sum of the squares of finite `values` in units of 2**-2148.

    The square of a 53-bit mantissa is split without error into its rounded value and the rounding error (Veltkamp and Dekker), and each of
    the two into digits as in `sum_units`.
    """
    if _needs_big_integers(values):
        return sum(int(value) ** 2 for value in values.tolist()) << (2 * UNIT_BITS)
    total = 0
    for chunk in _chunks(values):
        mantissas, shifts, lowest = _split(chunk)
        scaled = _VELTKAMP * mantissas
        head = scaled - (scaled - mantissas)
        tail = mantissas - head
        square = mantissas * mantissas
        error = ((head * head - square) + 2.0 * head * tail) + tail * tail
        square *= 2.0**27
        square_high = np.trunc(square)
        error *= 2.0**80
        error_high = np.trunc(error)
        digits = [(square_high, 79), ((square - square_high) * 2.0**27, 52), (error_high, 26), ((error - error_high) * 2.0**26, 0)]
        total += _fold(shifts, digits, step=2) << (2 * (lowest - _LOWEST_EXPONENT))
    return total >> (2 * _FREXP_SLACK)


def divide(numerator: int, denominator: int) -> float:
    """Return the float64 nearest to the quotient, ties to even; infinite when it lies beyond the float64 range.

    `denominator` must be positive.
    """
    try:
        return numerator / denominator
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf


def square_root(numerator: int, denominator: int) -> float:
    """Return the float64 nearest to the square root of a non-negative quotient; infinite beyond the float64 range."""
    half_shift = max(0, (140 - numerator.bit_length() + denominator.bit_length()) // 2)
    scaled = numerator << (2 * half_shift)
    root = math.isqrt(scaled // denominator)
    # Rounding the integer root to odd keeps the later rounding to float64 from being a second one that could go the other way.
    root |= root * root * denominator != scaled
    return divide(root, 1 << half_shift)


def pack_integer(value: int) -> list[str | int]:
    """Return a short, canonical JSON form: the odd part in hexadecimal, and the power of two it is multiplied by."""
    twos = (value & -value).bit_length() - 1 if value else 0
    return [format(value >> twos, "x"), twos]


def unpack_integer(packed: list[str | int]) -> int:
    """Read what `pack_integer` wrote. Raises ValueError or TypeError on anything else."""
    digits, twos = packed
    if not isinstance(digits, str) or not isinstance(twos, int):
        raise TypeError(f"not a packed integer: {packed!r}")
    return int(digits, 16) << twos


class ExactSum:
    """A running sum of float64 values without rounding error, for accumulators of one's own.

    NaN and infinities are counted apart and decide the result as IEEE 754 addition would: NaN if there was one or if infinities of both
    signs met, else the infinity.
    """

    __slots__ = ("_minus_infinities", "_nans", "_plus_infinities", "_units")

    def __init__(self) -> None:
        self._units = 0
        self._nans = 0
        self._plus_infinities = 0
        self._minus_infinities = 0

    def add(self, values: NDArray[Any]) -> None:
        """Add every element of `values`: booleans, integers, or floats up to float64, of any shape."""
        values = np.ravel(values)
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                odd = values[~finite]
                self._nans += int(np.isnan(odd).sum())
                self._plus_infinities += int((odd == np.inf).sum())
                self._minus_infinities += int((odd == -np.inf).sum())
                values = values[finite]
        self._units += sum_units(values)

    def __float__(self) -> float:
        """The sum, rounded once to the nearest float64 (ties to even); infinite when it lies beyond the float64 range."""
        if self._nans or (self._plus_infinities and self._minus_infinities):
            return math.nan
        if self._plus_infinities or self._minus_infinities:
            return math.inf if self._plus_infinities else -math.inf
        return divide(self._units, 1 << UNIT_BITS)

    def over(self, count: int) -> float:
        """Return the sum divided by a positive `count`, rounded once."""
        if self._nans or self._plus_infinities or self._minus_infinities:
            return float(self)
        return divide(self._units, count << UNIT_BITS)

    def state(self) -> list[Any]:
        """Return the sum as JSON data, equal for equal sums."""
        return [*pack_integer(self._units), self._nans, self._plus_infinities, self._minus_infinities]

    def merge(self, state: list[Any]) -> None:
        """Add another sum's `state`. Raises ValueError or TypeError when it is not one."""
        digits, twos, nans, plus, minus = state
        self._units += unpack_integer([digits, twos])
        self._nans += nans
        self._plus_infinities += plus
        self._minus_infinities += minus


def _needs_big_integers(values: NDArray[Any]) -> bool:
    """Tell whether float64 cannot hold every one of the integers `values`."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or not values.size:
        return False
    return int(values.max()) > _EXACT_INTEGERS or int(values.min()) < -_EXACT_INTEGERS


def _chunks(values: NDArray[Any]) -> list[NDArray[np.float64]]:
    return [values[start : start + _CHUNK].astype(np.float64, copy=False) for start in range(0, len(values), _CHUNK)]


def _split(chunk: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp], int]:
    """Return mantissas in (-1, 1), exponents above the lowest one, and that lowest exponent."""
    mantissas, exponents = np.frexp(chunk)
    lowest = int(exponents.min())
    return mantissas, np.subtract(exponents, lowest, dtype=np.intp), lowest


def _fold(shifts: NDArray[np.intp], digits: list[tuple[NDArray[np.float64], int]], *, step: int) -> int:
    """Add up digits: each weighs two to the power of its own position plus `step` times its shift."""
    total = 0
    for weights, position in digits:
        for shift, digit_sum in enumerate(np.bincount(shifts, weights=weights).tolist()):
            if digit_sum:
                total += int(digit_sum) << (position + step * shift)
    return total
