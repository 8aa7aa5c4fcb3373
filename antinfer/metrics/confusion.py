"""`confusion_matrix`: how often each true label met each predicted one."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, Self

import numpy as np

from antinfer.metrics.base import Accumulator, Array, Batch
from antinfer.metrics.columns import Column, to_plain
from antinfer.metrics.config import Config, Label
from antinfer.metrics.exact import divide

_DEFAULT_MOST_LABELS: Final = 256
_SMALL_TABLE: Final = 1 << 12
"""A table of pair counts up to this size, or four times the rows, costs less than a dict."""

Pair = tuple[Label, Label]


class ConfusionMatrix(Accumulator):
    """``{type: confusion_matrix, label: COLUMN, prediction: COLUMN, labels: [...], max_labels: 256}``.

    Labels are text, numbers or booleans; equal numbers are one label whatever their type, and booleans are 0 and 1. With `labels` the
    matrix has these rows and columns in this order, and a row with any other value is counted in ``other``. Without it the labels are those
    that occur, numbers before text, each rising; when more than `max_labels` occur, no matrix is kept, only ``count``, ``correct`` and
    ``accuracy``: whether that happens depends on the rows alone, not on how they were cut. Rows with a NaN or an infinity are counted in
    ``not_finite``.

    Result: ``labels``, ``matrix`` (true labels down, predicted labels across; both None when there are too many labels), ``count`` (rows in
    the matrix), ``correct`` (on its diagonal), ``accuracy`` (None without rows), ``other``, ``not_finite``.
    """

    def __init__(self, label: Column, prediction: Column, *, labels: tuple[Label, ...] | None, most_labels: int) -> None:
        self.columns = tuple(dict.fromkeys((label.name, prediction.name)))
        self._label = label
        self._prediction = prediction
        self._labels = None if labels is None else tuple(to_plain(value) for value in labels)
        self._most_labels = most_labels
        self._pairs: Counter[Pair] | None = Counter()
        """None once there were too many labels."""
        self._count = 0
        self._correct = 0
        self._other = 0
        self._not_finite = 0

    @classmethod
    def from_config(cls, config: Config) -> Self:
        label, prediction = Column.of(config, "label"), Column.of(config, "prediction")
        labels = config.labels("labels")
        if labels is not None and config.take("max_labels") is not None:
            raise config.error("max_labels", "only goes without `labels`")
        most_labels = config.integer("max_labels", _DEFAULT_MOST_LABELS, low=2, high=10_000)
        config.finish()
        return cls(label, prediction, labels=labels, most_labels=most_labels)

    def update(self, batch: Batch) -> None:
        labels, predictions = self._label.labels(batch), self._prediction.labels(batch)
        usable = _is_finite(labels) & _is_finite(predictions)
        if not usable.all():
            self._not_finite += len(usable) - int(usable.sum())
            labels, predictions = labels[usable], predictions[usable]
        counted: Counter[Pair] = Counter()
        for (label, prediction), times in _count_pairs(labels, predictions).items():
            counted[(to_plain(label), to_plain(prediction))] += times
        if self._labels is not None:
            for pair in [pair for pair in counted if not set(pair) <= set(self._labels)]:
                self._other += counted.pop(pair)
        self._count += counted.total()
        self._correct += sum(times for (label, prediction), times in counted.items() if label == prediction)
        self._add(counted)

    def _add(self, counted: Counter[Pair] | None) -> None:
        if counted is None or self._pairs is None:
            self._pairs = None
            return
        self._pairs.update(counted)
        if self._labels is None and len(_distinct(self._pairs)) > self._most_labels:
            self._pairs = None

    def state(self) -> dict[str, Any]:
        pairs = None if self._pairs is None else [[*pair, times] for pair, times in sorted(self._pairs.items(), key=str)]
        return {"pairs": pairs, "count": self._count, "correct": self._correct, "other": self._other, "not_finite": self._not_finite}

    def merge(self, state: dict[str, Any]) -> None:
        pairs = state["pairs"]
        self._add(None if pairs is None else Counter({(label, prediction): times for label, prediction, times in pairs}))
        self._count += state["count"]
        self._correct += state["correct"]
        self._other += state["other"]
        self._not_finite += state["not_finite"]

    def result(self) -> dict[str, Any]:
        labels, matrix = None, None
        if self._pairs is not None:
            labels = list(self._labels or sorted(_distinct(self._pairs), key=_order))
            matrix = [[self._pairs[(label, prediction)] for prediction in labels] for label in labels]
        return {
            "labels": labels,
            "matrix": matrix,
            "count": self._count,
            "correct": self._correct,
            "accuracy": divide(self._correct, self._count) if self._count else None,
            "other": self._other,
            "not_finite": self._not_finite,
        }


def _count_pairs(labels: Array, predictions: Array) -> Counter[Pair]:
    """Count each pair of values as they are; small class numbers, the common case, without touching a Python object a row."""
    if labels.size and labels.dtype.kind in "biu" and predictions.dtype.kind in "biu":
        columns = int(predictions.max()) + 1
        table = (int(labels.max()) + 1) * columns
        if table <= max(_SMALL_TABLE, 4 * labels.size) and int(labels.min()) >= 0 and int(predictions.min()) >= 0:
            times = np.bincount(labels.astype(np.intp) * columns + predictions.astype(np.intp))
            return Counter({divmod(code, columns): int(times[code]) for code in np.flatnonzero(times).tolist()})
    return Counter(zip(labels.tolist(), predictions.tolist(), strict=True))


def _is_finite(values: Array) -> Array:
    return np.isfinite(values) if values.dtype.kind == "f" else np.ones(len(values), dtype=np.bool_)


def _distinct(pairs: Counter[Pair]) -> set[Label]:
    return {label for pair in pairs for label in pair}


def _order(label: Label) -> tuple[bool, Label]:
    return isinstance(label, str), label
