"""Parts being written: results joined with their carryover, quarantined rows, and the commit record over both."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from antinfer import faultpoints
from antinfer.core import ids
from antinfer.core.ids import LeaseId
from antinfer.core.records import CommitRecord, ObjectKind, StagedObject
from antinfer.errors import UserCodeError
from antinfer.metrics import AccumulatorSet
from antinfer.storage import failures, latetypes, layout, quarantine, rowhash, sinks
from antinfer.storage.held import HeldBatches, apart
from antinfer.storage.place import OutputPlace
from antinfer.storage.quarantine import QuarantinedRow
from antinfer.storage.sinks.base import PartWriter
from antinfer.worker.host.patience import Patience
from antinfer.worker.host.runs import Chunk, Run
from antinfer.worker.pipeline import arrays, unify
from antinfer.worker.pipeline.pieces import Piece, row_positions, take, without_bad
from antinfer.worker.schemas import SchemaGate

SHARD_COLUMN = "_shard"
OFFSET_COLUMN = "_offset"
_BLOCK_BYTES = 64 << 20
"""Carryover columns of so many bytes are put beside results at once."""
_BAD_ROW_BYTES = 200
"""What a quarantined row takes beside its texts and its columns, roughly."""


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """What all parts of a job have in common."""

    place: OutputPlace
    sink: str
    options: Mapping[str, Any]
    carryover: tuple[str, ...]
    keep_columns: tuple[str, ...]
    row_ids: bool
    accumulators: AccumulatorSet
    gate: SchemaGate
    worker: str
    code: str

    def bypass(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the columns of a source batch that go around the pipeline; they do not keep the others in memory."""
        return apart(batch.select(list(dict.fromkeys((*self.carryover, *self.keep_columns)))), batch)

    def join(self, shard: int, piece: Piece, chunk: Chunk) -> pa.RecordBatch | None:
        """Return the output rows of `piece`: row ids, carryover and results. Raises UserCodeError when a name is there twice."""
        if piece.batch is None:
            return None
        names: list[str] = []
        columns: list[pa.Array] = []
        positions = row_positions(piece)
        if self.row_ids:
            names += [SHARD_COLUMN, OFFSET_COLUMN]
            columns += [arrays.from_plain(np.full(len(positions), shard, dtype=np.int64)), arrays.from_plain(positions)]
        if self.carryover:
            source = chunk.kept.select(list(self.carryover)).slice(piece.begin - chunk.start, piece.stop - piece.begin)
            carried = take(source, positions - piece.begin)
            assert carried is not None
            names += self.carryover
            columns += carried.columns
        twice = sorted(set(names) & set(piece.batch.schema.names))
        if twice:
            raise UserCodeError(
                f"the pipeline returns a column {twice[0]!r}, which is also carried over or written as a row id",
                hint="Rename the column in the last stage, or take it out of carryover.",
            )
        fields = [pa.field(name, column.type) for name, column in zip(names, columns, strict=True)]
        schema = pa.schema([*fields, *piece.batch.schema])
        return self.gate.fit(pa.RecordBatch.from_arrays([*columns, *piece.batch.columns], schema=schema))


