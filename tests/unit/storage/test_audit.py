"""Every kind of fault is made on a real output, and exactly it is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.core.records import CommitRecord
from antinfer.core.rounds import Round
from antinfer.errors import OutputError
from antinfer.spec.canonical import document_json
from antinfer.spec.schema import JobSpec
from antinfer.storage import layout, manifest, parts, rounds
from antinfer.storage.audit import audit
from antinfer.storage.audit_ranges import changes_row_counts
from antinfer.storage.audit_report import AuditReport, FaultKind, Gap
from antinfer.storage.place import OutputPlace, open_place
from tests.unit.storage import outputs

TYPES = ("parquet", "jsonl", "arrow")


@pytest.fixture
def place(tmp_path: Path) -> OutputPlace:
    return open_place(str(tmp_path / "out"))


def kinds(report: AuditReport) -> list[FaultKind]:
    return [fault.kind for fault in report.faults]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("type", TYPES)
def test_a_sound_output_is_proven(place: OutputPlace, type: str):
    outputs.make_output(place, type=type)
    place.close()
    before = snapshot(Path(place.uri))
    report = audit(place)
    assert report.faults == ()
    assert report.proven
    totals = report.totals
    assert (totals.rows_in, totals.rows_out, totals.rows_quarantined, totals.rows_fanned_out) == (180, 177, 3, 0)
    assert (totals.shards, totals.parts, totals.rows_planned) == (3, 4, None)
    assert snapshot(Path(place.uri)) == before
    assert json.loads(json.dumps(report.to_json()))["proven"] is True


def test_rows_planned_are_summed_where_known(place: OutputPlace):
    place.write(layout.JOB, outputs.job())
    outputs.write_plan(place, (10, 20))
    assert audit(place).totals.rows_planned == 30


def test_progress_is_told(place: OutputPlace):
    outputs.make_output(place)
    seen: list[tuple[int, int]] = []
    audit(place, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 4) for n in range(1, 5)]


def test_another_folder_is_no_output(place: OutputPlace):
    with pytest.raises(OutputError, match="no output of antinfer"):
        audit(place)


def test_an_unfinished_output_is_incomplete_and_not_faulty(place: OutputPlace):
    records = outputs.make_output(place, ranges=((0, 0, 60), (1, 10, 50)), finished=False)
    manifest.rewrite(place, 1, 7, records[:1])
    outputs.commit(place, 0, 60, 100)
    place.write(f"{layout.folder(layout.QUARANTINE)}/part-00000000-000000000060-000000000100.1-9.ab", b"published before its part")
    report = audit(place)
    assert report.ok and not report.finished and not report.proven
    assert report.missing == (Gap(0, 60, 100), Gap(1, 0, 10), Gap(2, 0, None))
    assert report.totals.rows_in == 100


def test_an_output_without_rows_is_complete(place: OutputPlace):
    place.write(layout.JOB, outputs.job())
    outputs.write_plan(place, ())
    outputs.reseal(place, [])
    assert audit(place).proven


def test_a_range_of_bad_rows_alone_has_no_part(place: OutputPlace):
    records = outputs.make_output(place, ranges=((0, 0, 60), (1, 0, 50), (2, 0, 30)))
    dead = outputs.commit(place, 0, 60, 100, bad=range(60, 100))
    place.publish(dead, "parquet")
    outputs.reseal(place, [*records, dead])
    report = audit(place)
    assert report.proven, report.faults
    assert (report.totals.parts, report.totals.rows_quarantined) == (3, 43)


def retried(place: OutputPlace, number: int, *commits: CommitRecord, type: str = "parquet") -> list[CommitRecord]:
    """Open round `number`, and publish its commits."""
    rounds.write(place, Round(number, {}))
    for commit in commits:
        place.publish(commit, type)
    return list(commits)


@pytest.mark.parametrize("type", ["parquet", "jsonl"])
def test_a_retry_takes_rows_out_of_quarantine(place: OutputPlace, type: str):
    records = outputs.make_output(place, type=type, row_ids=True)
    again = outputs.commit(place, 0, 5, 8, takes=(5, 7), bad=[7], round=1, type=type, row_ids=True)
    records += retried(place, 1, again, type=type)
    outputs.reseal(place, records)
    report = audit(place)
    assert report.proven, report.faults
    assert (report.totals.rows_in, report.totals.rows_out, report.totals.rows_quarantined) == (180, 178, 2)
    records += retried(place, 2, outputs.commit(place, 0, 0, 60, takes=[7], round=2, type=type, row_ids=True), type=type)
    outputs.reseal(place, records)
    report = audit(place)
    assert report.proven, report.faults
    assert (report.totals.rows_in, report.totals.rows_out, report.totals.rows_quarantined) == (180, 179, 1)


def test_a_retry_under_way_is_unfinished_and_not_faulty(place: OutputPlace):
    """Killed before it could remove the older mark of success, or with some of its rows done."""
    records = outputs.make_output(place)
    rounds.write(place, Round(1, {}))
    report = audit(place)
    assert report.ok and not report.finished and report.retrying == 1
    again = outputs.commit(place, 0, 5, 6, takes=[5], round=1)
    place.publish(again, "parquet")
    manifest.rewrite(place, 1, 9, [*records, again])
    report = audit(place)
    assert report.ok and not report.finished and report.totals.rows_quarantined == 2


@pytest.mark.parametrize(
    ("start", "stop", "takes", "changes", "wrong"),
    [
        (6, 7, [6], {}, FaultKind.ROWS_DOUBLED),
        (5, 8, [5, 6, 7], {}, FaultKind.ROWS_DOUBLED),
        (5, 8, [5], {}, FaultKind.ROWS_DOUBLED),
        (5, 8, [5, 6], {"rows_retried": 2}, FaultKind.ROW_HASH),
        (5, 8, [5, 7], {"round": 2}, FaultKind.RECORD_INVALID),
    ],
    ids=["not in quarantine", "one more", "one less", "another one", "never opened"],
)
def test_a_retry_of_other_rows(place: OutputPlace, start: int, stop: int, takes: list[int], changes: dict[str, int], wrong: FaultKind):
    records = outputs.make_output(place)
    again = outputs.commit(place, 0, start, stop, takes=takes, **{"round": 1, **changes})
    outputs.reseal(place, records + retried(place, 1, again))
    assert kinds(audit(place)) == [wrong]


def test_a_row_that_a_round_takes_twice(place: OutputPlace):
    records = outputs.make_output(place)
    both = [outputs.commit(place, 0, 5, stop, takes=range(5, stop, 2), round=1, n=stop) for stop in (6, 8)]
    outputs.reseal(place, records + retried(place, 1, *both))
    assert kinds(audit(place)) == [FaultKind.ROWS_DOUBLED]


def test_a_retry_that_gives_another_row_up(place: OutputPlace):
    records = outputs.make_output(place)
    again = outputs.commit(place, 0, 5, 8, takes=[5, 7, 6], bad=[6], round=1, rows_retried=2, rows_out=1)
    outputs.reseal(place, records + retried(place, 1, again))
    assert FaultKind.QUARANTINE_ROWS in kinds(audit(place))


@pytest.mark.parametrize(
    ("pipeline", "sound"),
    [
        ([{"flat_map": "m:f"}], True),
        ([{"filter": "m:f"}], True),
        ([{"flat_map": "m:f"}, {"filter": "m:g"}, {"gather": {"into": "x"}}], False),
        ([{"map_batches": "m:f"}], False),
    ],
    ids=["flat_map", "filter", "gathered", "map"],
)
def test_only_some_pipelines_may_change_the_number_of_rows(place: OutputPlace, pipeline: list[dict[str, object]], sound: bool):
    outputs.make_output(place, ranges=((0, 0, 100), (1, 0, 50)), finished=False)
    place.write(layout.JOB, outputs.job(pipeline))
    record = outputs.commit(place, 2, 0, 30)
    with_more = replace(record, rows_out=31)
    rewrite_part(place, record, with_more, rows=31)
    place.publish(with_more, "parquet")
    outputs.reseal(place, [*manifest.read_all(place), replace(with_more, size_bytes=0)])
    assert kinds(audit(place)) == ([] if sound else [FaultKind.ROW_BALANCE])


def test_the_job_document_is_understood():
    """Whatever form the job document gives to stages, the audit reads the one that is really written."""
    for kind, expected in (("flat_map", True), ("filter", True), ("map_batches", False)):
        spec = JobSpec(source={"type": "parquet", "path": "/in"}, pipeline=[{kind: "m:f"}], sink={"path": "/out"})
        assert changes_row_counts({"job": "x", "spec": json.loads(document_json(spec))}) is expected


def rewrite_part(place: OutputPlace, record: CommitRecord, carried: CommitRecord, *, rows: int) -> None:
    """Replace the staged part of `record` by one of `rows` rows that carries `carried`."""
    path = Path(place.uri) / layout.staged_path(record.staged, "part")
    schema = pq.read_schema(path).remove_metadata()
    table = pa.table({"row": range(rows), "name": ["x"] * rows}, schema=schema)
    with pq.ParquetWriter(path, schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({layout.RECORD_KEY: parts.record_text(carried)})


# -- one fault each ------------------------------------------------------------------------------------------------------------------

Break = Callable[[OutputPlace, list[CommitRecord]], None]


def path_of(place: OutputPlace, record: CommitRecord, kind: str = "part", suffix: str = "parquet") -> Path:
    names = dict(zip([staged.kind for staged in record.objects], layout.final_names(record, suffix), strict=True))
    return Path(place.uri) / names[kind]  # type: ignore[index]


def plan_chunk_is_changed(place: OutputPlace, records: list[CommitRecord]) -> None:
    chunk = Path(place.uri) / layout.folder(layout.PLAN) / "chunk-00000000"
    chunk.write_bytes(chunk.read_bytes()[:-8] + b"12345678")


def plan_is_not_sealed(place: OutputPlace, records: list[CommitRecord]) -> None:
    (Path(place.uri) / layout.folder(layout.PLAN) / "complete").unlink()


def manifest_chunk_is_cut(place: OutputPlace, records: list[CommitRecord]) -> None:
    (stored,) = place.list_objects(layout.MANIFEST)
    place.write(stored.name, (place.read(stored.name) or b"")[:-40])


def manifest_forgets_a_part(place: OutputPlace, records: list[CommitRecord]) -> None:
    outputs.reseal(place, records)
    manifest.rewrite(place, 1, 9, records[1:])


def record_is_beyond_the_shard(place: OutputPlace, records: list[CommitRecord]) -> None:
    beyond = outputs.commit(place, 1, 50, 60)
    place.publish(beyond, "parquet")
    outputs.reseal(place, [*records, beyond])


def record_is_of_no_shard(place: OutputPlace, records: list[CommitRecord]) -> None:
    beyond = outputs.commit(place, 3, 0, 60)
    place.publish(beyond, "parquet")
    outputs.reseal(place, [*records, beyond])


def commit_is_gone(place: OutputPlace, records: list[CommitRecord]) -> None:
    path_of(place, records[1]).unlink()
    outputs.reseal(place, [records[0], *records[2:]])


def rows_are_covered_twice(place: OutputPlace, records: list[CommitRecord]) -> None:
    double = outputs.commit(place, 0, 50, 60)
    place.publish(double, "parquet")
    outputs.reseal(place, [*records, double])


def row_is_lost_on_the_way(place: OutputPlace, records: list[CommitRecord]) -> None:
    path_of(place, records[3]).unlink()
    short = outputs.commit(place, 2, 0, 30)
    wrong = replace(short, rows_out=29)
    rewrite_part(place, short, wrong, rows=29)
    place.publish(wrong, "parquet")
    outputs.reseal(place, [*records[:3], replace(wrong, size_bytes=0)])


def other_rows_are_computed(place: OutputPlace, records: list[CommitRecord]) -> None:
    path_of(place, records[3]).unlink()
    wrong = outputs.commit(place, 2, 0, 30, row_hash="0123456789abcdef")
    place.publish(wrong, "parquet")
    outputs.reseal(place, [*records[:3], wrong])


def part_is_removed(place: OutputPlace, records: list[CommitRecord]) -> None:
    path_of(place, records[2]).unlink()


def part_is_cut(place: OutputPlace, records: list[CommitRecord]) -> None:
    path = path_of(place, records[2])
    path.write_bytes(path.read_bytes()[:-20])


def part_is_damaged_inside(place: OutputPlace, records: list[CommitRecord]) -> None:
    path = path_of(place, records[2])
    data = bytearray(path.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little")
    data[-8 - footer : -8 - footer + 40] = b"\xff" * 40
    path.write_bytes(data)


def part_has_lost_rows(place: OutputPlace, records: list[CommitRecord]) -> None:
    path = path_of(place, records[3])
    table = pq.read_table(path).slice(1).replace_schema_metadata({layout.RECORD_KEY: parts.record_text(records[3])})
    pq.write_table(table, path)
    outputs.reseal(place, [*records[:3], replace(records[3], size_bytes=path.stat().st_size)])


def part_carries_another_record(place: OutputPlace, records: list[CommitRecord]) -> None:
    outputs.reseal(place, [*records[:3], replace(records[3], worker="somebody else")])


def part_carries_none(place: OutputPlace, records: list[CommitRecord]) -> None:
    path = path_of(place, records[3])
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    outputs.reseal(place, [*records[:3], replace(records[3], size_bytes=0)])


def quarantine_is_removed(place: OutputPlace, records: list[CommitRecord]) -> None:
    path_of(place, records[0], "quarantine").unlink()


def quarantine_is_of_another_range(place: OutputPlace, records: list[CommitRecord]) -> None:
    other = outputs.commit(place, 0, 60, 100, bad=(60, 61), n=9)
    place.publish(replace(other, objects=other.objects[:1]), "parquet")
    place.collect((other.staged,))
    path_of(place, other, "quarantine").replace(path_of(place, records[0], "quarantine"))


def quarantine_is_cut(place: OutputPlace, records: list[CommitRecord]) -> None:
    path = path_of(place, records[0], "quarantine")
    path.write_bytes(path.read_bytes()[:100])


def stray_part_appears(place: OutputPlace, records: list[CommitRecord]) -> None:
    path = path_of(place, records[0])
    path.with_name("part-00000000-000000000010-000000000020.parquet").write_bytes(path.read_bytes())


def overlapping_part_appears(place: OutputPlace, records: list[CommitRecord]) -> None:
    place.publish(outputs.commit(place, 0, 10, 20), "parquet")


def stray_quarantine_appears(place: OutputPlace, records: list[CommitRecord]) -> None:
    place.write(f"{layout.folder(layout.QUARANTINE)}/part-00000001-000000000000-000000000010.1-9.ab", b"x")


def an_unsized_shard_is_forgotten(place: OutputPlace, records: list[CommitRecord]) -> None:
    """The plan does not know how many rows shard 2 had; only the sums of `_SUCCESS` do."""
    path_of(place, records[3]).unlink()
    manifest.rewrite(place, 1, 9, records[:3])


def success_is_overwritten(place: OutputPlace, records: list[CommitRecord]) -> None:
    place.write(layout.SUCCESS, b"not what we wrote")


FAULTS: dict[Break, FaultKind] = {
    plan_chunk_is_changed: FaultKind.PLAN_DAMAGED,
    plan_is_not_sealed: FaultKind.PLAN_DAMAGED,
    manifest_chunk_is_cut: FaultKind.MANIFEST_DAMAGED,
    manifest_forgets_a_part: FaultKind.MANIFEST_GAP,
    record_is_beyond_the_shard: FaultKind.RECORD_INVALID,
    record_is_of_no_shard: FaultKind.RECORD_INVALID,
    commit_is_gone: FaultKind.ROWS_MISSING,
    rows_are_covered_twice: FaultKind.ROWS_DOUBLED,
    row_is_lost_on_the_way: FaultKind.ROW_BALANCE,
    other_rows_are_computed: FaultKind.ROW_HASH,
    part_is_removed: FaultKind.PART_MISSING,
    part_is_cut: FaultKind.PART_DAMAGED,
    part_is_damaged_inside: FaultKind.PART_DAMAGED,
    part_has_lost_rows: FaultKind.PART_ROWS,
    part_carries_another_record: FaultKind.PART_RECORD,
    part_carries_none: FaultKind.PART_RECORD,
    quarantine_is_removed: FaultKind.QUARANTINE_MISSING,
    quarantine_is_of_another_range: FaultKind.QUARANTINE_ROWS,
    quarantine_is_cut: FaultKind.QUARANTINE_ROWS,
    stray_part_appears: FaultKind.ORPHAN,
    overlapping_part_appears: FaultKind.ORPHAN,
    stray_quarantine_appears: FaultKind.ORPHAN,
    an_unsized_shard_is_forgotten: FaultKind.TOTALS,
    success_is_overwritten: FaultKind.TOTALS,
}


def test_what_a_late_worker_staged_is_named_and_is_no_fault(place: OutputPlace):
    outputs.make_output(place)
    staged = outputs.commit(place, 0, 0, 10).staged
    report = audit(place)
    assert report.leftovers == (staged,)
    assert report.proven


@pytest.mark.parametrize("cause", FAULTS, ids=lambda cause: cause.__name__)
def test_a_fault_is_found_and_nothing_else(place: OutputPlace, cause: Break):
    records = outputs.make_output(place)
    assert audit(place).proven
    cause(place, records)
    report = audit(place)
    found = [fault for fault in report.faults if fault.kind is not FaultKind.ROWS_MISSING or cause is commit_is_gone]
    assert [fault.kind for fault in found] == [FAULTS[cause]], report.faults
    if cause is not an_unsized_shard_is_forgotten:
        assert len(found) == len(report.faults), report.faults
    assert all(fault.name and fault.explanation for fault in report.faults)


def test_every_kind_of_fault_has_a_test():
    assert set(FAULTS.values()) == set(FaultKind)


@pytest.mark.parametrize("type", ["jsonl", "arrow"])
def test_rows_are_counted_in_other_formats(place: OutputPlace, type: str):
    records = outputs.make_output(place, type=type)
    path = path_of(place, records[3], suffix=type)
    if type == "jsonl":
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    else:
        table = pa.ipc.open_file(path.read_bytes()).read_all().slice(1)
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    outputs.reseal(place, [*records[:3], replace(records[3], size_bytes=path.stat().st_size)])
    assert kinds(audit(place)) == [FaultKind.PART_ROWS]


def test_a_part_with_half_a_line_is_damaged(place: OutputPlace):
    records = outputs.make_output(place, type="jsonl")
    path = path_of(place, records[3], suffix="jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    outputs.reseal(place, [*records[:3], replace(records[3], size_bytes=0)])
    assert kinds(audit(place)) == [FaultKind.PART_DAMAGED]


def test_a_lost_record_object_is_found(place: OutputPlace):
    records = outputs.make_output(place, type="jsonl")
    path_of(place, records[3], "record", "jsonl").unlink()
    assert kinds(audit(place)) == [FaultKind.PART_RECORD]


def test_identities_in_the_rows_are_checked(place: OutputPlace):
    """The right number of rows, the right record, but one row twice and its neighbour not at all."""
    records = outputs.make_output(place, row_ids=True)
    assert audit(place).proven
    path = path_of(place, records[3])
    table = pq.read_table(path)
    doubled = pa.concat_tables([table.slice(0, 1), table.slice(0, 1), table.slice(2)])
    pq.write_table(doubled.replace_schema_metadata({layout.RECORD_KEY: parts.record_text(records[3])}), path)
    outputs.reseal(place, [*records[:3], replace(records[3], size_bytes=0)])
    assert kinds(audit(place)) == [FaultKind.PART_ROWS]


def test_a_shallow_audit_does_not_open_parts(place: OutputPlace):
    records = outputs.make_output(place)
    part_is_damaged_inside(place, records)
    report = audit(place, deep=False)
    assert report.ok and not report.proven
    part_is_cut(place, records)
    assert kinds(audit(place, deep=False)) == [FaultKind.PART_DAMAGED]
