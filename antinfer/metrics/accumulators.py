"""All accumulators of a job over one row range: fed batch by batch, taken as JSON into the commit record, merged at the end."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from antinfer.errors import ChangedError, JobFileError, OutputError, UserCodeError
from antinfer.metrics.base import Accumulator, Array
from antinfer.metrics.columns import select, without_nulls
from antinfer.metrics.config import Config
from antinfer.metrics.registry import BUILT_IN, Resolve, accumulator_class

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(slots=True)
class _Entry:
    """One accumulator, and how to make another."""

    config: dict[str, Any]
    kind: type[Accumulator]
    accumulator: Accumulator
    rows: int = 0
    nulls: int = 0

    @property
    def is_own(self) -> bool:
        return self.kind not in BUILT_IN.values()


class AccumulatorSet:
    """The accumulators of a job file. Not safe for use by several threads at once: every range has a set of its own, see `fresh`."""

    def __init__(self, entries: dict[str, _Entry]) -> None:
        self._entries = entries
        self.columns: tuple[str, ...] = tuple(dict.fromkeys(column for entry in entries.values() for column in entry.accumulator.columns))
        """Output columns that `update` needs, each once."""

    @classmethod
    def from_config(cls, accumulators: Mapping[str, Any], resolve: Resolve) -> Self:
        """Build empty accumulators from the ``accumulators`` mapping of a job file; `resolve` imports the user's own.

        Raises:
            JobFileError: an entry is wrong; the message names the accumulator, the field and what is allowed.
            UserCodeError: the user's class raised while it was made.
        """
        entries = {}
        for name, fields in accumulators.items():
            if not isinstance(name, str) or not name:
                raise JobFileError(f"accumulators: a name must be text, not {name!r}")
            if not isinstance(fields, Mapping) or not all(isinstance(field, str) for field in fields):
                hint = f"For example: {name}: {{type: count}}. Types: {', '.join(BUILT_IN)}."
                raise JobFileError(f"accumulators.{name}: must be a mapping with a `type`, not {fields!r}", hint=hint)
            kind = accumulator_class(Config(name, fields), resolve)
            entries[name] = _Entry(dict(fields), kind, _make(name, kind, fields))
        return cls(entries)

    def fresh(self) -> Self:
        """Return an empty set with the same configuration, for another row range. Raises UserCodeError when the user's class does."""
        return type(self)(
            {name: _Entry(entry.config, entry.kind, _make(name, entry.kind, entry.config)) for name, entry in self._entries.items()}
        )

    def __len__(self) -> int:
        return len(self._entries)

    def update(self, batch: Mapping[str, Array], rows: int | None = None) -> None:
        """Take in output rows: arrays by column name, nulls as masked elements or None; other columns than `columns` do no harm.

        `rows` tells the number of rows when no column does.

        Raises:
            JobFileError: a column is not there or not of the type that an accumulator needs.
            UserCodeError: the user's accumulator raised.
        """
        if rows is None:
            rows = len(next(iter(batch.values()))) if batch else 0
        for name, entry in self._entries.items():
            needed = select(batch, entry.accumulator.columns, field=f"accumulators.{name}")
            plain = without_nulls(needed, rows)
            with _blaming(name, entry, "update"):
                entry.accumulator.update(plain)
            entry.rows += plain.rows
            entry.nulls += rows - plain.rows

    def update_arrow(self, batch: pa.RecordBatch) -> None:
        """Take in output rows as Arrow has them; raises as `update` does."""
        if self._entries:
            from antinfer.metrics.arrow import to_arrays

            self.update(to_arrays(batch, self.columns), rows=batch.num_rows)

    def take_state(self) -> str:
        """Return the state since the last call as compact JSON for the commit record, and start again from nothing; empty without
        accumulators.

        Raises UserCodeError when the user's accumulator raised, or its state is not JSON data.
        """
        if not self._entries:
            return ""
        states = []
        for name, entry in self._entries.items():
            with _blaming(name, entry, "state"):
                state = _to_json(entry.accumulator.state())
            states.append(f'{json.dumps(name)}:{{"rows":{entry.rows},"nulls":{entry.nulls},"state":{state}}}')
        self._entries = self.fresh()._entries
        return f"{{{','.join(states)}}}"

    def merge(self, taken: str) -> None:
        """Take in what another set's `take_state` returned; the order and grouping of merges makes no difference.

        Raises:
            ChangedError: the state is of a job with other accumulators.
            OutputError: the text is damaged.
            UserCodeError: the user's accumulator raised.
        """
        if not taken and not self._entries:
            return
        states = _parse(taken)
        if states.keys() != self._entries.keys():
            name = min(states.keys() ^ self._entries.keys())
            held, lacking = ("a committed range", "the job file") if name in states else ("the job file", "a committed range")
            raise ChangedError(
                f"accumulators: {held} has {name!r}, {lacking} has not",
                hint="Restore the accumulators the output was begun with, or choose another output.",
            )
        for name, entry in self._entries.items():
            try:
                part = states[name]
                with _blaming(name, entry, "merge"):
                    entry.accumulator.merge(part["state"])
                entry.rows += part["rows"]
                entry.nulls += part["nulls"]
            except (KeyError, TypeError, ValueError) as error:
                raise OutputError(f"the state of accumulator {name!r} in a commit record cannot be read: {error}") from error

    def results(self) -> dict[str, dict[str, Any]]:
        """Return each accumulator's result as JSON data, by name.

        Beside its own figures each has ``type``, ``rows`` (taken in) and ``nulls`` (rows left out because a needed column was null). Raises
        UserCodeError when the user's accumulator raised, or its result is not JSON data.
        """
        results = {}
        for name, entry in self._entries.items():
            with _blaming(name, entry, "result"):
                figures = json.loads(_to_json(entry.accumulator.result()))
                results[name] = {"type": entry.config["type"], **figures, "rows": entry.rows, "nulls": entry.nulls}
        return results


def _make(name: str, kind: type[Accumulator], fields: Mapping[str, Any]) -> Accumulator:
    with _wrapping(name, kind, "__init__", own=kind not in BUILT_IN.values()):
        return kind.from_config(Config(name, fields))


@contextmanager
def _blaming(name: str, entry: _Entry, method: str) -> Iterator[None]:
    with _wrapping(name, entry.kind, method, own=entry.is_own):
        yield


@contextmanager
def _wrapping(name: str, kind: type[Accumulator], method: str, *, own: bool) -> Iterator[None]:
    """Turn what the user's own accumulator raises into a UserCodeError that keeps the traceback; ours are raised as they are."""
    try:
        yield
    except JobFileError:
        raise
    except Exception as error:
        if not own:
            raise
        message = f"accumulators.{name}: {kind.__module__}.{kind.__qualname__}.{method}() failed: {type(error).__name__}: {error}"
        raise UserCodeError(message, user_traceback=traceback.format_exc()) from error


def _to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _parse(taken: str) -> dict[str, Any]:
    try:
        states = json.loads(taken) if taken else {}
    except ValueError as error:
        raise OutputError(f"the accumulator states in a commit record cannot be read: {error}") from error
    if not isinstance(states, dict):
        raise OutputError(f"the accumulator states in a commit record are no mapping but {type(states).__name__}")
    return states
