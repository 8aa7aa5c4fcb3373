"""What a job would do, found by looking at its input alone: the dry run behind ``antinfer plan``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from antinfer.spec.columns import check_columns
from antinfer.storage.jobs import open_input
from antinfer.storage.limits import PART_BYTES
from antinfer.storage.planning import plan_shards

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec

_THREADS: Final = 16


@dataclass(frozen=True, slots=True)
class Forecast:
    """Figures of a plan that was not written down."""

    files: int
    size_bytes: int
    """Of the input as stored."""
    shards: int
    rows: int | None
    """None when only reading can tell (text formats)."""
    rows_known: int
    """Rows of the shards whose size the plan knows."""
    parts: int
    """Parts to expect, at least one a shard."""
    columns: list[tuple[str, str]]
    """Name and type of what the pipeline is given."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def forecast(spec: JobSpec) -> Forecast:
    """Plan the input of a job without writing anything.

    Raises:
        SourceError, SchemaMismatchError: The input cannot be listed or planned.
        JobFileError: The source's options are wrong.
    """
    source = open_input(spec)
    files = source.list_files()
    schema = source.freeze(files)
    check_columns(spec, schema.names)
    rows: int | None = 0
    known = shards = parts = 0
    target_bytes = None if spec.shard.bytes == "auto" else spec.shard.bytes
    target_rows = None if spec.shard.rows == "auto" else spec.shard.rows
    for chunk in plan_shards(source, files, target_rows=target_rows, target_bytes=target_bytes, threads=_THREADS):
        shards += len(chunk.shards)
        for shard in chunk.shards:
            rows = None if rows is None or shard.rows is None else rows + shard.rows
            known += shard.rows or 0
            parts += max(1, -(-shard.size_bytes // PART_BYTES))
    size_bytes = sum(file.size_bytes for file in files)
    return Forecast(len(files), size_bytes, shards, rows, known, parts, [(field.name, str(field.type)) for field in schema])
