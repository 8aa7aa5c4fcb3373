"""Quarantine objects: rows given up on, each with its error, and the input columns the user wants to keep.

An Arrow IPC file with the columns ``shard`` and ``offset`` (the row's identity), ``file`` (that it is in; empty when only reading could
tell), ``stage``, ``error_class``, ``error`` (class and message), ``traceback`` (the user's, whole; empty when there is none), ``attempt``
and, if any are kept, ``input``: a struct of the kept columns, so that no user column can meet one of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from antinfer.errors import InternalError, OutputError
from antinfer.storage import failures
from antinfer.storage.place import OutputPlace

_CLASS: Final = re.compile(r"((?:[A-Za-z_]\w*\.)*[A-Z]\w*)(?::|$)")
_REPEATED: Final = pa.dictionary(pa.int32(), pa.string())
"""Thousands of rows often share one error: it is stored once."""

_FIELDS: Final = (
    pa.field("shard", pa.int64(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("file", _REPEATED),
    pa.field("stage", _REPEATED),
    pa.field("error_class", _REPEATED),
    pa.field("error", _REPEATED),
    pa.field("traceback", _REPEATED),
    pa.field("attempt", pa.int32()),
)


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """One row that was given up on."""

    shard: int
    offset: int
    stage: str
    """Name of the stage that failed; empty when the row was never let into the pipeline."""
    error: str
    """Class and message."""
    traceback: str = ""
    file: str = ""
    """File that the row is in; empty when that is not known."""
    attempt: int = 1
    """How many times the row had been leased."""

    @property
    def error_class(self) -> str:
        """The class in `error`: of the exception, or of what its process died of; ``WorkerLost`` when no stage ever saw the row."""
        found = _CLASS.match(self.error)
        return found.group(1) if found else "Error" if self.stage else "WorkerLost"


def write(path: str, rows: Sequence[QuarantinedRow], kept: pa.Table | None = None) -> int:
    """Write `rows` to the local file `path`, in order; return its size in bytes.

    `kept` holds the kept input columns of the same rows in the same order. Raises `OutputError` when the file cannot be written.
    """
    if kept is not None and kept.num_rows != len(rows):
        raise InternalError(f"{len(rows)} quarantined rows, but {kept.num_rows} rows of kept columns")
    columns: list[pa.Array] = [pa.array([getattr(row, field.name) for row in rows], type=field.type) for field in _FIELDS]
    fields = list(_FIELDS)
    if kept is not None and kept.num_columns:
        merged = kept.combine_chunks()
        arrays = [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in merged.columns]
        columns.append(pa.StructArray.from_arrays(arrays, fields=list(kept.schema)))
        fields.append(pa.field("input", columns[-1].type))
    schema = pa.schema(fields)
    with failures.wrapped(path, "writing quarantined rows"):
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_batch(pa.record_batch(columns, schema=schema))
        with pa.OSFile(path, "rb") as file:
            return int(file.size())


def read(place: OutputPlace, name: str) -> pa.Table:
    """Read the quarantine object `name`. Raises FileNotFoundError when there is none, `OutputError` when it is damaged."""
    with place.open(name) as file:
        try:
            with pa.ipc.open_file(file) as reader:
                return reader.read_all()
        except pa.ArrowException as error:
            raise OutputError(f"output {place.uri}: {name} is damaged: {error}") from error


def read_offsets(place: OutputPlace, name: str) -> npt.NDArray[np.int64]:
    """Read only the offsets of the rows in the quarantine object `name`, in order; raises like `read`."""
    offsets: npt.NDArray[np.int64] = read(place, name).column("offset").to_numpy()
    return offsets


def group(table: pa.Table) -> Iterator[tuple[tuple[str, str], str, int]]:
    """Yield (class of error, stage), an error and the number of rows for every kind of error in a quarantine object."""
    counted = table.select(["stage", "error"]).append_column("rows", pa.array(np.ones(table.num_rows, np.int64)))
    plain = counted.set_column(0, "stage", counted.column("stage").cast(pa.string()))
    plain = plain.set_column(1, "error", plain.column("error").cast(pa.string()))
    for entry in plain.group_by(["stage", "error"]).aggregate([("rows", "sum")]).to_pylist():
        row = QuarantinedRow(0, 0, entry["stage"], entry["error"])
        yield (row.error_class, row.stage), row.error, entry["rows_sum"]


def rows(table: pa.Table, round: int) -> list[dict[str, Any]]:
    """Return the rows of a quarantine object as plain data, for people and scripts; `round` is that of the record which put them there."""
    known = {field.name for field in fields(QuarantinedRow)}
    found = []
    for entry in table.to_pylist():
        row = QuarantinedRow(**{name: value for name, value in entry.items() if name in known})
        found.append({**asdict(row), "error_class": row.error_class, "round": round, "input": entry.get("input") or {}})
    return found
