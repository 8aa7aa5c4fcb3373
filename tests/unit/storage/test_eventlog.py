"""The event log as it lies beside an output: whole, cut off, damaged, or written by somebody else."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from antinfer.core import documents, journal
from antinfer.core.events import Flushed, Published, StreamId, Ticked
from antinfer.core.ids import LeaseId, SessionId, ShardId, WorkerId
from antinfer.core.journal import Batch, Begin, Encoder, End, Gap, Item, Told
from antinfer.core.ledger import Lease, OpenShard, Pending
from antinfer.core.plan import PlanIndex
from antinfer.core.ranges import Rows, RowSet
from antinfer.core.sessions import Session
from antinfer.core.story import Entry
from antinfer.errors import OutputError
from antinfer.storage import eventlog, layout, lives, reigns
from antinfer.storage.eventlog import Head
from antinfer.storage.posix import PosixPlace

STAGED = "1-7.12.0-50.ab"
ITEMS: list[Item] = [
    Batch(1, (Ticked(1_000),), "", 0),
    Batch(2, (Ticked(1_500), Published(1_600, (STAGED, "1-8.3.0-12.ab"))), "", 1),
    Told((Entry(1_500, "leased", 12, Rows(0, 50), LeaseId(1, 7), "w1", 2), Entry(1_500, "leased", 3, Rows(0, 12), LeaseId(1, 8), "w2", 2))),
    Batch(4, (Flushed(2_000, (STAGED,)),), "", 0),
]


def head(epoch: int = 1, n: int = 1) -> Head:
    return Head(epoch, n, at=1_000, wall_ms=1_700_000_000_000, shapes=journal.shapes())


def chunk(*frames: list[Item], of: Head | None = None) -> bytes:
    """A chunk with a frame for each list of items."""
    encoder = Encoder()
    first, *rest = [[encoder.line(item) for item in items] for items in frames]
    return b"".join(map(eventlog.encode_frame, [[(of or head()).line(), *first], *rest]))


@pytest.fixture
def place(tmp_path: Path) -> PosixPlace:
    return PosixPlace(str(tmp_path / "out"))


def put(place: PosixPlace, data: bytes, epoch: int = 1, n: int = 1) -> None:
    place.write(layout.events_name(epoch, n), data)


def test_what_is_written_is_read(place: PosixPlace) -> None:
    put(place, chunk(ITEMS[:2], ITEMS[2:]))
    put(place, chunk([End(2_500, "done")], of=head(n=2)), n=2)
    (reign,) = eventlog.reigns(place)

    assert [item for each in reign.chunks(place) for item in each.items()] == [*ITEMS, End(2_500, "done")]
    assert head().wall(1_250) == 1_700_000_000.25


def test_reigns_are_found_in_order_and_holes_are_seen(place: PosixPlace) -> None:
    for epoch, n in ((11, 1), (2, 2), (2, 10), (2, 1)):
        put(place, chunk(ITEMS), epoch, n)
    place.write(f"{layout.folder(layout.EVENTS)}/notes", b"not ours")

    found = eventlog.reigns(place)
    assert [(reign.epoch, len(reign.names), reign.missing) for reign in found] == [(2, 3, (3, 4, 5, 6, 7, 8, 9)), (11, 1, ())]


def test_a_chunk_that_was_cut_off_is_read_up_to_there() -> None:
    whole = chunk(ITEMS[:2], ITEMS[2:])
    first = len(chunk(ITEMS[:2]))
    for length in range(0, len(whole), 7):
        found = eventlog.read_chunk("c", whole[:length])
        expected = [] if length < first else ITEMS[:2]
        assert list(found.items()) == expected
        assert bool(found.damage) == (length != first)


def test_a_damaged_frame_is_seen() -> None:
    data = bytearray(chunk(ITEMS[:2], ITEMS[2:]))
    data[-3] ^= 1
    assert eventlog.read_chunk("c", bytes(data)).damage == "it is damaged"
    assert list(eventlog.read_chunk("c", bytes(data)).items()) == ITEMS[:2]
    assert "something else" in eventlog.read_chunk("c", b"{" + bytes(data)).damage


def test_a_log_of_another_format_says_so(place: PosixPlace) -> None:
    found = eventlog.read_chunk("c", chunk(ITEMS, of=replace(head(), format=99)))
    assert found.damage == f"it has format 99, and this version reads format {journal.FORMAT}"
    assert list(found.items()) == []

    unknown = eventlog.encode_frame([head().line(), '["Batch",1,[["Exploded",5]],"",0,""]'])
    with pytest.raises(OutputError, match="nothing is known of"):
        list(eventlog.read_chunk("c", unknown).items())


def test_the_life_of_a_row(place: PosixPlace) -> None:
    engine = journal.Engine(journal.EngineConfig(), PlanIndex([50] * 13, complete=True), 1)
    begin = Begin.of(engine, 900, None, trusted=False, owner="somebody")
    put(place, chunk([begin], ITEMS, [Gap(4, "the disk was full")]))
    put(place, chunk([Batch(9, (Ticked(5_000),), "", 0)], of=head(n=3)), n=3)
    life = lives.life_of(place, 12, 49)
    (reign,) = life.reigns

    assert (reign.began, reign.owner, reign.source) == (1_699_999_999.9, "somebody", "the output")
    assert [(each.cause_id, each.event, each.what, each.lease, each.who) for each in reign.happenings] == [
        ("1:2", "Ticked", "leased", "1-7", "w1"),
        ("1:3", "Published", "published", "1-7", ""),
        ("1:4", "Flushed", "recorded in the manifest", "1-7", ""),
    ]
    assert [note for note in reign.notes if "4 events are missing" in note or "chunk(s)" in note or "no end" in note] == reign.notes
    assert len(reign.notes) == 3
    assert lives.life_of(place, 12, 50).reigns[0].happenings == []
    assert lives.life_of(place, 2).reigns[0].happenings == []
    assert json.dumps(life.to_json())


def test_what_a_reign_found_is_told(place: PosixPlace) -> None:
    shard = OpenShard(50, RowSet([(0, 10)]))
    shard.pending[10] = Pending(Rows(10, 20), 1, 0, 5)
    lease = Lease(LeaseId(1, 7), SessionId("1-1"), ShardId(12), Rows(20, 50), 2, 0, request=3)
    shard.leases[lease.id] = lease
    session = Session(SessionId("1-1"), WorkerId("w9"), 3)
    kept = {"s:12": documents.encode_shard(shard), "w:1-1": documents.encode_session(session)}
    engine = journal.Engine(journal.EngineConfig(), PlanIndex([50] * 13, complete=True), 2)
    put(place, chunk([Begin.of(engine, 900, kept, trusted=True)], of=head(epoch=2)), 2)

    told = lives.life_of(place, 12).reigns[0].happenings
    assert [(each.what, each.rows, each.who) for each in told] == [
        ("found committed", (0, 10), ""),
        ("found pending", (10, 20), ""),
        ("found leased", (20, 50), "w9"),
    ]


def test_a_summary_counts_and_says_what_is_missing(place: PosixPlace) -> None:
    put(place, chunk([*ITEMS, Batch(5, (Ticked(9_000),), "", 0, lost="fenced"), End(9_500, "it was fenced")]))
    told = reigns.summarise(place, eventlog.reigns(place)[0])

    assert (told.events, told.lines, told.chunks, told.ended) == (5, 2, 1, "it was fenced")
    assert told.kinds == {"Ticked": 3, "Published": 1, "Flushed": 1}
    assert told.notes == ["events from 1:5 on never became durable: fenced"]
    assert [event["id"] for event in reigns.every_event(place, eventlog.reigns(place)[0])] == [f"1:{n}" for n in range(1, 6)]
    assert "beginning of the log is missing" in reigns.replay_reign(place, eventlog.reigns(place)[0]).fault


def test_heartbeats_do_not_fold_across_chunks() -> None:
    # A chunk can be read without the one before: the encoder is restarted at each.
    encoder = Encoder()
    beat = journal.HeartbeatSeen(1, StreamId(1), journal.Heartbeat("1-1", (), 0))  # type: ignore[arg-type]
    lines = [encoder.line(Batch(1, (beat,), "", 0)), encoder.line(Batch(2, (beat,), "", 0))]
    data = eventlog.encode_frame([head().line(), lines[1]])
    with pytest.raises(OutputError, match="never there"):
        list(eventlog.read_chunk("c", data).items())


def test_names_sort_as_they_were_written() -> None:
    names = [layout.events_name(epoch, n) for epoch, n in ((1, 2), (1, 10), (2, 1), (10, 1))]
    assert names == sorted(names)
    assert [layout.parse_events_name(name) for name in names] == [(1, 2), (1, 10), (2, 1), (10, 1)]
    assert layout.parse_events_name("x/1-2.part") is None
    assert os.path.splitext(names[0])[1] not in (".parquet", ".json", ".jsonl", ".arrow", ".csv")
