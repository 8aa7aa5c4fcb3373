"""Reads one accumulator's entry of the job file; every complaint names the accumulator, the field and what is allowed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from antinfer.errors import JobFileError

Label = bool | int | float | str


def near(word: str, known: Iterable[str]) -> str:
    """Return a sentence that names the known words most like `word`, or all of them; empty when there are none."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=3)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return f"Known: {', '.join(choices[:20])}{', ...' if len(choices) > 20 else ''}." if choices else ""


class Config:
    """The fields of one accumulator. Each is taken once with its checks; `finish` then refuses what is left over."""

    def __init__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.name = name
        """Name of the accumulator in the job file."""
        self._fields = dict(fields)
        self._taken: set[str] = {"type"}

    def path(self, field: str) -> str:
        """Return how messages call `field`: ``accumulators.<name>.<field>``."""
        return f"accumulators.{self.name}.{field}"

    def error(self, field: str, problem: str, *, hint: str = "") -> JobFileError:
        """Return (not raise) the error that `field` has a `problem`."""
        return JobFileError(f"{self.path(field)}: {problem}", hint=hint)

    def take(self, field: str, default: Any = None) -> Any:
        """Return the raw value of `field`; an absent one and null are `default`."""
        self._taken.add(field)
        value = self._fields.get(field)
        return default if value is None else value

    def finish(self) -> None:
        """Raise JobFileError when there is a field that nobody took."""
        unknown = sorted(map(str, self._fields.keys() - self._taken))
        if unknown:
            allowed = ", ".join(sorted(self._taken))
            raise self.error(unknown[0], f"unknown field; allowed: {allowed}", hint=near(unknown[0], self._taken))

    def column(self, field: str) -> str:
        """Return the column that a required `field` names. Raises JobFileError when it is missing or no name."""
        name = self.take(field)
        if name is None:
            raise self.error(field, "missing; name an output column")
        if not isinstance(name, str) or not name:
            raise self.error(field, f"must be the name of an output column, not {name!r}")
        return name

    def columns(self, field: str) -> tuple[str, ...]:
        """Return the columns that a required `field` lists. Raises JobFileError when it is missing or not a list of different names."""
        names = self.take(field)
        if names is None:
            raise self.error(field, "missing; list the output columns that are needed")
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) and name for name in names):
            raise self.error(field, f"must be a list of names of output columns, not {names!r}")
        if len(set(names)) < len(names):
            raise self.error(field, f"names a column twice: {names!r}")
        return tuple(names)

    def mapping(self, field: str) -> dict[str, Any]:
        """Return an optional mapping from names to anything. Raises JobFileError when it is something else."""
        value = self.take(field, {})
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise self.error(field, f"must be a mapping from names to values, not {value!r}")
        return dict(value)

    def integer(self, field: str, default: int, *, low: int, high: int) -> int:
        """Return a whole number in ``[low, high]``. Raises JobFileError otherwise."""
        value = self.take(field, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(field, f"must be a whole number from {low} to {high}, not {value!r}")
        return value

    def number(self, field: str, default: float, *, above: float, below: float) -> float:
        """Return a number strictly between `above` and `below`. Raises JobFileError otherwise."""
        value = self.take(field, default)
        if not is_number(value) or not above < value < below:
            raise self.error(field, f"must be a number between {above:g} and {below:g}, both excluded, not {value!r}")
        return float(value)

    def interval(self, field: str, default: tuple[float, float] | None) -> tuple[float, float] | None:
        """Return ``[low, high]`` with finite low < high. Raises JobFileError otherwise."""
        value = self.take(field, default)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(is_number, value)):
            raise self.error(field, f"must be [low, high], not {value!r}")
        low, high = map(float, value)
        if not 1e-290 < high - low < math.inf:
            raise self.error(field, f"must be [low, high] with low below high, not {value!r}")
        return low, high

    def label(self, field: str) -> Label | None:
        """Return an optional label: text, a number or a boolean. Raises JobFileError otherwise."""
        value = self.take(field)
        if value is not None and not is_label(value):
            raise self.error(field, f"must be text, a number or a boolean, not {value!r}")
        label: Label | None = value
        return label

    def labels(self, field: str) -> tuple[Label, ...] | None:
        """Return an optional list of two or more different labels, all text or all numbers. Raises JobFileError otherwise."""
        values = self.take(field)
        if values is None:
            return None
        if not isinstance(values, list | tuple) or len(values) < 2 or not all(map(is_label, values)):
            raise self.error(field, f"must be a list of at least two labels (text or numbers), not {values!r}")
        if len({isinstance(value, str) for value in values}) > 1:
            raise self.error(field, f"mixes text and numbers: {values!r}", hint="Quote the numbers if the column holds text.")
        if len(set(values)) < len(values):
            raise self.error(field, f"names a label twice: {values!r}")
        return tuple(values)


def is_number(value: Any) -> bool:
    """Tell whether `value` is a finite number that float64 can hold, and not a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1.7976931348623157e308


def is_label(value: Any) -> bool:
    """Tell whether `value` can be the label of a class."""
    return isinstance(value, bool | str) or is_number(value)
