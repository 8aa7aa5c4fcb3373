"""What every accumulator is: the base class for the user's own, and the batches it is fed with."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

from numpy.typing import NDArray

from antinfer.metrics.config import Config

Array = NDArray[Any]


class Batch(dict[str, Array]):
    """Columns by name, all of the same length and without nulls."""

    __slots__ = ("rows",)

    def __init__(self, columns: Mapping[str, Array], *, rows: int) -> None:
        super().__init__(columns)
        self.rows = rows
        """Number of rows; known even when no column is."""


class Accumulator(ABC):
    """A metric over all output rows, computed in pieces.

    Every committed row range carries the state of the accumulator over just its rows; at the end all states are merged. Ranges are cut and
    merged in whatever order the cluster produced them, so `merge` must be commutative and associative. Counting and taking extremes are;
    adding floats is not, use `antinfer.metrics.ExactSum` for it.

    In the job file::

        accumulators:
          calibration: {type: "mymodule:Calibration", columns: [score, label], args: {bins: 20}}

    `args` are passed to ``__init__``, which starts from nothing: a new accumulator is made for every range.
    """

    columns: tuple[str, ...] = ()
    """Output columns that `update` needs. Rows with a null in any of them are left out and counted."""

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Build an empty accumulator from its entry in the job file; the default understands `columns` and `args`.

        Raises:
            JobFileError: a field is missing, unknown or not allowed; the message names it.
        """
        columns = config.columns("columns")
        args = config.mapping("args")
        config.finish()
        try:
            inspect.signature(cls).bind(**args)
        except TypeError as error:
            raise config.error("args", f"does not fit {cls.__name__}{inspect.signature(cls)}: {error}") from error
        accumulator = cls(**args)
        accumulator.columns = columns
        return accumulator

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Take in the rows of `batch`: a dict of numpy arrays, of which `batch.rows` tells the length."""

    @abstractmethod
    def state(self) -> Any:
        """Return all that was taken in, as JSON data (None, bool, int, finite float, str, list, dict with str keys)."""

    @abstractmethod
    def merge(self, state: Any) -> None:
        """Take in another accumulator's `state`, after its trip through JSON."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """Return the metric as JSON data. The keys ``type``, ``rows`` and ``nulls`` are filled in by antinfer."""