class OpenPart:
    """The results of ``[start, ...)`` of one lease until they are staged. Used by one thread at a time."""

    def __init__(self, plan: OutputPlan, run: Run) -> None:
        faultpoints.hit("part.open", shard=run.shard.index, start=run.staged)
        self._plan = plan
        self._shard = int(run.shard.index)
        self._start = run.staged
        self._path = os.path.join(plan.place.local_spool(), secrets.token_hex(8))
        self._writer: PartWriter | None = None
        self._accumulators = plan.accumulators.fresh()
        # Of the pieces as they come, not of the range: a piece that was skipped or came twice must show in the audit.
        self._handled = rowhash.EMPTY
        self._retried = 0
        """Of the rows that came, those that the retry round takes."""
        self._bad: list[QuarantinedRow] = []
        self._bad_bytes = 0
        self._kept = HeldBatches()
        """Their columns that are to be kept."""
        self._untyped = HeldBatches()
        """Rows that wait until every column has had a value, and so a type."""
        self._began = time.monotonic()

    @property
    def size_bytes(self) -> int:
        """Bytes written and buffered, those of quarantined rows included."""
        return self.held_bytes + (0 if self._writer is None else self._writer.size_bytes)

    @property
    def held_bytes(self) -> int:
        """Bytes in memory: of rows that wait for their types or for a row group worth writing, and of quarantined ones."""
        waiting = self._untyped.size_bytes + (0 if self._writer is None else self._writer.buffered_bytes)
        return waiting + self._bad_bytes + self._kept.size_bytes

    def add(self, run: Run, piece: Piece, chunk: Chunk) -> None:
        """Append a piece of `run`, read in `chunk`; it follows on the one before. Raises UserCodeError and OutputError."""
        self._handled = rowhash.combine(self._handled, self._hash(run, piece))
        for block in _blocks(without_bad(piece), chunk):
            self._add_rows(block, chunk)
        self._quarantine(run, piece, chunk)

    def _hash(self, run: Run, piece: Piece) -> str:
        """Hash the input rows that `piece` stands for."""
        retried = run.retried(piece.begin, piece.stop)
        if retried is None:
            return rowhash.hash_range(self._shard, piece.begin, piece.stop)
        self._retried += len(retried)
        return rowhash.hash_rows(self._shard, retried)

    def _add_rows(self, piece: Piece, chunk: Chunk) -> None:
        batch = self._plan.join(self._shard, piece, chunk)
        if batch is None:
            return
        self._accumulators.update_arrow(batch)
        self._untyped.add(batch)
        if self._writer is not None or unify.is_known(batch.schema):
            self._write_down()

    def stage(self, run: Run, lease: LeaseId, stop: int) -> CommitRecord:
        """Finish the part at position `stop`, make all of its objects durable under `lease`, and return the record to commit.

        Raises OutputError.
        """
        plan = self._plan
        if self._untyped:
            self._write_down(last=True)
        staged = ids.staged_name(lease, self._shard, self._start, stop, secrets.token_hex(8))
        hashed = self._handled
        if self._bad:
            hashed = rowhash.without(hashed, rowhash.hash_rows(self._shard, [row.offset for row in self._bad]))
        record = CommitRecord(
            shard=self._shard,
            start=self._start,
            stop=stop,
            staged=staged,
            objects=tuple(StagedObject(kind) for kind in self._kinds()),
            rows_out=0 if self._writer is None else self._writer.rows,
            rows_quarantined=len(self._bad),
            row_hash=hashed,
            round=run.round,
            rows_retried=self._retried,
            attempt=run.attempt,
            worker=plan.worker,
            schema="" if self._writer is None or not unify.is_known(self._writer.schema) else latetypes.fingerprint(self._writer.schema),
            code=plan.code,
            accumulators=self._accumulators.take_state(),
            seconds=round(time.monotonic() - self._began, 6),
        )
        faultpoints.hit("part.close", staged=staged)
        size = self._write_objects(record)
        faultpoints.hit("commit.stage", staged=staged)
        suffix = sinks.suffix(plan.sink)
        patience = Patience(f"staging {staged}", lambda: run.dropped)
        objects = []
        for kind in self._kinds():
            final = layout.final_name(kind, record, suffix)
            objects.append(patience.again(partial(plan.place.stage, staged, kind, final, self._file(kind))))
        if self._writer is not None and record.schema and not plan.gate.is_told and sinks.holds_types(plan.sink):
            latetypes.tell(plan.place, self._writer.schema)
            plan.gate.is_told = True
        return replace(record, objects=tuple(objects), size_bytes=size)

    def abort(self) -> None:
        """Throw everything away that is not staged. Raises OutputError."""
        try:
            if self._writer is not None:
                self._writer.abort()
        finally:
            with failures.wrapped(self._path, "giving up a part"):
                for kind in get_args(ObjectKind):
                    Path(self._file(kind)).unlink(missing_ok=True)

    def _write_down(self, *, last: bool = False) -> None:
        """Write the rows that waited for their types; the `last` ones of a part go as they are, unless another worker knows better."""
        gate = self._plan.gate
        if last and gate.schema is not None and not unify.is_known(gate.schema) and sinks.holds_types(self._plan.sink):
            gate.learn(latetypes.told(self._plan.place))
        for batch in self._untyped.take():
            fitting = gate.fit(batch)
            if self._writer is None:
                self._writer = sinks.open_writer(self._plan.sink, self._path, fitting.schema, self._plan.options)
            self._writer.write(fitting)

    def _kinds(self) -> list[ObjectKind]:
        kinds: list[ObjectKind] = []
        if self._writer is None or not sinks.carries_record(self._plan.sink):
            kinds.append("record")
        if self._bad:
            kinds.append("quarantine")
        if self._writer is not None:
            kinds.append("part")
        return kinds

    def _file(self, kind: ObjectKind) -> str:
        return self._path if kind == "part" else f"{self._path}.{kind}"

    def _write_objects(self, record: CommitRecord) -> int:
        """Write the local files of all objects; return the size of the part in bytes."""
        text = json.dumps(record.to_json(), separators=(",", ":"))
        if self._bad:
            kept = pa.Table.from_batches(self._kept.take()) if self._kept else None
            quarantine.write(self._file("quarantine"), self._bad, kept)
        size = 0 if self._writer is None else self._writer.close({layout.RECORD_KEY: text})
        if "record" in self._kinds():
            path = self._file("record")
            with failures.wrapped(path, "writing a record"), open(path, "w", encoding="utf-8") as file:
                file.write(json.dumps(replace(record, size_bytes=size).to_json(), separators=(",", ":")))
        return size

    def _quarantine(self, run: Run, piece: Piece, chunk: Chunk) -> None:
        if not run.bad:
            return
        offsets = sorted(offset for offset in list(run.bad) if piece.begin <= offset < piece.stop)
        for offset in offsets:
            reason = run.bad.pop(offset)
            where = run.shard.path_of(offset)
            self._bad.append(QuarantinedRow(self._shard, offset, reason.stage, reason.error, reason.traceback, where, run.attempt))
            self._bad_bytes += _BAD_ROW_BYTES + len(reason.error) + len(reason.traceback)
        if self._plan.keep_columns:
            kept = take(chunk.kept.select(list(self._plan.keep_columns)), np.array(offsets, dtype=np.int64) - chunk.start)
            if kept is not None:
                self._kept.add(kept)


def _blocks(piece: Piece, chunk: Chunk) -> Iterator[Piece]:
    """Cut a piece with many rows for each input row, whose carryover columns are repeated for each, into blocks of bearable size."""
    carried = chunk.kept.slice(piece.begin - chunk.start, piece.stop - piece.begin)
    positions = piece.positions
    repeats = positions is not None and not bool(np.all(np.diff(positions) > 0))
    if piece.batch is None or positions is None or not repeats or piece.rows * carried.nbytes <= _BLOCK_BYTES:
        yield piece
        return
    sizes = np.array([carried.slice(row, 1).nbytes for row in range(carried.num_rows)], dtype=np.int64)
    reached = np.cumsum(sizes[positions - piece.begin]) // _BLOCK_BYTES
    borders = [0, *(np.flatnonzero(np.diff(reached)) + 1).tolist(), piece.rows]
    for start, stop in pairwise(borders):
        yield Piece(piece.scope, piece.begin, piece.stop, piece.batch.slice(start, stop - start), positions[start:stop])
