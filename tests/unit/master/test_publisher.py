"""The publisher on a real output place: publishes what it is told, once, and only while it rules."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from antinfer import faultpoints
from antinfer.core import commands, events
from antinfer.core.ids import LeaseId, StagedName, staged_name
from antinfer.core.records import CommitRecord, ObjectKind, StagedObject, output_name
from antinfer.errors import FencedError
from antinfer.master.loop import MakeEvent
from antinfer.master.publisher import Publisher
from antinfer.master.troubles import Troubles
from antinfer.storage import layout, manifest
from antinfer.storage.place import OutputPlace, open_place
from antinfer.storage.posix import PosixPlace
from antinfer.testing.chaos.points import PointFolder
from tests.unit.storage import outputs

SUFFIX = "parquet"


class Desk:
    """A publisher of epoch 2, and what it says."""

    def __init__(self, place: OutputPlace, suffix: str = SUFFIX) -> None:
        self.place = place
        self.said: queue.Queue[events.Event | BaseException] = queue.Queue()
        self.sealed: list[tuple[int, int]] = []
        self.troubles = Troubles()
        assert place.claim_epoch(2, "this one")
        self.publisher = Publisher(
            place, suffix, 2, post=self._post, fail=self.said.put, seal=lambda *seen: self.sealed.append(seen), troubles=self.troubles
        )

    def _post(self, make: MakeEvent) -> None:
        self.said.put(make(7))

    def next(self) -> events.Event | BaseException:
        return self.said.get(timeout=10)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(open_place(str(tmp_path / "out")))
    yield desk
    desk.publisher.stop()


def stage(place: OutputPlace, start: int, stop: int, *, epoch: int = 2) -> CommitRecord:
    staged = StagedName(staged_name(LeaseId(epoch, 1), 0, start, stop, "ab"))
    source = Path(place.local_spool(), staged)
    source.write_bytes(b"rows")
    staged_object = place.stage(staged, "part", f"{output_name(0, start, stop)}.{SUFFIX}", str(source))
    return CommitRecord(0, start, stop, staged, (staged_object,), stop - start)


def test_records_are_published_and_said_so(desk: Desk) -> None:
    records = tuple(stage(desk.place, n, n + 1) for n in range(20))
    desk.publisher.publish(records)
    said: set[str] = set()
    while len(said) < 20:
        event = desk.next()
        assert isinstance(event, events.Published)
        assert event.missing == ()
        said.update(event.staged)
    assert said == {record.staged for record in records}
    assert len(desk.place.list_parts()) == 20
    assert desk.place.list_staging() == []


def test_what_comes_soon_after_a_round_is_one_round(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antinfer.master.publisher._GATHER_S", 0.5)
    first, *others = [stage(desk.place, n, n + 1) for n in range(4)]
    desk.publisher.publish((first,))
    assert desk.next() == events.Published(7, (first.staged,)), "the first is not kept waiting"
    for record in others:
        desk.publisher.publish((record,))
    assert desk.next() == events.Published(7, tuple(record.staged for record in others))


def test_what_is_nowhere_is_missing(desk: Desk) -> None:
    there = stage(desk.place, 0, 1)
    nowhere = CommitRecord(0, 1, 2, StagedName("2-1.0.1-2.cd"), (StagedObject("part"),), 1)
    desk.publisher.publish((there, nowhere))
    assert desk.next() == events.Published(7, (there.staged,), (nowhere.staged,))


@pytest.mark.parametrize("type", ["parquet", "jsonl"])
def test_what_only_an_untrusted_store_knows_is_not_published_beside_other_columns(tmp_path: Path, type: str) -> None:
    desk = Desk(open_place(str(tmp_path / "out")), type)
    there = outputs.commit(desk.place, 0, 0, 10, type=type, schema="columns of another reign")
    desk.place.publish(there, type)
    same, other, bad = (
        outputs.commit(desk.place, 0, 10, 20, type=type, n=2, schema=there.schema),
        outputs.commit(desk.place, 0, 20, 30, type=type, n=3, schema="other columns"),
        outputs.commit(desk.place, 1, 0, 1, bad=(0,), type=type, n=4),
    )
    desk.publisher.carry_out(commands.Recover((same, other, bad)))
    assert desk.next() == events.Published(7, (same.staged, bad.staged), (other.staged,))
    desk.publisher.stop()


@pytest.mark.parametrize("command", [None, commands.ListStaging(), commands.AuditOutput(), commands.Seal(0), commands.SweepStaging(2, ())])
def test_nothing_is_done_under_a_higher_epoch(desk: Desk, command: commands.Command | None) -> None:
    record = stage(desk.place, 0, 1)
    assert desk.place.claim_epoch(3, "a successor")
    if command is None:
        desk.publisher.publish((record,))
    else:
        desk.publisher.carry_out(command)
    error = desk.next()
    assert isinstance(error, FencedError)
    assert "epoch 3 (a successor)" in str(error)
    assert desk.place.list_parts() == []
    assert desk.place.list_staging() == [record.staged]
    assert desk.sealed == []


def test_flushed_records_are_in_the_manifest_in_chunks_of_their_own(desk: Desk) -> None:
    one, two = stage(desk.place, 0, 1), stage(desk.place, 1, 2)
    for record in (one, two):
        desk.publisher.carry_out(commands.Flush((record,)))
        assert desk.next() == events.Flushed(7, (record.staged,))
    assert {record.staged for record in manifest.read_all(desk.place)} == {one.staged, two.staged}
    desk.publisher.carry_out(commands.Seal(9))
    assert desk.next() == events.Sealed(7)
    assert desk.sealed == [(3, 9)], "the final manifest begins after the chunks of this reign"


def test_garbage_is_collected_and_the_rest_stays(desk: Desk) -> None:
    kept, garbage = stage(desk.place, 0, 1), stage(desk.place, 1, 2)
    desk.publisher.carry_out(commands.Collect((garbage.staged,)))
    desk.publisher.carry_out(commands.ListStaging())
    assert desk.next() == events.StagingListed(7, (kept.staged,))


class SleepyPlace(PosixPlace):
    """A place whose master is stopped at the last instruction before it removes anything."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.sleeps, self.wakes = threading.Event(), threading.Event()

    def remove(self, names: tuple[str, ...]) -> None:
        self.sleeps.set()
        assert self.wakes.wait(20)
        super().remove(names)


