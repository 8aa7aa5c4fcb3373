"""Conformance checks: what every implementation of a port must do, for its own tests to run.

    @pytest.mark.parametrize("check", OUTPUT_PLACE_CHECKS, ids=lambda check: check.__name__)
    def test_place(check, make_place):
        check(make_place)

`make_place` returns, at every call within one check, another client of the same place, which is empty at the start of the check. Checks
raise AssertionError.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Final
from uuid import uuid4

import pyarrow as pa

from antinfer.core.ids import LeaseId, StagedName, staged_name
from antinfer.core.records import CommitRecord, ObjectKind, StagedObject
from antinfer.errors import InternalError
from antinfer.storage import layout, manifest, sinks
from antinfer.storage.parts import record_text
from antinfer.storage.place import OutputPlace

MakePlace = Callable[[], OutputPlace]

SUFFIX: Final = "parquet"


def stage_commit(
    place: OutputPlace,
    *,
    epoch: int = 1,
    shard: int = 0,
    start: int = 0,
    stop: int = 10,
    kinds: tuple[ObjectKind, ...] = ("part",),
    suffix: str = SUFFIX,
) -> CommitRecord:
    """Stage the objects of one commit as a worker does; returns its record. Parts are files of sink `suffix`."""
    staged = staged_name(LeaseId(epoch, shard + 1), shard, start, stop, uuid4().hex)
    record = CommitRecord(shard, start, stop, staged, tuple(StagedObject(kind) for kind in kinds), rows_out=stop - start)
    objects = tuple(_stage(place, record, kind, suffix) for kind in kinds)
    return CommitRecord.from_json({**record.to_json(), "objects": [{"kind": item.kind, "token": item.token} for item in objects]})


def check_claims_are_exclusive(make_place: MakePlace) -> None:
    """An epoch belongs to whoever claimed it first, also when many claim it at once."""
    places = [make_place() for _ in range(4)]
    assert places[0].highest_epoch() is None
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda i: places[i].claim_epoch(1, f"owner {i}"), range(4)))
    assert won.count(True) == 1
    highest = places[0].highest_epoch()
    assert highest is not None
    assert (highest.epoch, highest.owner) == (1, f"owner {won.index(True)}")
    assert places[1].claim_epoch(2, "later")
    assert places[1].claim_epoch(10, "much later")
    assert not places[2].claim_epoch(2, "too late")
    highest = places[3].highest_epoch()
    assert highest is not None and highest.epoch == 10


def check_staged_is_hidden_and_published_whole(make_place: MakePlace) -> None:
    """A staged object has no final name; publication gives it exactly its bytes and takes it out of staging."""
    worker, master = make_place(), make_place()
    record = stage_commit(worker)
    assert master.list_parts() == []
    assert master.list_staging() == [record.staged]
    master.publish(record, SUFFIX)
    (part,) = master.list_parts()
    assert part.name == layout.final_names(record, SUFFIX)[0]
    assert len(worker.read(part.name) or b"") == part.size_bytes
    carried = worker.read_part_record(part.name)
    assert carried is not None and carried.staged == record.staged
    assert master.list_staging() == []


def check_publish_is_idempotent(make_place: MakePlace) -> None:
    """Publishing again, by anyone, changes nothing, also when the first publisher died in between."""
    first, second = make_place(), make_place()
    record = stage_commit(first, kinds=("record", "quarantine", "part"))
    first.publish(record, SUFFIX)
    before = [second.read(name) for name in layout.final_names(record, SUFFIX)]
    second.publish(record, SUFFIX)
    first.publish(record, SUFFIX)
    assert [second.read(name) for name in layout.final_names(record, SUFFIX)] == before
    assert None not in before


def check_publish_misses_nothing(make_place: MakePlace) -> None:
    """A committed object that is neither staged nor published is a lost row: it is said, not passed over."""
    place = make_place()
    record = stage_commit(place)
    place.collect((record.staged,))
    with _raises(InternalError):
        place.publish(record, SUFFIX)
    winner = stage_commit(place)
    place.publish(winner, SUFFIX)
    with _raises(InternalError):
        place.publish(record, SUFFIX)


def check_publication_order(make_place: MakePlace) -> None:
    """The part comes last: when the object before it cannot be published, no part appears."""
    place = make_place()
    whole = stage_commit(place, kinds=("quarantine", "part"))
    quarantine = stage_commit(place, kinds=("quarantine",))
    place.collect((quarantine.staged,))
    broken = CommitRecord.from_json(
        {**whole.to_json(), "staged": quarantine.staged, "objects": [*quarantine.to_json()["objects"], whole.to_json()["objects"][1]]}
    )
    with _raises(InternalError):
        place.publish(broken, SUFFIX)
    assert place.list_parts() == []


def check_collect_is_exact(make_place: MakePlace) -> None:
    """Collection removes what it names, all kinds of it, and nothing else; missing names are fine."""
    place = make_place()
    kept, gone = stage_commit(place, shard=1), stage_commit(place, shard=2, kinds=("record", "quarantine", "part"))
    place.collect((gone.staged, StagedName("1-99.0.0-1.ffff")))
    assert place.list_staging() == [kept.staged]
    place.publish(kept, SUFFIX)
    assert len(place.list_parts()) == 1


def check_sweep_fences(make_place: MakePlace) -> None:
    """After a sweep nothing of an earlier epoch can be published, by whomever, but what was to be kept; later epochs are left alone."""
    old_master, master = make_place(), make_place()
    old, known, new = (stage_commit(old_master, epoch=epoch, shard=shard) for epoch, shard in ((1, 1), (1, 2), (2, 3)))
    master.sweep(before=2, keep=(known.staged,))
    assert master.list_staging() == sorted([known.staged, new.staged])
    with _raises(InternalError):
        old_master.publish(old, SUFFIX)
    for record in (known, new):
        master.publish(record, SUFFIX)
    assert [part.name for part in master.list_parts()] == [layout.final_names(record, SUFFIX)[0] for record in (known, new)]
    master.sweep(before=1 << 60, keep=())
    assert master.list_staging() == []


def check_late_removals_are_harmless(make_place: MakePlace) -> None:
    """A master that sleeps right before it clears away an unfinished commit does no harm to a later one of the same rows (rule 19)."""
    kinds: tuple[ObjectKind, ...] = ("record", "quarantine", "part")
    sleeper, successor = make_place(), make_place()
    old = stage_commit(sleeper, kinds=kinds, suffix="jsonl")
    sleeper.publish(replace(old, objects=old.objects[:2]), "jsonl")
    done: list[CommitRecord] = []

    def sleep() -> None:
        successor.sweep(2, ())
        assert manifest.list_output(successor, "jsonl") == []
        done.append(stage_commit(successor, epoch=2, kinds=kinds, suffix="jsonl"))
        successor.publish(done[0], "jsonl")

    manifest.list_output(sleeper, "jsonl", sleep)
    assert [record.staged for record in manifest.list_output(successor, "jsonl")] == [record.staged for record in done]


def check_parts_are_listed_in_input_order(make_place: MakePlace) -> None:
    """Parts come in the order of (shard, start); other names in the place are not parts."""
    place = make_place()
    for shard, start in ((1, 0), (0, 10), (0, 0)):
        place.publish(stage_commit(place, shard=shard, start=start, stop=start + 10), SUFFIX)
    for name in (layout.SUCCESS, "part-of-something.parquet", "other/part-00000000-000000000000-000000000001.parquet"):
        place.write(name, b"x")
    names = [part.name for part in place.list_parts()]
    assert names == sorted(names)
    assert len(names) == 3


def check_objects(make_place: MakePlace) -> None:
    """Whole objects are created, replaced, read, listed and removed; what is not there reads as None."""
    place, other = make_place(), make_place()
    name = f"{layout.folder(layout.MANIFEST)}/x"
    assert place.read(name) is None
    assert place.list_objects(layout.MANIFEST) == []
    place.write(name, b"first")
    place.write(name, b"second, longer")
    place.write(f"{layout.folder(layout.MANIFEST)}/deeper/y", b"")
    assert other.read(name) == b"second, longer"
    assert [(item.name, item.size_bytes) for item in other.list_objects(layout.MANIFEST)] == [(name, 14)]
    with other.open(name) as file:
        file.seek(-6, os.SEEK_END)
        assert file.read() == b"longer"
    with _raises(FileNotFoundError):
        other.open(f"{name}-not-there").close()
    place.remove((name, f"{name}-not-there"))
    assert other.read(name) is None


def check_part_records(make_place: MakePlace) -> None:
    """A part tells its record from its footer; one of another format, or that is no readable file, tells none."""
    place = make_place()
    damaged = "part-00000007-000000000000-000000000010.parquet"
    place.write(damaged, b"PAR1 this is no parquet file")
    assert place.read_part_record(damaged) is None
    assert place.read_part_record("part-00000008-000000000000-000000000010.parquet") is None
    record = stage_commit(place, kinds=("record", "part"), suffix="jsonl")
    place.publish(record, "jsonl")
    assert place.read_part_record(layout.final_names(record, "jsonl")[1]) is None


def check_large_objects(make_place: MakePlace) -> None:
    """An object of several upload parts arrives whole and in order, and can be read from the middle."""
    place = make_place()
    size = 40 << 20
    source = os.path.join(place.local_spool(), uuid4().hex)
    block = bytes(range(251)) * 4096
    with open(source, "wb") as file:
        for at in range(0, size, len(block)):
            file.write(block[: min(len(block), size - at)])
    staged = staged_name(LeaseId(1, 1), 0, 0, 10, uuid4().hex)
    record = CommitRecord(0, 0, 10, staged, (StagedObject("part"),), rows_out=10)
    record = replace(record, objects=(place.stage(staged, "part", layout.final_name("part", record, SUFFIX), source),))
    place.publish(record, SUFFIX)
    (part,) = place.list_parts()
    assert part.size_bytes == size
    with place.open(part.name) as opened:
        for at in (0, (17 << 20) + 5, size - 100):
            opened.seek(at)
            assert opened.read(100) == bytes((at + i) % len(block) % 251 for i in range(100))


def check_writable(make_place: MakePlace) -> None:
    """A writable place passes its own check and is left as it was."""
    place = make_place()
    place.check_writable()
    assert place.list_staging() == []
    assert place.list_parts() == []


def check_clearing_leaves_nothing(make_place: MakePlace) -> None:
    """After it the place is as if nobody had ever been there: what was staged is never published."""
    place = make_place()
    published, staged = stage_commit(place), stage_commit(place, shard=1)
    place.publish(published, SUFFIX)
    place.write(layout.SUCCESS, b"")
    place.claim_epoch(1, "somebody")
    make_place().clear()
    assert (place.list_parts(), place.list_staging(), place.highest_epoch()) == ([], [], None)
    assert place.read(layout.SUCCESS) is None
    with _raises(InternalError):
        place.publish(staged, SUFFIX)
    make_place().clear()


OUTPUT_PLACE_CHECKS: Final[tuple[Callable[[MakePlace], None], ...]] = (
    check_claims_are_exclusive,
    check_staged_is_hidden_and_published_whole,
    check_publish_is_idempotent,
    check_publish_misses_nothing,
    check_publication_order,
    check_collect_is_exact,
    check_sweep_fences,
    check_late_removals_are_harmless,
    check_parts_are_listed_in_input_order,
    check_objects,
    check_part_records,
    check_large_objects,
    check_writable,
    check_clearing_leaves_nothing,
)


def check_output_place(make_place: Callable[[], MakePlace]) -> None:
    """Run all checks; `make_place()` opens a fresh place and returns the function that makes clients of it."""
    for check in OUTPUT_PLACE_CHECKS:
        check(make_place())


@contextmanager
def _raises(expected: type[Exception]) -> Iterator[None]:
    try:
        yield
    except expected:
        return
    raise AssertionError(f"{expected.__name__} was not raised")


def _stage(place: OutputPlace, record: CommitRecord, kind: ObjectKind, suffix: str) -> StagedObject:
    source = os.path.join(place.local_spool(), uuid4().hex)
    final = layout.final_name(kind, record, suffix)
    if kind == "part":
        table = pa.table({"row": range(record.start, record.stop)})
        writer = sinks.open_writer(suffix, source, table.schema)
        writer.write(table)
        writer.close({layout.RECORD_KEY: record_text(record)})
    else:
        with open(source, "w", encoding="utf-8") as file:
            file.write(record_text(record))
    return place.stage(record.staged, kind, final, source)
