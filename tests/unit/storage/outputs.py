"""Makes small, real, complete outputs: plan, parts, quarantine, manifest, `_SUCCESS`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from uuid import uuid4

import pyarrow as pa

from antinfer.core.ids import LeaseId, ShardId, staged_name
from antinfer.core.plan import Piece, Shard
from antinfer.core.records import CommitRecord, ObjectKind, StagedObject
from antinfer.storage import layout, manifest, parts, quarantine, rowhash, sinks
from antinfer.storage.place import OutputPlace
from antinfer.storage.planfile import PlanFile
from antinfer.storage.planning import PlanChunk
from antinfer.storage.quarantine import QuarantinedRow
from antinfer.storage.sources.base import InputFile

SHARDS = (100, 50, None)
"""Row counts in the plan; the last shard is known to its readers only, and has 30."""

RANGES = ((0, 0, 60), (0, 60, 100), (1, 0, 50), (2, 0, 30))
BAD = {(0, 5), (0, 7), (1, 49)}
"""Quarantined rows; a range of bad rows alone is made by `commit`."""


def write_plan(place: OutputPlace, rows: Iterable[int | None] = SHARDS) -> None:
    counts = list(rows)
    plan = PlanFile(place)
    plan.save_listing([InputFile(f"in-{n}", 1, "v") for n in range(len(counts))], pa.schema({"row": pa.int64()}))
    shards = [Shard(ShardId(n), (Piece(f"in-{n}", 0, 1, count),), count, 1) for n, count in enumerate(counts)]
    plan.append(PlanChunk(len(counts), shards))
    plan.complete()


def commit(
    place: OutputPlace,
    shard: int,
    start: int,
    stop: int,
    *,
    bad: Iterable[int] = (),
    takes: Iterable[int] | None = None,
    type: str = "parquet",
    row_ids: bool = False,
    n: int = 1,
    **changes: object,
) -> CommitRecord:
    """Compute and stage the range as a worker would; `changes` falsify the record before it is written anywhere.

    `takes` are the rows that a retry is about.
    """
    errors = [QuarantinedRow(shard, offset, "decode", "ValueError: bad row", "Traceback ...") for offset in sorted(bad)]
    rows = list(range(start, stop) if takes is None else takes)
    good = [offset for offset in rows if offset not in {row.offset for row in errors}]
    kinds: list[ObjectKind] = []
    if not good or not sinks.carries_record(type):
        kinds.append("record")
    if errors:
        kinds.append("quarantine")
    if good:
        kinds.append("part")
    record = CommitRecord(
        shard=shard,
        start=start,
        stop=stop,
        staged=staged_name(LeaseId(1, n), shard, start, stop, uuid4().hex[:8]),
        objects=tuple(StagedObject(kind) for kind in kinds),
        rows_out=len(good),
        rows_quarantined=len(errors),
        row_hash=rowhash.hash_rows(shard, good),
        worker="w1",
        rows_retried=0 if takes is None else len(rows),
    )
    record = replace(record, **changes)  # type: ignore[arg-type]
    spool = place.local_spool()
    files = {kind: os.path.join(spool, uuid4().hex) for kind in kinds}
    size = 0
    if good:
        columns = {"row": good, "name": [f"row {offset}" for offset in good]}
        if row_ids:
            columns |= {"_shard": [shard] * len(good), "_offset": good}
        table = pa.table(columns)
        writer = sinks.open_writer(type, files["part"], table.schema)
        writer.write(table)
        size = writer.close({layout.RECORD_KEY: parts.record_text(record)})
    if errors:
        kept = pa.table({"row": [row.offset for row in errors]})
        quarantine.write(files["quarantine"], errors, kept)
    if "record" in files:
        with open(files["record"], "w", encoding="utf-8") as file:
            file.write(parts.record_text(record))
    suffix = sinks.suffix(type)
    objects = tuple(place.stage(record.staged, kind, layout.final_name(kind, record, suffix), files[kind]) for kind in kinds)
    return replace(record, objects=objects, size_bytes=size)


def job(pipeline: list[dict[str, object]] | None = None) -> bytes:
    return json.dumps({"spec": {"name": "test", "pipeline": pipeline or [{"map_batches": "m:f"}]}}).encode()


def make_output(
    place: OutputPlace,
    *,
    type: str = "parquet",
    ranges: Iterable[tuple[int, int, int]] = RANGES,
    row_ids: bool = False,
    finished: bool = True,
) -> list[CommitRecord]:
    """Make a whole output; returns its records."""
    place.write(layout.JOB, job())
    place.claim_epoch(1, "test")
    write_plan(place)
    records = []
    for n, (shard, start, stop) in enumerate(ranges, 1):
        bad = [offset for bad_shard, offset in BAD if bad_shard == shard and start <= offset < stop]
        record = commit(place, shard, start, stop, bad=bad, type=type, row_ids=row_ids, n=n)
        place.publish(record, sinks.suffix(type))
        records.append(record)
    reseal(place, records, finished=finished)
    return records


def reseal(place: OutputPlace, records: list[CommitRecord], *, finished: bool = True) -> None:
    """Write manifest and `_SUCCESS` to fit `records`, so that only what a test broke elsewhere is found."""
    manifest.rewrite(place, 1, len(place.list_objects(layout.MANIFEST)), records)
    if finished:
        place.write(layout.SUCCESS, manifest.seal_text(records))
