"""`count` and `mean`: how many, how much, how spread."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from antinfer.metrics.base import Accumulator, Batch
from antinfer.metrics.columns import Column
from antinfer.metrics.config import Config
from antinfer.metrics.exact import UNIT_BITS, divide, pack_integer, square_root, sum_square_units, sum_units, unpack_integer


class Count(Accumulator):
    """``{type: count}``: output rows. With ``value: COLUMN``: rows in which that column is not null.

    Result: ``count``.
    """

    def __init__(self, value: str | None = None) -> None:
        self.columns = (value,) if value else ()
        self._count = 0

    @classmethod
    def from_config(cls, config: Config) -> Self:
        value = config.column("value") if config.take("value") is not None else None
        config.finish()
        return cls(value)

    def update(self, batch: Batch) -> None:
        self._count += batch.rows

    def state(self) -> int:
        return self._count

    def merge(self, state: int) -> None:
        self._count += int(state)

    def result(self) -> dict[str, Any]:
        return {"count": self._count}


class Mean(Accumulator):
    """``{type: mean, value: COLUMN, ddof: 0}``: mean, sum, extremes and spread of a column of numbers.

    Every figure is computed exactly and rounded once. `ddof` 0 gives the variance of the rows as they are, 1 the unbiased estimate from a
    sample. NaN and infinities are left out and counted in ``nan`` and ``infinite``.

    Result: ``count`` (finite values), ``mean``, ``sum``, ``min``, ``max``, ``variance``, ``std``, ``nan``, ``infinite``. A figure that is
    undefined (no values) or beyond the float64 range is None.
    """

    def __init__(self, value: Column, *, ddof: int = 0) -> None:
        self.columns = (value.name,)
        self._value = value
        self._ddof = ddof
        self._count = 0
        self._nan = 0
        self._infinite = 0
        self._sum = 0
        self._squares = 0
        self._low: int | float | None = None
        self._high: int | float | None = None

    @classmethod
    def from_config(cls, config: Config) -> Self:
        value = Column.of(config, "value")
        ddof = config.integer("ddof", 0, low=0, high=1)
        config.finish()
        return cls(value, ddof=ddof)

    def update(self, batch: Batch) -> None:
        values = self._value.numbers(batch)
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                nan = int(np.isnan(values).sum())
                self._nan += nan
                self._infinite += values.size - int(finite.sum()) - nan
                values = values[finite]
        if not values.size:
            return
        self._count += values.size
        self._sum += sum_units(values)
        self._squares += sum_square_units(values)
        self._extend(values.min().item(), values.max().item())

    def _extend(self, low: int | float, high: int | float) -> None:
        self._low = low if self._low is None else min(self._low, low)
        self._high = high if self._high is None else max(self._high, high)

    def state(self) -> dict[str, Any]:
        return {
            "count": self._count,
            "nan": self._nan,
            "infinite": self._infinite,
            "sum": pack_integer(self._sum),
            "squares": pack_integer(self._squares),
            "range": None if self._low is None or self._high is None else [self._low, self._high],
        }

    def merge(self, state: dict[str, Any]) -> None:
        self._count += state["count"]
        self._nan += state["nan"]
        self._infinite += state["infinite"]
        self._sum += unpack_integer(state["sum"])
        self._squares += unpack_integer(state["squares"])
        if state["range"] is not None:
            self._extend(*state["range"])

    def result(self) -> dict[str, Any]:
        empty = not self._count
        spread, freedom = self._count * self._squares - self._sum * self._sum, self._count * (self._count - self._ddof)
        undefined = freedom <= 0
        return {
            "count": self._count,
            "mean": None if empty else _finite(divide(self._sum, self._count << UNIT_BITS)),
            "sum": _finite(divide(self._sum, 1 << UNIT_BITS)),
            "min": _canonical(self._low),
            "max": _canonical(self._high),
            "variance": None if undefined else _finite(divide(spread, freedom << (2 * UNIT_BITS))),
            "std": None if undefined else _finite(square_root(spread, freedom << (2 * UNIT_BITS))),
            "nan": self._nan,
            "infinite": self._infinite,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _canonical(value: int | float | None) -> int | float | None:
    """Return equal extremes as equal JSON: a float wherever that is exact, and never minus zero, which only order could tell from zero."""
    if value is None:
        return None
    return float(value) + 0.0 if float(value) == value else value
