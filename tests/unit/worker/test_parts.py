"""Parts on a real place: what they hold in memory, what they leave behind, and types that come late."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.core.ids import LeaseId, ShardId
from antinfer.core.plan import Shard
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord
from antinfer.errors import OutputError
from antinfer.metrics import AccumulatorSet
from antinfer.storage import latetypes, layout
from antinfer.storage.posix import PosixPlace
from antinfer.worker.host.parts import OpenPart, OutputPlan
from antinfer.worker.host.runs import Chunk, Run
from antinfer.worker.hostlink import Work
from antinfer.worker.pipeline.pieces import BadRow, Piece
from antinfer.worker.schemas import SchemaGate

LEASE = LeaseId(1, 1)


def plan(folder: Path, **fields: Any) -> OutputPlan:
    given: dict[str, Any] = {"carryover": (), "keep_columns": (), "row_ids": False, **fields}
    return OutputPlan(
        place=PosixPlace(str(folder)),
        sink="parquet",
        options={},
        accumulators=AccumulatorSet({}),
        gate=SchemaGate("the output"),
        worker="w",
        code="c",
        **given,
    )


def begin(rows: int) -> Run:
    return Run(Work(LEASE, Shard(ShardId(0), (), rows, 0), Rows(0, rows)))


def add(part: OpenPart, run: Run, start: int, source: pa.RecordBatch, result: pa.RecordBatch | None, positions: Any = None) -> None:
    stop = start + source.num_rows
    part.add(run, Piece(run, start, stop, result, positions), Chunk(start, stop, source.nbytes, source))


def read(place: Any, record: CommitRecord) -> pa.Table:
    with place.open(layout.staged_path(record.staged, "part")) as file:
        return pq.read_table(pa.PythonFile(file))


def spooled(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder / layout.folder(layout.SPOOL)) for name in names if not name.endswith(".lock")]


def test_a_few_rows_of_each_chunk_do_not_keep_the_chunks_in_memory(tmp_path: Path) -> None:
    chunks, rows, wide = 64, 256, 4096
    run = begin(chunks * rows)
    part = OpenPart(plan(tmp_path, carryover=("text",), keep_columns=("text",)), run)
    before = pa.total_allocated_bytes()
    for at in range(0, chunks * rows, rows):
        source = pa.record_batch({"text": pa.array([f"{at + i:0{wide}d}" for i in range(rows)])})
        run.bad[at + 7] = BadRow("bad")
        # All but one row filtered away, and one given up.
        add(part, run, at, source, pa.record_batch({"y": [at]}), np.array([at + 5]))
    # A megabyte each.
    assert pa.total_allocated_bytes() - before < 8 * rows * wide
    record = part.stage(run, LEASE, chunks * rows)
    assert (record.rows_out, record.rows_quarantined) == (chunks, chunks)
    assert [int(text) for text in read(PosixPlace(str(tmp_path)), record)["text"].to_pylist()] == [at * rows + 5 for at in range(chunks)]


def test_quarantined_rows_count_for_the_size_of_a_part(tmp_path: Path) -> None:
    run = begin(100)
    part = OpenPart(plan(tmp_path, keep_columns=("x",)), run)
    run.bad.update(dict.fromkeys(range(100), BadRow("bad", "t" * 1000)))
    add(part, run, 0, pa.record_batch({"x": ["x" * 500] * 100}), None)
    assert part.size_bytes >= 150_000


def test_a_part_that_cannot_be_staged_leaves_nothing_behind(tmp_path: Path) -> None:
    run = begin(10)
    part = OpenPart(plan(tmp_path), run)
    run.bad[3] = BadRow("bad")
    add(part, run, 0, pa.record_batch({"x": np.arange(10)}), pa.record_batch({"y": np.arange(10)}))
    (tmp_path / layout.folder(layout.STAGING)).write_text("not a folder")
    with pytest.raises(OutputError):
        part.stage(run, LEASE, 10)
    assert spooled(tmp_path)
    part.abort()
    assert not spooled(tmp_path)


def test_rows_wait_until_their_columns_have_a_type(tmp_path: Path) -> None:
    run = begin(6)
    output = plan(tmp_path)
    source = pa.record_batch({"x": np.arange(2)})
    part = OpenPart(output, run)
    for at, values in ((0, [None, None]), (2, ["a", None]), (4, [None, None])):
        add(part, run, at, source, pa.record_batch({"y": pa.array(values)}))
    record = part.stage(run, LEASE, 6)
    table = read(output.place, record)
    assert table.schema.field("y").type == pa.string() and table["y"].to_pylist() == [None, None, "a", None, None, None]
    assert (record.rows_out, bool(record.schema)) == (6, True)


def stage_texts(output: OutputPlan, shard: int, texts: list[str | None]) -> CommitRecord:
    run = Run(Work(LEASE, Shard(ShardId(shard), (), len(texts), 0), Rows(0, len(texts))))
    part = OpenPart(output, run)
    rows = pa.record_batch({"x": pa.array(range(len(texts)), pa.int64()), "y": pa.array(texts)})
    add(part, run, 0, rows.select(["x"]), rows)
    return part.stage(run, LEASE, len(texts))


def test_a_part_without_a_value_takes_its_type_from_another_worker(tmp_path: Path) -> None:
    typed = stage_texts(plan(tmp_path), 0, ["a"])
    output = plan(tmp_path)
    record = stage_texts(output, 1, [None, None])
    assert record.schema == typed.schema != ""
    assert read(output.place, record).schema.field("y").type == pa.string()


def test_a_part_without_a_value_is_written_as_it_is_when_nobody_knows_better(tmp_path: Path) -> None:
    latetypes.tell(PosixPlace(str(tmp_path)), pa.schema({"x": pa.string(), "y": pa.string()}))  # contradicts: x is a number here
    output = plan(tmp_path)
    record = stage_texts(output, 0, [None, None])
    assert (record.rows_out, record.schema) == (2, "")
    assert read(output.place, record)["y"].to_pylist() == [None, None]


def test_carryover_of_many_children_is_not_in_memory_at_once(tmp_path: Path) -> None:
    parents, heavy, children = 100, 1 << 20, 3000
    run = begin(parents)
    source = pa.record_batch({"text": ["x"] * 50 + ["y" * heavy] + ["z"] * 49})
    positions = np.array([*range(50), *[50] * children, *range(51, parents)])
    part = OpenPart(plan(tmp_path, carryover=("text",)), run)
    # More than a column of strings can hold: three gigabytes, which a dictionary makes small again in the file.
    add(part, run, 0, source, pa.record_batch({"y": np.arange(len(positions))}), positions)
    record = part.stage(run, LEASE, parents)
    assert record.rows_out == len(positions)
    with PosixPlace(str(tmp_path)).open(layout.staged_path(record.staged, "part")) as file:
        assert pq.read_table(pa.PythonFile(file), columns=["y"])["y"].to_pylist() == list(range(len(positions)))
