"""`histogram`: how many values fall between given edges."""

from __future__ import annotations

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from antinfer.metrics.base import Accumulator, Batch
from antinfer.metrics.columns import Column
from antinfer.metrics.config import Config, is_number
from antinfer.metrics.counts import pack_counts, unpack_counts

_MOST_BINS: Final = 100_000


class Histogram(Accumulator):
    """``{type: histogram, value: COLUMN, bins: [EDGES...]}``, or ``{..., bins: N, range: [LOW, HIGH]}`` for N bins of one width.

    A bin holds values from its lower edge (included) to its upper edge (excluded; included in the last bin). Values beyond the edges,
    infinities too, are counted in ``underflow`` and ``overflow``, NaN in ``nan``.

    Result: ``edges``, ``counts`` (one fewer), ``underflow``, ``overflow``, ``nan``.
    """

    def __init__(self, value: Column, edges: NDArray[np.float64]) -> None:
        self.columns = (value.name,)
        self._value = value
        self._edges = edges
        self._counts = np.zeros(len(edges) + 1, dtype=np.int64)
        """Underflow, the bins, overflow."""
        self._nan = 0

    @classmethod
    def from_config(cls, config: Config) -> Self:
        value = Column.of(config, "value")
        edges = _edges(config)
        config.finish()
        return cls(value, edges)

    def update(self, batch: Batch) -> None:
        values = self._value.floats(batch)
        nan = np.isnan(values)
        if nan.any():
            self._nan += int(nan.sum())
            values = values[~nan]
        slots = np.searchsorted(self._edges, values, side="right")
        slots[values == self._edges[-1]] = len(self._edges) - 1
        self._counts += np.bincount(slots, minlength=self._counts.size)

    def state(self) -> dict[str, Any]:
        return {"counts": pack_counts(self._counts), "nan": self._nan}

    def merge(self, state: dict[str, Any]) -> None:
        self._counts += unpack_counts(state["counts"], self._counts.size)
        self._nan += state["nan"]

    def result(self) -> dict[str, Any]:
        underflow, *counts, overflow = self._counts.tolist()
        return {"edges": self._edges.tolist(), "counts": counts, "underflow": underflow, "overflow": overflow, "nan": self._nan}


def _edges(config: Config) -> NDArray[np.float64]:
    bins = config.take("bins")
    interval = config.interval("range", None)
    if isinstance(bins, list | tuple):
        if interval is not None:
            raise config.error("range", "only goes with a number of bins; here `bins` lists the edges")
        if not 2 <= len(bins) <= _MOST_BINS + 1 or not all(map(is_number, bins)):
            raise config.error("bins", f"must list 2 to {_MOST_BINS + 1} edges, all finite numbers")
        edges = np.asarray(bins, dtype=np.float64)
    elif bins is None:
        raise config.error("bins", "missing; list the edges, as in [0, 1, 10], or give a number of bins and `range: [low, high]`")
    else:
        count = config.integer("bins", 0, low=1, high=_MOST_BINS)
        if interval is None:
            raise config.error("range", "missing; a number of bins needs `range: [low, high]`")
        low, high = interval
        edges = low + (high - low) * (np.arange(count + 1) / count)
        edges[-1] = high
    if not (np.diff(edges) > 0).all():
        raise config.error("bins", "the edges must rise")
    return edges
