"""The writer of the event log: in order, in bounded memory, and never in the way of the job."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from antinfer.core import journal as log
from antinfer.core.config import EngineConfig
from antinfer.core.documents import Changes
from antinfer.core.engine import Engine
from antinfer.core.events import Event, Joined, OutputListed, StagingSwept, StreamId, Ticked
from antinfer.core.ids import WorkerId
from antinfer.core.journal import Batch, Begin, End, Gap, Item, Told
from antinfer.core.messages import Join
from antinfer.core.plan import PlanIndex
from antinfer.master import journal
from antinfer.master.journal import Journal, Level
from antinfer.storage import eventlog
from antinfer.storage.posix import PosixPlace


class Clock:
    def __init__(self) -> None:
        self.at = 0

    def __call__(self) -> int:
        return self.at


class Written:
    """A journal over a real folder, and an engine whose life goes into it."""

    def __init__(self, folder: Path, level: Level = "full") -> None:
        self.place = PosixPlace(str(folder))
        self.clock = Clock()
        self.engine = Engine(EngineConfig(), PlanIndex([10, 20], complete=True), 3)
        self.journal = Journal(self.place, 3, self.clock, level)

    def begin(self) -> None:
        self.journal.begin(self.engine, 0, None, trusted=False, owner="a test")
        ordered = self.engine.start(0, None, trusted=False)
        self.journal.note([], self.engine.take_changes(), len(ordered))

    def step(self, *told: Event) -> None:
        ordered = [command for event in told for command in self.engine.step(event)]
        self.journal.note(told, self.engine.take_changes(), len(ordered))

    def serve(self) -> None:
        self.step(StagingSwept(1))
        self.step(OutputListed(2, ()))
        self.step(Joined(3, StreamId(1), Join(WorkerId("w"), "")), Ticked(4))

    def items(self) -> list[Item]:
        return [item for reign in eventlog.reigns(self.place) for chunk in reign.chunks(self.place) for item in chunk.items()]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds and writes without much waiting."""
    monkeypatch.setattr(journal, "_ROUND_S", 0.005)
    monkeypatch.setattr(journal, "_WRITE_S", 0.01)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    made = Written(tmp_path / "out")
    yield made
    made.journal.end("the test is over")


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_reign_is_written_and_can_be_replayed(written: Written) -> None:
    written.begin()
    written.serve()
    written.clock.at = 9
    written.journal.end("the job is done")
    items = written.items()

    assert isinstance(items[0], Begin)
    assert (items[0].epoch, items[0].owner, items[0].plan) == (3, "a test", ((10, 1), (20, 1)))
    assert items[-1] == End(9, "the job is done")
    assert log.replay(items).events == 4


def test_it_is_written_while_the_reign_goes_on(written: Written) -> None:
    written.begin()
    written.serve()
    wait_until(lambda: len([item for item in written.items() if isinstance(item, Batch)]) == 4)

    assert not any(isinstance(item, End) for item in written.items())
    assert log.replay(written.items()).events == 4


def test_ticks_alone_are_not_worth_a_write(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_QUIET_S", 60.0)
    written.begin()
    written.serve()
    wait_until(lambda: len(written.items()) == 5)
    written.step(Ticked(200))
    time.sleep(0.1)

    assert len(written.items()) == 5


def test_full_chunks_are_left_alone(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_CHUNK_BYTES", 0)
    written.begin()
    for items, event in ((2, StagingSwept(1)), (3, OutputListed(2, ()))):
        wait_until(lambda items=items: len(written.items()) == items)
        written.step(event)
    written.journal.end("done")
    (reign,) = eventlog.reigns(written.place)

    assert len(reign.names) >= 3
    assert reign.missing == ()
    assert log.replay(written.items()).events == 2


def test_a_batch_that_was_lost_says_so(written: Written) -> None:
    written.begin()
    written.journal.note([StagingSwept(1)], Changes(), 0, lost="fenced by epoch 4")
    written.journal.end("fenced by epoch 4")

    assert [item.lost for item in written.items() if isinstance(item, Batch)] == ["", "fenced by epoch 4"]
    assert log.replay(written.items()).events == 0


def test_the_story_alone_takes_less(tmp_path: Path) -> None:
    written = Written(tmp_path / "out", "story")
    written.begin()
    written.serve()
    lease = log.Entry(5, "leased", 0, log.Rows(0, 10), (3, 1), "w", 4)  # type: ignore[arg-type]
    written.engine.story._fresh = [lease]
    written.step(Ticked(5))
    written.journal.end("done")

    assert [type(item) for item in written.items()] == [Begin, Told, End]


def test_a_place_that_cannot_be_written_costs_nothing_but_time(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    blocked = Path(written.place.uri, "_antinfer", "events")
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    with caplog.at_level(logging.INFO, "antinfer.journal"):
        written.begin()
        written.serve()
        wait_until(lambda: written.journal._chunk._failures)
        blocked.unlink()
        written.journal.end("done")

    assert log.replay(written.items()).events == 4
    assert [record.levelname for record in caplog.records if record.name == "antinfer.journal"] == ["WARNING", "INFO"]


def test_what_does_not_fit_is_left_out_and_said(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = Path(written.place.uri, "_antinfer", "events")
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    monkeypatch.setattr(journal, "_MOST_BYTES", 1)
    monkeypatch.setattr(journal, "_CHUNK_BYTES", 0)
    written.begin()
    wait_until(lambda: written.journal._chunk._data)
    written.serve()
    wait_until(lambda: written.journal._left_out == 4)
    blocked.unlink()
    wait_until(lambda: not written.journal._chunk._data)
    written.step(Ticked(500))
    written.journal.end("done")

    gaps = [item for item in written.items() if isinstance(item, Gap)]
    assert gaps == [Gap(4, "the output place could not be written")]
    assert [item.first for item in written.items() if isinstance(item, Batch)][-1] == 5
    assert log.replay(written.items()).events == 0


class SlowPlace(PosixPlace):
    """A place whose disk hangs until it is let go."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.free = threading.Event()

    def write(self, name: str, data: bytes) -> None:
        self.free.wait()
        super().write(name, data)


def test_a_hanging_place_hangs_nothing_and_fills_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_MOST_EVENTS", 10)
    monkeypatch.setattr(journal, "_END_S", 0.05)
    written = Written(tmp_path / "out")
    place = SlowPlace(str(tmp_path / "out"))
    written.journal = Journal(place, 3, written.clock)
    written.begin()
    written.serve()
    wait_until(lambda: not written.journal._noted)
    time.sleep(0.05)
    for at in range(100):
        written.step(Ticked(10 + at))
    before = time.monotonic()
    written.journal.end("done")

    assert time.monotonic() - before < 2
    assert len(written.journal._noted) <= 12
    place.free.set()
    written.journal._thread.join(10)
    assert isinstance(written.items()[-1], End)