@pytest.mark.parametrize("type", ["parquet", "jsonl", "arrow"])
def test_a_master_that_wakes_up_late_removes_nothing_of_its_successor(tmp_path: Path, type: str) -> None:
    """Stopped between its look at the epochs and the removal of an unfinished commit, whose rows the successor does meanwhile."""
    place = open_place(str(tmp_path / "out"))
    unfinished = outputs.commit(place, 0, 0, 10, bad=(3,), type=type)
    place.publish(replace(unfinished, objects=unfinished.objects[:-1]), type)
    sleepy = SleepyPlace(place.uri)
    desk = Desk(sleepy, type)
    desk.publisher.carry_out(commands.ListOutput())
    assert sleepy.sleeps.wait(20)
    assert place.claim_epoch(3, "the successor")
    place.sweep(3, ())
    assert manifest.list_output(place, type) == []
    again = outputs.commit(place, 0, 0, 10, bad=(3,), type=type, staged=staged_name(LeaseId(3, 1), 0, 0, 10, "ef"))
    place.publish(again, type)
    sleepy.wakes.set()
    assert isinstance(desk.next(), FencedError)
    desk.publisher.stop()
    assert [place.read(name) is None for name in layout.final_names(again, type)] == [False] * len(again.objects)
    assert [record.staged for record in manifest.list_output(place, type)] == [again.staged]


class FrozenPlace(PosixPlace):
    """A place whose master is stopped at the last instruction before it publishes anything."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.sleeps, self.wakes = threading.Event(), threading.Event()

    def _publish_one(self, record: CommitRecord, kind: ObjectKind, final: str) -> None:
        self.sleeps.set()
        assert self.wakes.wait(20)
        super()._publish_one(record, kind, final)


def test_a_master_that_wakes_up_late_replaces_nothing_of_its_successor(tmp_path: Path) -> None:
    """Stopped between its look at the epochs and a rename: what it would rename was swept before its rows were granted again."""
    place = open_place(str(tmp_path / "out"))
    record = outputs.commit(place, 0, 0, 10)
    frozen = FrozenPlace(place.uri)
    desk = Desk(frozen, "parquet")
    desk.publisher.publish((record,))
    assert frozen.sleeps.wait(20)
    assert place.claim_epoch(3, "the successor")
    place.sweep(3, ())
    again = outputs.commit(place, 0, 0, 10, staged=staged_name(LeaseId(3, 1), 0, 0, 10, "ef"))
    place.publish(again, "parquet")
    frozen.wakes.set()
    assert isinstance(desk.next(), FencedError)
    desk.publisher.stop()
    assert [record.staged for record in manifest.list_output(place, "parquet")] == [again.staged]


def test_once_stopped_it_does_nothing_more(desk: Desk) -> None:
    record = stage(desk.place, 0, 1)
    desk.publisher.stop()
    with pytest.raises(RuntimeError):
        desk.publisher.publish((record,))
    assert desk.place.list_parts() == []


def test_trouble_with_the_place_is_waited_out_and_told(desk: Desk, tmp_path: Path) -> None:
    points = PointFolder(tmp_path / "points")
    armed = [points.arm("storage.list", "error", errno="EIO"), points.arm("storage.publish", "error", errno="ENOSPC", times=2)]
    record = stage(desk.place, 0, 5)
    faultpoints.use(str(points.path))
    try:
        desk.publisher.publish((record,))
        told = set()
        while desk.said.empty():
            told.add(desk.troubles.text.partition(": ")[2].partition("\n")[0])
            time.sleep(0.005)
    finally:
        faultpoints.use(None)
    assert desk.next() == events.Published(7, (record.staged,))
    assert [len(points.proofs(name)) for name in armed] == [1, 2]
    assert any("no space left" in text for text in told), told
    assert desk.troubles.text == ""
    assert [part.name for part in desk.place.list_parts()] == layout.final_names(record, SUFFIX)
