"""Rows of the input that can be told from others by their values, for faults that poison one."""

from __future__ import annotations

import random
from typing import Any, Final

import pyarrow as pa

from antinfer.spec.schema import JobSpec
from antinfer.storage.jobs import open_input
from antinfer.storage.planning import plan_shards

_LOOKED_AT: Final = 256
"""Rows at the head of a shard of which one is taken."""


def pick_rows(spec: JobSpec, number: int, chance: random.Random) -> list[dict[str, Any]]:
    """Return the values of so many rows, or fewer where the input has fewer shards; only whole numbers, texts and truth values.

    Raises as reading the input does.
    """
    source = open_input(spec)
    files = source.list_files()
    source.freeze(files)
    shards = [shard for chunk in plan_shards(source, files, target_rows=None, target_bytes=None, threads=1) for shard in chunk.shards]
    found = []
    for shard in chance.sample(shards, min(number, len(shards))):
        batch = next(iter(source.read(shard, 0, _LOOKED_AT if shard.rows is None else min(_LOOKED_AT, shard.rows), _LOOKED_AT)), None)
        if batch is not None and batch.num_rows:
            row = batch.select(_tellable(batch.schema)).slice(chance.randrange(batch.num_rows), 1).to_pylist()[0]
            found.append({name: value for name, value in row.items() if value is not None})
    return [row for row in found if row]


def _tellable(schema: pa.Schema) -> list[str]:
    return [
        field.name
        for field in schema
        if pa.types.is_integer(field.type) or pa.types.is_boolean(field.type) or pa.types.is_string(field.type)
    ]
