"""`cross_entropy`: the mean of ``-ln p(true class)``, for two classes or many."""

from __future__ import annotations

import math
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from antinfer.metrics.base import Accumulator, Array, Batch
from antinfer.metrics.columns import Column, Mask, split_classes, to_plain
from antinfer.metrics.config import Config, Label
from antinfer.metrics.elementary import log, log_likelihood
from antinfer.metrics.exact import UNIT_BITS, divide, pack_integer, sum_units, unpack_integer

_DEFAULT_CLIP: Final = 1e-15

Floats = NDArray[np.float64]


class CrossEntropy(Accumulator):
    """Mean natural-log loss of predicted probabilities.

    ``{type: cross_entropy, score: COLUMN, label: COLUMN, positive: 1, clip: 1e-15}`` with one probability a row: two classes; the score is
    the probability of the positive one. Labels are 0 and 1 (or booleans); with `positive`, every other label is negative.

    The same with a vector of probabilities in each row, or ``score: [COLUMN, COLUMN, ...]`` with one column a class: many classes. Labels
    are class numbers from 0, or members of ``labels: [...]``, in the order of the probabilities. Vectors are taken as they are, not
    normalised.

    The probability of the true class is clipped to ``[clip, 1 - clip]`` before the logarithm is taken, so that one row can cost at most
    ``-ln(clip)`` (34.5 by default); ``clipped`` counts such rows. The losses are float64, computed alike on every machine, summed exactly,
    and their mean is rounded once. Rows with a NaN probability for the true class are left out and counted in ``nan``, rows whose label is
    none of the classes in ``unknown_label``.

    Result: ``cross_entropy`` (None without rows), ``count`` (rows in the mean), ``clip``, ``clipped``, ``unknown_label``, ``nan``.
    """

    def __init__(
        self, scores: tuple[Column, ...], label: Column, *, positive: Label | None, labels: tuple[Label, ...] | None, clip: float
    ) -> None:
        self.columns = tuple(dict.fromkeys((*(score.name for score in scores), label.name)))
        self._scores = scores
        self._label = label
        self._positive = positive
        self._classes = None if labels is None else {to_plain(value): index for index, value in enumerate(labels)}
        self._clip = clip
        self._losses = 0
        self._count = 0
        self._clipped = 0
        self._unknown_label = 0
        self._nan = 0

    @classmethod
    def from_config(cls, config: Config) -> Self:
        label = Column.of(config, "label")
        if isinstance(config.take("score"), list | tuple):
            scores = tuple(Column(name, config.path("score")) for name in config.columns("score"))
            if len(scores) < 2:
                raise config.error("score", "must list one column for every class, at least two; name a single column without the brackets")
        else:
            scores = (Column.of(config, "score"),)
        positive, labels = config.label("positive"), config.labels("labels")
        clip = config.number("clip", _DEFAULT_CLIP, above=0.0, below=0.5)
        if positive is not None and (labels is not None or len(scores) > 1):
            raise config.error("positive", "only goes with a single probability a row; for many classes set `labels`")
        if labels is not None and 1 < len(scores) != len(labels):
            raise config.error("labels", f"has {len(labels)} labels for the {len(scores)} columns of `score`")
        config.finish()
        return cls(scores, label, positive=positive, labels=labels, clip=clip)

    def update(self, batch: Batch) -> None:
        if not batch.rows:
            return
        if len(self._scores) > 1:
            scores = np.stack([score.floats(batch) for score in self._scores], axis=1)
        else:
            scores = self._scores[0].floats_of_any_shape(batch)
        labels = self._label.labels(batch)
        if scores.ndim == 1:
            self._add_binary(scores, labels)
        else:
            self._add_classes(scores, labels)

    def _add_binary(self, scores: Floats, labels: Array) -> None:
        if self._classes is not None:
            raise self._scores[0].error("holds one probability a row, `labels` needs one for every class")
        positive, known = split_classes(labels, self._positive, self._label)
        usable = self._usable(known, scores)
        scores, positive = scores[usable], positive[usable]
        inside = np.clip(scores, self._clip, 1.0 - self._clip)
        self._add(log_likelihood(inside, positive), clipped=int((inside != scores).sum()))

    def _add_classes(self, scores: Floats, labels: Array) -> None:
        if self._positive is not None:
            raise self._scores[0].error("holds a vector of probabilities, `positive` needs a single one; set `labels` instead")
        indexes, known = self._class_indexes(labels, scores.shape[1])
        true_scores = np.where(known, scores[np.arange(len(scores)), indexes], 0.0)
        usable = self._usable(known, true_scores)
        true_scores = true_scores[usable]
        inside = np.clip(true_scores, self._clip, 1.0 - self._clip)
        self._add(log(inside), clipped=int((inside != true_scores).sum()))

    def _class_indexes(self, labels: Array, classes: int) -> tuple[NDArray[np.intp], Mask]:
        """Return each row's column of the true class (0 where unknown), and which labels are known."""
        if self._classes is not None:
            if len(self._classes) != classes:
                raise self._scores[0].error(f"holds {classes} probabilities a row, `labels` has {len(self._classes)}")
            found = np.fromiter((self._classes.get(to_plain(value), -1) for value in labels.tolist()), dtype=np.intp, count=len(labels))
            return np.maximum(found, 0), found >= 0
        if labels.dtype.kind == "O":
            raise self._label.error(
                "holds text, class numbers are needed", hint="List the classes in `labels`, in the order of the probabilities."
            )
        known = (labels >= 0) & (labels < classes)
        known &= np.floor(labels) == labels if labels.dtype.kind == "f" else True
        return np.where(known, labels, 0).astype(np.intp), known

    def _usable(self, known: Mask, scores: Floats) -> Mask:
        nan = np.isnan(scores)
        self._unknown_label += int((~known).sum())
        self._nan += int((known & nan).sum())
        usable: Mask = known & ~nan
        return usable

    def _add(self, logarithms: Floats, *, clipped: int) -> None:
        self._losses -= sum_units(logarithms)
        self._count += logarithms.size
        self._clipped += clipped

    def state(self) -> dict[str, Any]:
        return {
            "losses": pack_integer(self._losses),
            "count": self._count,
            "clipped": self._clipped,
            "unknown_label": self._unknown_label,
            "nan": self._nan,
        }

    def merge(self, state: dict[str, Any]) -> None:
        self._losses += unpack_integer(state["losses"])
        self._count += state["count"]
        self._clipped += state["clipped"]
        self._unknown_label += state["unknown_label"]
        self._nan += state["nan"]

    def result(self) -> dict[str, Any]:
        mean = divide(self._losses, self._count << UNIT_BITS) if self._count else None
        return {
            "cross_entropy": mean if mean is None or math.isfinite(mean) else None,
            "count": self._count,
            "clip": self._clip,
            "clipped": self._clipped,
            "unknown_label": self._unknown_label,
            "nan": self._nan,
        }
