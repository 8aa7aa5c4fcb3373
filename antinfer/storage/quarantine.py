"""Quarantine objects: rows given up on, each with its error, and the input columns the user wants to keep.

An Arrow IPC file with the columns ``shard``, ``offset``, ``stage``, ``error`` (type and message), ``traceback`` (the user's, whole; empty
when there is none) and, if any are kept, ``input``: a struct of the kept columns, so that no user column can meet one of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from antinfer.errors import InternalError, OutputError
from antinfer.storage import failures
from antinfer.storage.place import OutputPlace

_REPEATED: Final = pa.dictionary(pa.int32(), pa.string())
"""Thousands of rows often share one error: it is stored once."""

_FIELDS: Final = (
    pa.field("shard", pa.int64(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("stage", _REPEATED),
    pa.field("error", _REPEATED),
    pa.field("traceback", _REPEATED),
)


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """One row that was given up on."""

    shard: int
    offset: int
    stage: str
    """Name of the stage that failed; empty when the row was never let into the pipeline."""
    error: str
    """Type and message."""
    traceback: str = ""


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
