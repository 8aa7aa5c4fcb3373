"""From files to shards."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.core.plan import Piece
from antinfer.errors import InternalError, SourceError
from antinfer.storage import planning
from antinfer.storage.planning import PlanChunk, PlanProgress, auto_target, chunk_borders, plan_shards
from antinfer.storage.sources.base import InputFile, SizedPiece, Target
from tests.unit.storage.reading import opened, rows_of

MB = 1 << 20


class Listed:
    """A source whose files are numbers: row counts and sizes are known, and who opens them when is recorded."""

    def __init__(self, files: Sequence[tuple[int | None, int]], *, opens_to_plan: bool = True) -> None:
        self.opens_to_plan = opens_to_plan
        self.frozen_schema = pa.schema([])
        self.rows = [rows for rows, _ in files]
        self.files = [InputFile(str(i), size, "1") for i, (_, size) in enumerate(files)]
        self.opened: list[int] = []
        self.gate: threading.Barrier | None = None

    def freeze(self, files: Sequence[InputFile]) -> pa.Schema:
        return self.frozen_schema

    def pieces(self, file: InputFile, target: Target) -> list[SizedPiece]:
        i = int(file.path)
        self.opened.append(i)
        if self.gate is not None:
            self.gate.wait(timeout=20)
        rows = self.rows[i]
        parts = max(1, -(-file.size_bytes // target.size_bytes))
        each = rows if rows is None else rows // parts
        return [SizedPiece(Piece(file.path, k, k + 1, each), file.size_bytes // parts) for k in range(parts)]

    def plan(self, **options: object) -> list[PlanChunk]:
        return list(plan_shards(self, self.files, threads=3, **options))  # type: ignore[arg-type]


FILES = st.lists(st.tuples(st.none() | st.integers(0, 30_000), st.integers(1, 40 * MB)), max_size=60)


@given(FILES, st.none() | st.integers(1, 50_000), st.none() | st.integers(MB // 4, 100 * MB))
def test_plan_holds_every_piece_once_in_order(
    files: list[tuple[int | None, int]], target_rows: int | None, target_bytes: int | None
) -> None:
    source = Listed(files)
    chunks = source.plan(target_rows=target_rows, target_bytes=target_bytes)
    shards = [shard for chunk in chunks for shard in chunk.shards]
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert (chunks[-1].files_done if chunks else 0) == len(files)
    covered = [(piece.path, unit) for shard in shards for piece in shard.pieces for unit in range(piece.start, piece.stop)]
    target, _ = planning._target(source.files, target_rows, target_bytes)
    wanted = [piece.piece for file in source.files for piece in source.pieces(file, target)]
    assert covered == [(piece.path, piece.start) for piece in wanted if piece.rows != 0]
    for shard in shards:
        counts = [piece.rows for piece in shard.pieces]
        assert shard.rows == (None if None in counts else sum(count or 0 for count in counts))
        units = sum(piece.stop - piece.start for piece in shard.pieces)
        assert units == 1 or target_bytes is None or shard.size_bytes <= target_bytes
        assert units == 1 or target_rows is None or (shard.rows or 0) <= target_rows


@given(FILES, st.data())
def test_planning_goes_on_with_the_same_chunks(files: list[tuple[int | None, int]], data: st.DataObject) -> None:
    source = Listed(files)
    chunks = source.plan()
    done = data.draw(st.integers(0, len(chunks)))
    first = sum(len(chunk.shards) for chunk in chunks[:done])
    assert source.plan(files_done=chunks[done - 1].files_done if done else 0, first_index=first) == chunks[done:]


def test_planning_does_not_go_on_between_chunks() -> None:
    with pytest.raises(InternalError, match="no chunk ends there"):
        Listed([(1, 1)] * 10).plan(files_done=2)


def test_chunks_grow() -> None:
    sizes = [stop - start for start, stop in chunk_borders(3000, opens_to_plan=True)]
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512, 512, 512, 441]
    assert max(stop - start for start, stop in chunk_borders(10**6, opens_to_plan=False)) == 16_384


def test_first_chunk_comes_before_the_rest_is_opened() -> None:
    source = Listed([(100, MB)] * 1000)
    first = next(iter(plan_shards(source, source.files, threads=2)))  # type: ignore[arg-type]
    assert first.files_done == 1
    assert max(source.opened) <= 2 * planning.LOOK_AHEAD_PER_THREAD


def test_files_are_opened_by_all_threads_at_once() -> None:
    source = Listed([(100, MB)] * 32)
    source.gate = threading.Barrier(8)
    assert list(plan_shards(source, source.files, threads=8))[-1].files_done == 32  # type: ignore[arg-type]


def test_listing_alone_plans_sources_that_need_no_look() -> None:
    source = Listed([(None, 10)] * 100, opens_to_plan=False)
    chunks = islice(plan_shards(source, source.files, threads=2), 2)  # type: ignore[arg-type]
    assert [chunk.files_done for chunk in chunks] == [1, 3]
    assert source.opened == [0, 1, 2]


def test_auto_target() -> None:
    def target(*sizes: int) -> int:
        return auto_target([InputFile(str(i), size, "") for i, size in enumerate(sizes)]).size_bytes

    assert target() == MB
    assert target(100) == MB
    assert target(160 * MB, 160 * MB) == 20 * MB
    assert target(*[1 << 40] * 3) == 256 * MB


def test_small_data_makes_few_shards_and_large_rows_many() -> None:
    small_rows = Listed([(1000, 20 * 1024)] * 63)
    assert [chunk.files_done for chunk in small_rows.plan()] == [1, 3, 7, 15, 31, 63]
    assert len([shard for chunk in small_rows.plan() for shard in chunk.shards]) == 6
    images = Listed([(1, 4 * MB)] * 127)
    assert len([shard for chunk in images.plan() for shard in chunk.shards]) >= 16


def test_neighbouring_row_groups_become_one_piece(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": list(range(1000))}), tmp_path / "a.parquet", row_group_size=10)
    source = opened("parquet", tmp_path)
    [chunk] = plan_shards(source, source.list_files(), threads=1, target_rows=400)
    assert [shard.pieces for shard in chunk.shards] == [
        (Piece(str(tmp_path / "a.parquet"), 0, 40, 400),),
        (Piece(str(tmp_path / "a.parquet"), 40, 80, 400),),
        (Piece(str(tmp_path / "a.parquet"), 80, 100, 200),),
    ]


def test_progress_and_a_data_set_without_rows(tmp_path: Path) -> None:
    for i in range(5):
        pq.write_table(pa.table({"id": pa.array([], pa.int64())}), tmp_path / f"{i}.parquet")
    source = opened("parquet", tmp_path)
    seen: list[PlanProgress] = []
    chunks = list(plan_shards(source, source.list_files(), threads=2, progress=seen.append))
    assert [(chunk.files_done, chunk.shards) for chunk in chunks] == [(1, []), (3, []), (5, [])]
    assert seen == [PlanProgress(1, 5, 0), PlanProgress(3, 5, 0), PlanProgress(5, 5, 0)]


def test_a_bad_file_fails_in_its_turn(tmp_path: Path) -> None:
    for i in range(10):
        pq.write_table(pa.table({"id": [i]}), tmp_path / f"{i}.parquet")
    (tmp_path / "5.parquet").write_bytes(b"PAR1 and nothing more")
    source = opened("parquet", tmp_path)
    chunks = plan_shards(source, source.list_files(), threads=4)
    assert [chunk.files_done for chunk in islice(chunks, 2)] == [1, 3]
    with pytest.raises(SourceError, match=r"5\.parquet"):
        next(chunks)


def test_plan_of_many_small_files_reads_back(tmp_path: Path) -> None:
    for i in range(300):
        pq.write_table(pa.table({"id": range(i * 3, i * 3 + 3)}), tmp_path / f"{i:04}.parquet")
    source = opened("parquet", tmp_path)
    shards = [shard for chunk in plan_shards(source, source.list_files(), threads=8) for shard in chunk.shards]
    assert len(shards) < 12
    assert [row["id"] for row in rows_of(source, shards)] == list(range(900))
