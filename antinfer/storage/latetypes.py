"""Types that come late: an output column that has held no value so far is of Arrow's type null, and nobody can know what it will be.

A data set of such parts and others cannot be read: readers take the schema of the first part, and cannot make nulls of what is in others.
So a worker that knows every type leaves the schema beside the output, for those whose own rows do not tell it, and before ``_SUCCESS`` the
parts that were written too early are written again. A column without a value in the whole output stays of type null in all parts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from antinfer.core.records import CommitRecord
from antinfer.errors import OutputError, SchemaMismatchError
from antinfer.storage import layout, parts, sinks
from antinfer.storage.place import OutputPlace

_READERS: Final = 16


def fingerprint(schema: pa.Schema) -> str:
    """Return a short name for `schema`: equal for the same columns, types and order, whatever wrote it."""
    text = "\n".join(f"{field.name}\t{field.type}\t{field.nullable}" for field in schema)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tell(place: OutputPlace, schema: pa.Schema) -> None:
    """Leave a schema whose types are all known for other workers. Its name is its content, so nobody can overwrite another's."""
    name = f"{layout.folder(layout.TYPES)}/{fingerprint(schema)}"
    if place.read(name) is None:
        place.write(name, schema.serialize().to_pybytes())


def told(place: OutputPlace) -> list[pa.Schema]:
    """Return the schemas that were left; several only where workers contradict each other. Raises `OutputError` for a damaged one."""
    found = []
    for stored in place.list_objects(layout.TYPES):
        try:
            found.append(pa.ipc.read_schema(pa.py_buffer(place.read(stored.name) or b"")))
        except (pa.ArrowException, OSError) as error:
            raise OutputError(f"output {place.uri}: {stored.name} is damaged: {error}", hint="Remove it, and resume.") from error
    return found


def settle(place: OutputPlace, records: Sequence[CommitRecord], sink: str, options: Mapping[str, Any]) -> list[CommitRecord]:
    """Write the parts again that were written before all types were known; return `records` with their sizes as they are then.

    Costs nothing when there are none. To be called when nothing is left to publish; done again, it ends in the same.

    Args:
        place: the output place.
        records: of all that is published.
        sink: type of the sink.
        options: of its format.

    Raises:
        SchemaMismatchError: Two parts contradict each other.
        OutputError: The place cannot be read or written.
    """
    early = [record for record in records if not record.schema and parts.has_part(record)]
    if not early or not sinks.holds_types(sink):
        return list(records)
    names = {record.key: layout.final_name("part", record, sinks.suffix(sink)) for record in records if parts.has_part(record)}
    # All that know their types were found to agree when they were committed.
    typed = next((names[record.key] for record in records if record.schema), None)
    with ThreadPoolExecutor(_READERS) as pool:
        schemas = dict(pool.map(lambda name: (name, _schema(place, name)), [*filter(None, [typed]), *(names[each.key] for each in early)]))
    whole = _merged(schemas)
    for record in early:
        name = names[record.key]
        if not schemas[name].equals(whole):
            _write_again(place, name, record, whole, sink, options)
    sizes = {stored.name: stored.size_bytes for stored in place.list_parts()}
    late = {record.key for record in early}
    return [replace(record, size_bytes=sizes[names[record.key]]) if record.key in late else record for record in records]


def _merged(schemas: Mapping[str, pa.Schema]) -> pa.Schema:
    """Return the schema in which every type is known that is known to any of `schemas` (by name of part)."""
    whole: pa.Schema | None = None
    for name, schema in schemas.items():
        plain = schema.remove_metadata()
        try:
            if whole is not None and sorted(whole.names) != sorted(plain.names):
                raise SchemaMismatchError(f"{name} has the columns {', '.join(plain.names)}, another part {', '.join(whole.names)}")
            whole = plain if whole is None else pa.unify_schemas([whole, plain], promote_options="default")
        except pa.ArrowException as error:
            raise SchemaMismatchError(
                f"{name} contradicts another part: {error}", hint="The pipeline must return the same columns and types for every batch."
            ) from error
    assert whole is not None
    return whole


def _write_again(place: OutputPlace, name: str, record: CommitRecord, schema: pa.Schema, sink: str, options: Mapping[str, Any]) -> None:
    path = os.path.join(place.local_spool(), uuid4().hex)
    writer = sinks.open_writer(sink, path, schema, options)
    try:
        with place.open(name) as file:
            for batch in _batches(file, name):
                columns = [batch.column(field.name).cast(field.type) for field in schema]
                writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
            text = parts.carried_text(file, name)
        writer.close({} if text is None else {layout.RECORD_KEY: text})
        with open(path, "rb") as written:
            place.write(name, written.read())
    finally:
        os.unlink(path)


def _schema(place: OutputPlace, name: str) -> pa.Schema:
    with place.open(name) as file:
        return pq.read_schema(file) if name.endswith(".parquet") else pa.ipc.open_file(file).schema


def _batches(file: Any, name: str) -> Iterable[pa.RecordBatch]:
    if name.endswith(".parquet"):
        yield from pq.ParquetFile(file).iter_batches()
        return
    reader = pa.ipc.open_file(file)
    yield from (reader.get_batch(at) for at in range(reader.num_record_batches))
