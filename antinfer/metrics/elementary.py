"""Logarithms that give the same bits on every machine.

`numpy.log` and the C library differ in the last bit between processors and versions, and the rows of one job are spread over many machines.
These functions use nothing but IEEE 754 addition, subtraction, multiplication, division and the splitting of floats, each in a pass of its
own, so that a row's loss depends on the row alone.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

# ln 2 in two parts; the first has so many trailing zero bits that its product with any exponent is exact.
_LN2_HIGH: Final = float.fromhex("0x1.62e42fefa3800p-1")
_LN2_LOW: Final = float.fromhex("0x1.ef35793c76730p-45")
_SQRT_HALF: Final = float.fromhex("0x1.6a09e667f3bcdp-1")
# 2 * atanh(s) = 2s + s * (2/3 s**2 + 2/5 s**4 + ...); with |s| < 0.172 the first term left out is below 2**-55 of the sum.
_SERIES: Final = tuple(2.0 / (2 * k + 1) for k in range(11, 0, -1))


def log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the natural logarithm of positive finite `values`, within 3 units in the last place, equal on all machines."""
    mantissas, exponents = np.frexp(values)
    small = mantissas < _SQRT_HALF
    mantissas = np.where(small, mantissas * 2.0, mantissas)
    powers = (exponents - small).astype(np.float64)
    ratio = (mantissas - 1.0) / (mantissas + 1.0)
    squared = ratio * ratio
    series = np.full_like(ratio, _SERIES[0])
    for coefficient in _SERIES[1:]:
        series *= squared
        series += coefficient
    series *= squared
    series *= ratio
    series += powers * _LN2_LOW
    series += 2.0 * ratio
    series += powers * _LN2_HIGH
    return series


def log_likelihood(probabilities: NDArray[np.float64], hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return ``log(p)`` where `hits` and ``log(1 - p)`` elsewhere, equal on all machines.

    Probabilities must lie in (0, 1] where `hits`, and in [0, 1) elsewhere; of small ones no digit is lost in ``1 - p``.
    """
    likelihoods = np.where(hits, probabilities, 1.0 - probabilities)
    # What the subtraction rounded away, itself exact; to first order it adds error / likelihood to the logarithm.
    errors = np.where(hits, 0.0, (1.0 - likelihoods) - probabilities)
    errors /= likelihoods
    errors += log(likelihoods)
    return errors
