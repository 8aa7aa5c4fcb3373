"""What a writer of parts is, and what all of them check alike."""

from __future__ import annotations

import io
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from antinfer import faultpoints
from antinfer.errors import JobFileError, OutputError, SchemaMismatchError, UserCodeError
from antinfer.storage import failures

_LOG = logging.getLogger("antinfer.storage")


class PartWriter(ABC):
    """Fills one local file. Not safe for several threads; ends with `close` or `abort`.

    All methods raise `OutputError` when the file cannot be written (full disk, quota).
    """

    def __init__(self, path: str, schema: pa.Schema) -> None:
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if twice:
            raise UserCodeError(f"the result has two columns named {twice[0]!r}", hint="Give every column a name of its own.")
        self.path = path
        self.schema = schema
        self.rows = 0
        """Rows written so far."""
        self.buffered_bytes = 0
        """Bytes of rows accepted and still held in memory, as Arrow counts them."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the file so far; what is still buffered comes on top."""
        with failures.wrapped(self.path, "writing a part"):
            return os.path.getsize(self.path)

    def write(self, data: pa.RecordBatch | pa.Table) -> None:
        """Append rows, in order; `data` is not copied and must not change until `close`.

        Raises `SchemaMismatchError` naming the first column that differs from the schema of the part, and `UserCodeError` for a value that
        the format cannot hold.
        """
        if not data.schema.equals(self.schema):
            hint = "A stage must give the same columns and types for every batch."
            raise SchemaMismatchError(difference(self.schema, data.schema), hint=hint)
        self._write(data)
        self.rows += data.num_rows

    def close(self, metadata: Mapping[str, str] | None = None) -> int:
        """Finish the file and return its size in bytes; `metadata` goes into it where the format has a place for it (parquet)."""
        self._close(dict(metadata or {}))
        return self.size_bytes

    def abort(self) -> None:
        """Give up and remove the file; may follow any failure."""
        try:
            self._abort()
        except OutputError as error:
            # Closing writes what is still buffered, which may fail as the write before it did; all of it is thrown away here.
            _LOG.debug("while giving up a part: %s", error, extra={"action": "abort_part"})
        finally:
            with failures.wrapped(self.path, "giving up a part"):
                Path(self.path).unlink(missing_ok=True)

    @abstractmethod
    def _write(self, data: pa.RecordBatch | pa.Table) -> None: ...

    @abstractmethod
    def _close(self, metadata: dict[str, str]) -> None: ...

    @abstractmethod
    def _abort(self) -> None: ...


def difference(expected: pa.Schema, got: pa.Schema) -> str:
    """Say how the columns of a result differ from those of the part."""
    for field in expected:
        at = got.get_field_index(field.name)
        if at < 0:
            return f"a result lacks the column {field.name!r}, which earlier results had"
        if not got.field(at).equals(field):
            return f"the column {field.name!r} of a result is {_described(got.field(at))}, in earlier results it was {_described(field)}"
    extra = [name for name in got.names if name not in expected.names]
    if extra:
        return f"a result has the column {extra[0]!r}, which earlier results had not"
    return f"the columns of a result are in another order: {', '.join(got.names)} instead of {', '.join(expected.names)}"


def take_options(sink: str, options: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Raise `JobFileError` for an option that `sink` does not have."""
    names = tuple(allowed)
    for name in options:
        if name not in names:
            raise JobFileError(f"sink.options.{name}: not an option of {sink}", hint=f"Allowed: {', '.join(names)}.")


def choice(sink: str, options: Mapping[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
    """Return a string option. Raises `JobFileError` naming the allowed values."""
    value = str(options.get(name, default)).lower()
    if value not in allowed:
        raise JobFileError(f"sink.options.{name}: {options[name]!r} is not a value for {sink}", hint=f"Allowed: {', '.join(allowed)}.")
    return value


def positive(options: Mapping[str, Any], name: str, default: int) -> int:
    """Return a positive integer option. Raises `JobFileError` for anything else."""
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise JobFileError(f"sink.options.{name}: must be a positive integer, not {value!r}")
    return value


@contextmanager
def explained(sink: str, path: str, schema: pa.Schema, probe: Callable[[pa.Schema, io.BytesIO], None]) -> Iterator[None]:
    """Turn an error of Arrow in the block into one that names the column whose type `sink` cannot hold.

    `probe` writes an empty part of one column; the first column for which it fails is the one.
    """
    try:
        faultpoints.hit("storage.part", object=path)
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        for field in schema:
            try:
                probe(pa.schema([field]), io.BytesIO())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as cause:
                raise unsupported(sink, field) from cause
        raise UserCodeError(f"a result cannot be written as {sink}: {error}") from error
    except OSError as error:
        raise failures.output_error(error, path, "writing a part") from error


def unsupported(sink: str, field: pa.Field) -> UserCodeError:
    """Say that a column's type has no form in `sink`."""
    return UserCodeError(
        f"the column {field.name!r} of the result has the type {field.type}, which {sink} cannot hold",
        hint="Convert it in the last stage, or choose another sink.type.",
    )


def _described(field: pa.Field) -> str:
    return str(field.type) if field.nullable else f"{field.type} not null"
