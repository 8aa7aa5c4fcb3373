"""The plan beside the output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from antinfer.core.ids import ShardId
from antinfer.core.plan import Piece, Shard
from antinfer.errors import DataError, InternalError
from antinfer.storage import planfile
from antinfer.storage.place import OutputPlace, open_place
from antinfer.storage.planfile import PlanFile, changed_files
from antinfer.storage.planning import PlanChunk, plan_shards
from antinfer.storage.sources.base import InputFile
from tests.unit.storage.reading import opened, shards_of

SCHEMA = pa.schema([pa.field("id", pa.int64()), pa.field("word", pa.string(), metadata={"k": "v"})])
FILES = [InputFile(f"/in/{i}", 100 + i, str(i)) for i in range(6)]


@pytest.fixture
def place(tmp_path: Path) -> OutputPlace:
    return open_place(str(tmp_path / "out"))


def chunk(first: int, counts: Sequence[int | None], files_done: int) -> PlanChunk:
    shards = [
        Shard(ShardId(first + i), (Piece(f"/in/{first + i}", 0, 3, rows), Piece("/in/ü", 1, 2, 0)), rows, 10 + i)
        for i, rows in enumerate(counts)
    ]
    return PlanChunk(files_done, shards)


CHUNKS = [chunk(0, [5, None], 1), chunk(2, [], 3), chunk(2, [7, 8, 9], 6)]


def written(place: OutputPlace, chunks: int = 3) -> PlanFile:
    plan = PlanFile(place)
    plan.save_listing(FILES, SCHEMA)
    for one in CHUNKS[:chunks]:
        plan.append(one)
    return plan


def objects(place: OutputPlace) -> list[str]:
    return sorted(stored.name for stored in place.list_objects("plan"))


def test_nothing_there(place: OutputPlace) -> None:
    state = PlanFile(place).load()
    assert state.listing is None
    assert len(state.index) == 0
    assert not state.index.complete


@pytest.mark.parametrize("chunks", [0, 1, 2, 3])
def test_a_killed_planner_goes_on(place: OutputPlace, chunks: int) -> None:
    written(place, chunks)
    plan = PlanFile(place)
    state = plan.load()
    assert state.listing is not None
    assert state.listing.files == FILES
    assert state.listing.schema.equals(SCHEMA, check_metadata=True)
    assert state.files_done == [0, 1, 3, 6][chunks]
    assert [state.index.rows(i) for i in range(len(state.index))] == [shard.rows for one in CHUNKS[:chunks] for shard in one.shards]
    assert not state.index.complete
    for one in CHUNKS[chunks:]:
        plan.append(one)
    plan.complete()
    again = PlanFile(place)
    assert again.load().index.complete
    assert [again.lookup(i) for i in range(5)] == [shard for one in CHUNKS for shard in one.shards]
    assert [plan.lookup(i) for i in range(5)] == [shard for one in CHUNKS for shard in one.shards]


def test_lookup_beyond_the_plan(place: OutputPlace) -> None:
    plan = written(place)
    for index in (-1, 5):
        with pytest.raises(IndexError):
            plan.lookup(index)


def test_lookup_keeps_few_chunks(place: OutputPlace) -> None:
    plan = PlanFile(place)
    files = [InputFile(str(i), 1, "") for i in range(40)]
    plan.save_listing(files, SCHEMA)
    for i in range(40):
        plan.append(chunk(i, [i], i + 1))
    assert [plan.lookup(i).rows for i in (*range(40), *range(39, -1, -1))] == [*range(40), *range(39, -1, -1)]
    assert len(plan._decoded) == planfile.CHUNKS_KEPT


def test_names_have_no_data_suffix(place: OutputPlace) -> None:
    written(place).complete()
    folder = "_antinfer/plan/"
    assert objects(place) == [f"{folder}{name}" for name in ("chunk-00000000", "chunk-00000001", "chunk-00000002", "complete", "listing")]


def test_planning_again_writes_the_same_bytes(place: OutputPlace, tmp_path: Path) -> None:
    written(place).complete()
    other = open_place(str(tmp_path / "other"))
    written(other).complete()
    assert {name: place.read(name) for name in objects(place)} == {name: other.read(name) for name in objects(other)}


@pytest.mark.parametrize("name", ["listing", "chunk-00000000", "chunk-00000002"])
def test_a_flipped_byte_is_seen(place: OutputPlace, name: str) -> None:
    plan = written(place)
    plan.complete()
    full = f"_antinfer/plan/{name}"
    data = place.read(full)
    assert data is not None
    for at in (3, len(data) // 2, len(data) - 1):
        place.write(full, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(DataError, match=name) as error:
            PlanFile(place).load()
        assert error.value.hint
    if name == "chunk-00000002":
        with pytest.raises(DataError, match=name):
            plan.lookup(4)


def test_a_plan_goes_on_with_an_input_that_has_changed_behind_it(place: OutputPlace) -> None:
    begun = PlanFile(place)
    begun.save_listing(FILES, SCHEMA)
    begun.append(CHUNKS[0])
    done = CHUNKS[0].files_done
    changed = [*FILES[:done], *(replace(file, version="another") for file in FILES[done:])]
    begun.save_listing(changed, SCHEMA)
    again = PlanFile(place)
    state = again.load()
    assert state.listing is not None and (state.listing.files, state.files_done) == (changed, done)
    for chunk in CHUNKS[1:]:
        again.append(chunk)
    again.complete()
    assert PlanFile(place).load().index.complete
    again.save_listing([replace(FILES[0], version="another"), *changed[1:]], SCHEMA)
    with pytest.raises(DataError, match="another listing"):
        PlanFile(place).load()


def test_a_chunk_of_another_plan_is_seen(place: OutputPlace, tmp_path: Path) -> None:
    written(place).complete()
    other = open_place(str(tmp_path / "other"))
    foreign = PlanFile(other)
    foreign.save_listing([replace(FILES[0], version="another")], SCHEMA)
    foreign.append(CHUNKS[0])
    data = other.read("_antinfer/plan/chunk-00000000")
    assert data is not None
    place.write("_antinfer/plan/chunk-00000000", data)
    with pytest.raises(DataError, match="another listing"):
        PlanFile(place).load()


def test_a_lost_chunk_of_a_sealed_plan_is_seen(place: OutputPlace) -> None:
    written(place).complete()
    place.remove(("_antinfer/plan/chunk-00000002",))
    with pytest.raises(DataError, match="does not fit"):
        PlanFile(place).load()


@pytest.mark.parametrize("sealed", [b"", b"{", b"[]", b"{}"])
def test_a_damaged_seal_is_seen(place: OutputPlace, sealed: bytes) -> None:
    written(place).complete()
    place.write("_antinfer/plan/complete", sealed)
    with pytest.raises(DataError, match="complete"):
        PlanFile(place).load()


def test_misuse(place: OutputPlace) -> None:
    with pytest.raises(InternalError, match="listing"):
        PlanFile(place).append(CHUNKS[0])
    plan = written(place, 1)
    with pytest.raises(InternalError, match="does not go on at shard 2"):
        plan.append(CHUNKS[0])
    with pytest.raises(InternalError, match="1 of 6 files"):
        plan.complete()


def test_seal_holds_totals(place: OutputPlace) -> None:
    written(place).complete()
    data = place.read("_antinfer/plan/complete")
    assert data is not None
    document = json.loads(data)
    assert (document["files"], document["size_bytes"], document["shards"]) == (6, 615, 5)
    assert len(document["chunks"]) == 3


def test_real_plan_reads_back(place: OutputPlace, tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{i:02}.txt").write_text("line\n" * i)
    source = opened("text", tmp_path / "in")
    files = source.list_files()
    plan = PlanFile(place)
    assert source.frozen_schema is not None
    plan.save_listing(files, source.frozen_schema)
    for one in plan_shards(source, files, threads=2):
        plan.append(one)
    plan.complete()
    state = plan.load()
    assert state.index.complete
    assert [plan.lookup(i) for i in range(len(state.index))] == shards_of(source)
    assert state.listing is not None
    assert changed_files(state.listing.files, source.list_files()) == ""


def test_changed_files_are_explained() -> None:
    assert changed_files(FILES, list(FILES)) == ""
    grown, touched = InputFile("/in/1", 999, "1"), InputFile("/in/2", 102, "new")
    added = [InputFile(f"/in/x{i}", 1, "") for i in range(5)]
    said = changed_files(FILES, [grown, touched, *FILES[3:], *added])
    assert said == (
        "5 added: /in/x0, /in/x1, /in/x2, and 2 more; 1 removed: /in/0; 2 changed: /in/1 (size 101 -> 999 bytes), /in/2 (version 2 -> new)"
    )


def test_a_chunk_exchanged_while_the_job_runs_is_seen(place: OutputPlace, tmp_path: Path) -> None:
    plan = written(place)
    plan.complete()
    other = open_place(str(tmp_path / "other"))
    PlanFile(other).save_listing(FILES, SCHEMA)
    rival = PlanFile(other)
    rival.load()
    rival.append(chunk(0, [5, 6], 1))
    data = other.read("_antinfer/plan/chunk-00000000")
    assert data is not None
    place.write("_antinfer/plan/chunk-00000000", data)
    with pytest.raises(DataError, match="changed while the job ran"):
        plan.lookup(1)
    with pytest.raises(DataError, match="does not fit"):
        PlanFile(place).load()
