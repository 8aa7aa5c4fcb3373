"""`auroc`: the area under the receiver operating characteristic, from counts in fixed bins."""

from __future__ import annotations

from typing import Any, Final, Self

import numpy as np

from antinfer.metrics.base import Accumulator, Batch
from antinfer.metrics.columns import Column, split_classes
from antinfer.metrics.config import Config, Label
from antinfer.metrics.counts import Counts, pack_counts, unpack_counts
from antinfer.metrics.exact import divide

_DEFAULT_BINS: Final = 10_000
_MOST_BINS: Final = 1_000_000


class Auroc(Accumulator):
    """``{type: auroc, score: COLUMN, label: COLUMN, positive: 1, bins: 10000, range: [0, 1]}``.

    The area is the probability that a positive row scores above a negative one, ties counting half. Scores fall into `bins` of one width
    over `range` (those beyond it into the first and last, counted in ``outside``), and only the counts of each bin are kept. A pair in two
    different bins is judged as its scores would judge it. A pair in one bin counts half, and so is wrong by at most one half: with p and n
    positives and negatives in a bin, P and N in all,

        |auroc - true area|  <=  error_bound  =  sum over bins of (p * n) / (2 * P * N),

    besides the rounding of both to float64. It is 0, and the area exact, when no bin holds both a positive and a negative.

    Labels are 0 and 1 (or booleans), others are left out and counted in ``unknown_label``; with `positive`, every other label is negative.
    Rows with a NaN score are left out and counted in ``nan``.

    Result: ``auroc`` (None without rows of both classes), ``error_bound``, ``positives``, ``negatives``, ``outside``, ``unknown_label``,
    ``nan``.
    """

    def __init__(self, score: Column, label: Column, *, positive: Label | None, bins: int, interval: tuple[float, float]) -> None:
        self.columns = tuple(dict.fromkeys((score.name, label.name)))
        self._score = score
        self._label = label
        self._positive = positive
        self._bins = bins
        self._low, self._high = interval
        self._counts = np.zeros(2 * bins, dtype=np.int64)
        """Negatives by bin, then positives by bin."""
        self._outside = 0
        self._unknown_label = 0
        self._nan = 0

    @classmethod
    def from_config(cls, config: Config) -> Self:
        score, label = Column.of(config, "score"), Column.of(config, "label")
        positive = config.label("positive")
        bins = config.integer("bins", _DEFAULT_BINS, low=2, high=_MOST_BINS)
        interval = config.interval("range", (0.0, 1.0)) or (0.0, 1.0)
        config.finish()
        return cls(score, label, positive=positive, bins=bins, interval=interval)

    def update(self, batch: Batch) -> None:
        scores = self._score.floats(batch)
        positive, known = split_classes(self._label.labels(batch), self._positive, self._label)
        nan = np.isnan(scores)
        usable = known & ~nan
        if not usable.all():
            self._nan += int(nan.sum())
            self._unknown_label += int((~known & ~nan).sum())
            scores, positive = scores[usable], positive[usable]
        # Each of these steps is monotone even after rounding, so a higher score never gets a lower bin: the bound needs no more.
        inside = np.clip(scores, self._low, self._high)
        self._outside += int((inside != scores).sum())
        slots = ((inside - self._low) * (self._bins / (self._high - self._low))).astype(np.int64)
        np.minimum(slots, self._bins - 1, out=slots)
        slots += self._bins * positive
        self._counts += np.bincount(slots, minlength=self._counts.size)

    def state(self) -> dict[str, Any]:
        return {
            "counts": pack_counts(self._counts),
            "outside": self._outside,
            "unknown_label": self._unknown_label,
            "nan": self._nan,
        }

    def merge(self, state: dict[str, Any]) -> None:
        self._counts += unpack_counts(state["counts"], self._counts.size)
        self._outside += state["outside"]
        self._unknown_label += state["unknown_label"]
        self._nan += state["nan"]

    def result(self) -> dict[str, Any]:
        negatives, positives = self._counts[: self._bins], self._counts[self._bins :]
        area, error = _area(negatives, positives)
        return {
            "auroc": area,
            "error_bound": error,
            "positives": int(positives.sum()),
            "negatives": int(negatives.sum()),
            "outside": self._outside,
            "unknown_label": self._unknown_label,
            "nan": self._nan,
        }


def _area(negatives: Counts, positives: Counts) -> tuple[float | None, float | None]:
    """Return the area with ties at half, and the bound of its error, from counts by rising score; Nones unless both classes occur."""
    twice_area = twice_error = below = above = 0
    # Python integers: the number of pairs outgrows 64 bits at a few billion rows.
    for n, p in zip(negatives.tolist(), positives.tolist(), strict=True):
        twice_area += p * (2 * below + n)
        twice_error += p * n
        below += n
        above += p
    pairs = below * above
    if not pairs:
        return None, None
    return divide(twice_area, 2 * pairs), divide(twice_error, 2 * pairs)
