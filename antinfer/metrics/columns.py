"""Takes typed arrays out of a batch: numbers, labels, matrices. A column of the wrong type is an error in the job file, found at the first
batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antinfer.errors import JobFileError
from antinfer.metrics.base import Array, Batch
from antinfer.metrics.config import Config, Label, near

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Column:
    """An output column, and the field of the job file that named it."""

    name: str
    field: str
    """Path of the field, for messages: ``accumulators.<name>.<field>``."""

    @classmethod
    def of(cls, config: Config, field: str) -> Column:
        """Take the column that a required `field` names. Raises JobFileError when there is none."""
        return cls(config.column(field), config.path(field))

    def numbers(self, batch: Batch) -> Array:
        """Return the column as booleans, integers or floats up to float64, of shape (rows,). Raises JobFileError when it is none."""
        values = self._plain(batch)
        if values.ndim != 1:
            raise self.error(f"holds arrays of shape {values.shape[1:]}, one number a row is needed")
        return self._numeric(values)

    def floats(self, batch: Batch) -> NDArray[np.float64]:
        """Return the column as float64 of shape (rows,). Raises JobFileError when it holds no numbers."""
        return self.numbers(batch).astype(np.float64, copy=False)

    def floats_of_any_shape(self, batch: Batch) -> NDArray[np.float64]:
        """Return the column as float64 of shape (rows,) or (rows, n). Raises JobFileError when it is neither."""
        values = self._plain(batch)
        if values.ndim > 2:
            raise self.error(f"holds arrays of shape {values.shape[1:]}, one number or one vector a row is needed")
        return self._numeric(values).astype(np.float64, copy=False)

    def labels(self, batch: Batch) -> Array:
        """Return the column as numbers, or as strings in an object array, of shape (rows,). Raises JobFileError when it is neither."""
        values = self._plain(batch)
        if values.ndim != 1:
            raise self.error(f"holds arrays of shape {values.shape[1:]}, one label a row is needed")
        if values.dtype.kind in "OUT":
            return values.astype(object, copy=False)
        return self._numeric(values, needed="labels (text, whole numbers or booleans)")

    def error(self, problem: str, *, hint: str = "") -> JobFileError:
        """Return (not raise) the error that this column has a `problem`."""
        return JobFileError(f"{self.field}: column {self.name!r} {problem}", hint=hint)

    def _plain(self, batch: Batch) -> Array:
        """Return the column as it is, an object array only when it holds text."""
        values = batch[self.name]
        if values.dtype.kind != "O" or is_text(values):
            return values
        try:
            plain = np.asarray(values.tolist()) if values.size else values.astype(np.float64)
        except ValueError as error:
            raise self.error("holds arrays of different lengths") from error
        if plain.dtype.kind in "OUST":
            raise self.error("mixes text and other values, or holds objects that are neither text nor numbers")
        return plain

    def _numeric(self, values: Array, needed: str = "numbers") -> Array:
        if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
            held = "text" if values.dtype.kind in "OUST" else str(values.dtype)
            raise self.error(f"holds {held}, {needed} are needed", hint="Name another column, or convert it in the pipeline.")
        return values


def is_text(values: Array) -> bool:
    """Tell whether `values` is an object array of strings only, at least one."""
    return values.dtype.kind == "O" and values.ndim == 1 and set(map(type, values.tolist())) == {str}


def null_rows(values: Array) -> Mask | None:
    """Return which rows of a column are null (masked, or None in an object array), None when there are none."""
    if isinstance(values, np.ma.MaskedArray):
        mask: Mask = np.logical_or.reduce(np.ma.getmaskarray(values), axis=tuple(range(1, values.ndim)))
    elif values.dtype.kind == "O":
        held = values.tolist()
        if type(None) not in set(map(type, held)):
            return None
        mask = np.fromiter((value is None for value in held), dtype=np.bool_, count=len(held))
    else:
        return None
    return mask if mask.any() else None


def without_nulls(columns: Mapping[str, Array], rows: int) -> Batch:
    """Return `columns` without the rows in which any of them is null."""
    masks = [mask for mask in map(null_rows, columns.values()) if mask is not None]
    plain = {name: np.ma.getdata(values) for name, values in columns.items()}
    if not masks:
        return Batch(plain, rows=rows)
    kept = ~np.logical_or.reduce(masks)
    return Batch({name: values[kept] for name, values in plain.items()}, rows=int(kept.sum()))


def select(columns: Mapping[str, Array], names: tuple[str, ...], *, field: str) -> dict[str, Array]:
    """Return the named columns. Raises JobFileError, with the near ones, when one is not there."""
    for name in names:
        if name not in columns:
            raise JobFileError(f"{field}: there is no output column {name!r}", hint=near(name, columns))
    return {name: columns[name] for name in names}


def split_classes(labels: Array, positive: Label | None, column: Column) -> tuple[Mask, Mask]:
    """Return which rows are of the positive class, and which labels are known at all.

    Without `positive`, 1 is positive, 0 negative, and any other label unknown. With it, every label but NaN is known.

    Raises:
        JobFileError: text labels without `positive`, or a `positive` of another kind than the labels.
    """
    text = labels.dtype.kind == "O"
    if positive is None:
        if text and labels.size:
            raise column.error("holds text, labels 0 and 1 are needed", hint="Set `positive` to the label of the positive class.")
        hits: Mask = labels == 1
        return hits, hits | (labels == 0)
    if labels.size and text != isinstance(positive, str):
        held = "text" if text else "numbers"
        raise column.error(
            f"holds {held}, which `positive: {positive!r}` can never equal", hint="Give `positive` the type of the label column."
        )
    hits = np.asarray(labels == positive, dtype=np.bool_)
    return hits, np.ones_like(hits) if text else labels == labels


def to_plain(value: Any) -> Any:
    """Return a label in the one form in which equal labels are equal JSON: booleans and whole floats become integers."""
    if isinstance(value, bool):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
