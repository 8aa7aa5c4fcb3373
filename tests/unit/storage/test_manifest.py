"""The manifest, and what an output place proves by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.core.ids import StagedName
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.errors import ForeignOutputError, OutputError
from antinfer.storage import layout, manifest, parts
from antinfer.storage.place import OutputPlace, open_place
from tests.unit.storage import outputs


@pytest.fixture
def place(tmp_path: Path) -> OutputPlace:
    return open_place(str(tmp_path / "out"))


def record(shard: int = 0, start: int = 0, stop: int = 10, staged: str = "1-1.0.0-10.aa", **changes: object) -> CommitRecord:
    made = CommitRecord(shard, start, stop, StagedName(staged), (StagedObject("part"),), rows_out=stop - start)
    return replace(made, **changes)  # type: ignore[arg-type]


records = st.builds(
    CommitRecord,
    shard=st.integers(0, 1 << 40),
    start=st.integers(0, 1 << 40),
    stop=st.integers(0, 1 << 40),
    staged=st.text(max_size=20).map(StagedName),
    objects=st.lists(st.builds(StagedObject, st.sampled_from(layout.KINDS), st.text(max_size=20)), max_size=3).map(tuple),
    rows_out=st.integers(0, 1 << 40),
    accumulators=st.text(max_size=40),
    seconds=st.floats(0, 1e6),
)


@given(st.lists(records, max_size=5))
def test_chunks_keep_records_whole(given_records: list[CommitRecord]):
    assert manifest.decode(manifest.encode(given_records), "x") == given_records


def test_repeats_are_dropped(place: OutputPlace):
    first, second = record(), record(shard=1)
    manifest.append(place, 1, 0, [first, second])
    manifest.append(place, 2, 0, [second])
    assert manifest.read_all(place) == [first, second]


def test_a_damaged_chunk_is_named(place: OutputPlace):
    name = manifest.append(place, 1, 0, [record()])
    place.write(name, b"ARROW1 but no more")
    with pytest.raises(OutputError, match=name):
        manifest.read_all(place)


def test_rewriting_leaves_the_given_records_alone(place: OutputPlace):
    for n in range(3):
        manifest.append(place, 1, n, [record(shard=n)])
    kept = [record(shard=2), record(shard=0)]
    names = manifest.rewrite(place, 1, 3, kept)
    assert [stored.name for stored in place.list_objects(layout.MANIFEST)] == names
    assert manifest.read_all(place) == sorted(kept, key=lambda item: item.shard)


def test_rewriting_with_the_same_number_again_keeps_the_chunk(place: OutputPlace):
    """A master that sealed, died before it said so, and seals again may use the number it used."""
    for _ in range(2):
        manifest.rewrite(place, 1, 0, [record()])
    assert manifest.read_all(place) == [record()]


def test_totals_count_a_retried_row_once():
    base = record(rows_out=7, rows_quarantined=3, size_bytes=100, seconds=1.5)
    cured = record(start=1, stop=2, staged="2-1.0.1-2.bb", round=1, rows_retried=1, rows_out=1)
    failed = record(start=2, stop=3, staged="2-2.0.2-3.cc", round=1, rows_retried=1, rows_out=0, rows_quarantined=1)
    sums = manifest.totals([base, cured, failed, base])
    assert (sums.rows, sums.rows_out, sums.rows_quarantined, sums.rows_retried, sums.commits) == (10, 8, 2, 2, 3)
    assert (sums.size_bytes, sums.seconds) == (100, 1.5)


@pytest.mark.parametrize("type", ["parquet", "jsonl", "arrow"])
def test_the_output_proves_itself_without_a_manifest(place: OutputPlace, type: str):
    made = outputs.make_output(place, type=type)
    dead = outputs.commit(place, 2, 30, 40, bad=range(30, 40), type=type)
    place.publish(dead, type)
    place.remove(tuple(stored.name for stored in place.list_objects(layout.MANIFEST)))
    found = manifest.list_output(place, type)
    expected = sorted([*made, dead], key=lambda item: (item.shard, item.start))
    assert [(item.key, item.rows_out, item.row_hash) for item in found] == [(item.key, item.rows_out, item.row_hash) for item in expected]
    assert [item.size_bytes for item in found] == [item.size_bytes for item in expected]


def test_manifest_and_parts_are_put_together(place: OutputPlace):
    made = outputs.make_output(place)
    manifest.rewrite(place, 1, 9, made[:2])
    assert [item.key for item in manifest.list_output(place, "parquet")] == [item.key for item in made]


def test_commits_that_were_not_published_to_the_end_are_removed(place: OutputPlace):
    """Rule 14: their rows are computed again, so nothing of them may stay."""
    made = outputs.make_output(place)
    half = outputs.commit(place, 2, 30, 40, bad=(31,))
    place.publish(replace(half, objects=half.objects[:1]), "parquet")
    dead = outputs.commit(place, 2, 40, 50, bad=range(40, 50))
    place.publish(replace(dead, objects=dead.objects[:1]), "parquet")
    assert [item.key for item in manifest.list_output(place, "parquet")] == [item.key for item in made]
    assert len(place.list_parts()) == 4
    assert len(place.list_objects(layout.QUARANTINE)) == 2
    assert place.list_objects(layout.RECORDS) == []


@pytest.mark.parametrize("type", ["parquet", "jsonl"])
def test_a_part_that_no_record_is_known_of_is_left_to_the_user(place: OutputPlace, type: str):
    """Rule 19: its name may come to belong to a commit, so no master removes it while anything is left to publish."""
    made = outputs.make_output(place, type=type)
    stray = f"part-00000002-000000000050-000000000060.{type}"
    place.write(stray, b"written by somebody else")
    with pytest.raises(ForeignOutputError, match=stray):
        manifest.list_output(place, type)
    place.remove((stray,))
    assert [item.key for item in manifest.list_output(place, type)] == [item.key for item in made]


def test_of_two_record_objects_beside_one_part_neither_is_believed(place: OutputPlace):
    made = outputs.make_output(place, type="jsonl")
    place.remove(tuple(stored.name for stored in place.list_objects(layout.MANIFEST)))
    other = replace(parts.timeless(made[3]), staged=StagedName("1-99.2.0-30.ff"))
    place.write(layout.final_name("record", other, ""), parts.record_text(other).encode())
    with pytest.raises(ForeignOutputError, match=layout.final_names(made[3], "jsonl")[-1]):
        manifest.list_output(place, "jsonl")
    manifest.append(place, 1, 0, made)
    assert [item.key for item in manifest.list_output(place, "jsonl")] == [item.key for item in made]
    assert len(place.list_objects(layout.RECORDS)) == len(made), "the manifest knows better"


def test_a_record_whose_part_is_gone_proves_nothing(place: OutputPlace):
    made = outputs.make_output(place)
    place.remove((layout.final_names(made[0], "parquet")[-1],))
    assert [item.key for item in manifest.list_output(place, "parquet")] == [item.key for item in made[1:]]
    assert len(place.list_objects(layout.QUARANTINE)) == 1


def test_of_two_records_with_one_name_the_part_decides(place: OutputPlace):
    made = outputs.make_output(place)
    lost = replace(made[3], staged=StagedName("1-99.2.0-30.ff"), worker="w2")
    manifest.append(place, 1, 9, [lost])
    found = manifest.list_output(place, "parquet")
    assert [item.key for item in found] == [item.key for item in made]


def test_parts_that_no_record_names_are_removed_and_told(place: OutputPlace):
    """Rule 12; but never a part whose record waits to be flushed."""
    made = outputs.make_output(place)
    manifest.rewrite(place, 1, 9, made[:3])
    stray = "part-00000002-000000000030-000000000040.parquet"
    place.write(stray, b"x")
    assert manifest.audit_parts(place, "parquet", known=made[3:]) == (stray,)
    assert len(place.list_parts()) == 4
    assert manifest.audit_parts(place, "parquet") == (layout.final_names(made[3], "parquet")[-1],)


def test_rivals_hold_rows_of_a_record_under_another_name(place: OutputPlace):
    listed = [record(stop=10), record(shard=1, start=5, stop=8), record(shard=2, stop=4, round=1)]
    for each in listed:
        place.write(layout.final_name("part", each, "parquet"), b"")
    place.write(layout.final_name("quarantine", record(shard=3, stop=6), ""), b"")
    given_up = replace(record(shard=4, stop=3), objects=(StagedObject("record"), StagedObject("quarantine")))
    for kind in ("record", "quarantine"):
        place.write(layout.final_name(kind, given_up, "parquet"), b"")
    free = [record(stop=10), record(start=10, stop=12), record(shard=1, stop=5), record(shard=2, stop=3), given_up]
    rivalled = [record(stop=3), record(shard=1, start=4, stop=6), record(shard=3, start=5, stop=9)]
    rivalled += [replace(given_up, staged=StagedName("7-1.4.0-3.ff"))]  # the same rows, given up on by somebody else as well
    assert manifest.Listing.of(place).without_rivals("parquet", [*free, *rivalled]) == free


def test_a_part_of_the_same_rows_is_a_rivals_when_the_rest_of_the_record_is_not_there(place: OutputPlace):
    """Or else the quarantine would be published beside it, and its rows be seen twice."""
    quarantined = replace(record(stop=4), objects=(StagedObject("quarantine"), StagedObject("part")))
    part, quarantine = (layout.final_name(kind, quarantined, "parquet") for kind in ("part", "quarantine"))
    plain = record(stop=4)
    place.write(part, b"")
    assert manifest.Listing.of(place).without_rivals("parquet", [quarantined, plain]) == [plain]
    place.write(quarantine, b"")
    assert manifest.Listing.of(place).without_rivals("parquet", [quarantined, plain]) == [quarantined]
    place.remove((part,))
    assert manifest.Listing.of(place).without_rivals("parquet", [quarantined, plain]) == [quarantined], "half published"
