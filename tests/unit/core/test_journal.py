"""The event log: all that an engine can be told comes back as it was, and told again it does the same."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antinfer.core import commands, events, journal
from antinfer.core.documents import Changes
from antinfer.core.engine import Engine, Phase
from antinfer.core.events import Event, HeartbeatSeen, StreamBroken, StreamId, Ticked
from antinfer.core.ids import LeaseId, SessionId, ShardId
from antinfer.core.journal import Batch, Begin, Decoder, Divergence, Encoder, End, Gap, Item, Lived, Told
from antinfer.core.messages import Heartbeat
from antinfer.core.plan import PlanIndex
from antinfer.core.ranges import Rows
from antinfer.core.rounds import RetriedShard, Round
from antinfer.testing.sim import master as sim_master
from antinfer.testing.sim.catalogue import SCENARIOS
from antinfer.testing.sim.runner import run
from tests.unit.core.builders import World, record
from tests.unit.core.values_of import values_of


def again(items: list[Item]) -> list[Item]:
    """What a reader makes of what a writer makes of `items`."""
    encoder, decoder = Encoder(), Decoder(journal.shapes())
    return [decoder.item(encoder.line(item)) for item in items]


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
def test_every_event_comes_back(kind: type) -> None:
    @settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(st.lists(values_of(kind), min_size=1, max_size=3))
    def check(found: list[Event]) -> None:
        batch = Batch(1, tuple(found), "ab", 3)
        assert again([batch]) == [batch]

    check()


@pytest.mark.parametrize("kind", [Begin, Told, Gap, End], ids=lambda kind: kind.__name__)
def test_everything_else_comes_back(kind: type) -> None:
    @settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(values_of(kind))
    def check(found: Item) -> None:
        assert again([found]) == [found]

    check()


streams = st.sampled_from([StreamId(1), StreamId(2)])
told = st.sampled_from([1, 2]).map(lambda answered: Heartbeat(SessionId("1-1"), (), answered))
beats = st.builds(HeartbeatSeen, st.integers(), streams, told)
gone = st.builds(StreamBroken, st.integers(), streams)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.one_of(beats, gone)), max_size=6))
def test_folded_heartbeats_unfold(made: list[list[Event]]) -> None:
    items: list[Item] = [Batch(1, tuple(each), "", 0) for each in made]
    assert again(items) == items


def test_a_repeated_heartbeat_takes_no_room() -> None:
    encoder = Encoder()
    beat = Heartbeat(SessionId("1-1"), tuple(LeaseId(1, n) for n in range(40)), 7)
    first, second = (encoder.line(Batch(n, (HeartbeatSeen(n, StreamId(3), beat),), "", 0)) for n in (1, 2))
    encoder.restart()
    third = encoder.line(Batch(3, (HeartbeatSeen(3, StreamId(3), beat),), "", 0))

    assert len(second) < 50 < len(first)
    assert len(third) == len(first)


# -- living it again -------------------------------------------------------------------------------------------------------------------
class Recorder(Engine):
    """An engine whose life is written down as the loop of a master does it, and kept besides."""

    lives: list[Recorder]
    """Of all that were started, in order; set by each test on a class of its own."""

    def start(self, at: int, stored: dict[str, str] | None, *, trusted: bool) -> list[commands.Command]:  # type: ignore[override]
        self.encoder = Encoder()
        self.text = [self.encoder.line(Begin.of(self, at, stored, trusted=trusted, owner="a test"))]
        self.did: list[tuple[list[commands.Command], Changes]] = []
        self.taken: list[Event] = []
        self.first = 1
        self.story.keep_fresh()
        self.lives.append(self)
        self.ordered = super().start(at, stored, trusted=trusted)
        return list(self.ordered)

    def step(self, event: Event) -> list[commands.Command]:
        ordered = super().step(event)
        self.taken.append(event)
        self.ordered += ordered
        return ordered

    def take_changes(self) -> Changes:
        changes = super().take_changes()
        batch = Batch(self.first, tuple(self.taken), journal.digest(changes), len(self.ordered))
        self.text.append(self.encoder.line(batch, changes.puts))
        if lines := self.story.take_fresh():
            self.text.append(self.encoder.line(Told(tuple(lines))))
        self.did.append((self.ordered, changes))
        self.first += len(self.taken)
        self.taken, self.ordered = [], []
        return changes

    @property
    def items(self) -> list[Item]:
        decoder = Decoder()
        return [decoder.item(line) for line in self.text]


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Every master of a simulation, written down."""
    kind = type("Recorder", (Recorder,), {"lives": []})
    monkeypatch.setattr(sim_master, "Engine", kind)
    found: list[Recorder] = kind.lives  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_reign_told_again_does_the_same(name: str, lives: list[Recorder]) -> None:
    run(SCENARIOS[name], seed=1)
    assert lives

    for life in lives:
        steps: list[Lived] = []
        replayed = journal.replay(life.items, steps.append)

        assert [(lived.commands, lived.changes) for lived in steps] == life.did
        assert replayed.events == life.first - 1
        assert replayed.engine.phase is life.phase
        assert replayed.engine.counters() == life.counters()


def served() -> list[Item]:
    """The log of a small reign: a worker joins, takes a range, commits half of it and falls silent."""
    kind = type("Recorder", (Recorder,), {"lives": []})
    world = World.__new__(World)
    world.at, world.documents, world.commands = 0, {}, []
    world.config = journal.EngineConfig()
    world.engine = kind(world.config, PlanIndex([10, None, 10], complete=True), 4)
    world.engine.start(0, None, trusted=False)
    world.persist()
    world.step(events.StagingSwept(0))
    world.step(events.OutputListed(0, ()))
    worker = world.worker()
    grant = worker.take()
    worker.beat()
    worker.beat()
    worker.ask(commits=[record(grant, 5)])
    world.silence(12_000)
    found: list[Item] = kind.lives[0].items  # type: ignore[attr-defined]
    return found


def test_every_line_of_the_story_names_its_cause() -> None:
    items = served()
    causes = {number: event for batch in items if isinstance(batch, Batch) for number, event in enumerate(batch.events, batch.first)}
    told = [(entry.what, causes[entry.cause]) for item in items if isinstance(item, Told) for entry in item.lines]

    assert [type(event).__name__ for _, event in told] == ["Requested", "Requested", "Ticked"]
    assert [what for what, _ in told][:2] == ["leased", "committed"]


def test_a_log_that_was_tampered_with_diverges() -> None:
    items = served()
    journal.replay(items)
    for at, item in enumerate(items):
        if not isinstance(item, Batch) or not any(isinstance(event, events.Requested) for event in item.events):
            continue
        for changed in (
            Batch(item.first, tuple(map(_hungrier, item.events)), item.digest, item.commands),
            Batch(item.first, item.events, "0" * 16, item.commands),
            Batch(item.first, item.events, item.digest, item.commands + 1),
        ):
            with pytest.raises(Divergence, match=f"4:{item.first}"):
                journal.replay([*items[:at], changed, *items[at + 1 :]])


def _hungrier(event: Event) -> Event:
    if not isinstance(event, events.Requested):
        return event
    asked = event.request
    more = type(asked)(asked.session, asked.number, commits=asked.commits, held=asked.held, want=asked.want + 1)
    return events.Requested(event.at, event.stream, more)


def test_a_story_that_was_tampered_with_diverges() -> None:
    items = served()
    at = next(at for at, item in enumerate(items) if isinstance(item, Told))

    with pytest.raises(Divergence, match="story"):
        journal.replay([*items[:at], *items[at + 1 :]])


def test_a_log_is_replayed_as_far_as_it_is_whole() -> None:
    items = served()
    batches = [at for at, item in enumerate(items) if isinstance(item, Batch)]
    middle = batches[len(batches) // 2]
    whole = journal.replay(items)

    cut = journal.replay([*items[:middle], Gap(7, "the disk was full"), *items[middle + 1 :]])
    assert 0 < cut.events < whole.events

    found = items[middle]
    assert isinstance(found, Batch)
    lost = journal.replay([*items[:middle], Batch(found.first, found.events, "", 0, lost="fenced")])
    assert lost.events == found.first - 1

    with pytest.raises(ValueError, match="are missing"):
        journal.replay([*items[:middle], *items[middle + 1 :]])
    with pytest.raises(ValueError, match="beginning"):
        journal.replay(items[1:])


def test_a_plan_is_kept_by_its_runs() -> None:
    engine = Engine(journal.EngineConfig(), PlanIndex([10] * 1_000 + [None, 3], complete=True), 2)
    begin = Begin.of(engine, 0, {"meta": "{}"}, trusted=True)
    again = begin.engine()

    assert begin.plan == ((10, 1_000), (None, 1), (3, 1))
    assert [again.plan.rows(shard) for shard in range(len(again.plan))] == [10] * 1_000 + [None, 3]
    assert (again.plan.complete, again.epoch, again.phase) == (True, 2, Phase.NEW)


def test_a_retry_round_is_kept() -> None:
    round = Round(3, {ShardId(2): RetriedShard(100, [Rows(0, 4), Rows(50, 51)])})
    engine = Engine(journal.EngineConfig(), PlanIndex([10, 10, 100], complete=True), 2, round)
    again = Begin.of(engine, 0, None, trusted=False).engine().round

    assert again is not None
    assert (again.number, again.rows, list(again.shards[ShardId(2)])) == (3, 5, [(0, 4), (50, 51)])


def test_lines_are_json_on_one_line() -> None:
    encoder = Encoder()
    for item in served():
        text = encoder.line(item)
        assert "\n" not in text
        assert json.loads(text)[0] == type(item).__name__


def test_a_digest_counts_documents_and_not_their_order() -> None:
    first, other = Changes({"s:1": "a", "w:x": "b"}, {"w:y", "s:2"}), Changes({"w:x": "b", "s:1": "a"}, {"s:2", "w:y"})

    assert journal.digest(first) == journal.digest(other)
    assert journal.digest(Changes()) == ""
    for changed in (Changes({"s:1": "c", "w:x": "b"}, {"w:y", "s:2"}), Changes({"s:1": "a", "w:x": "b"}), Changes(reset=True)):
        assert journal.digest(changed) != journal.digest(first)


def test_of_large_batches_most_are_checked_by_their_totals() -> None:
    small, large = Changes({f"s:{n}": "" for n in range(24)}), Changes({f"s:{n}": "" for n in range(25)} | {"meta": "m"})

    assert all(journal.worth_whole(first, small) for first in range(1, 40))
    assert [first for first in range(1, 40) if journal.worth_whole(first, large)] == [16, 32]
    parts = [Changes({**large.puts, "meta": "n"}), Changes({**large.puts, "s:99": ""}), Changes(large.puts, {"x"})]
    found = {journal.digest(changes, whole=False) for changes in (large, *parts)}
    assert len(found) == 4
    assert all(each.startswith("~") for each in found)


def test_a_partial_digest_is_compared_as_one() -> None:
    items = served()
    kept = dict(zip((id(item) for item in items), items, strict=True))
    engine_changes: list[Changes] = []
    journal.replay(items, lambda lived: engine_changes.append(lived.changes))
    batches = [item for item in items if isinstance(item, Batch)]
    partial = {id(batch): journal.digest(changes, whole=False) for batch, changes in zip(batches, engine_changes, strict=True)}
    changed = [Batch(item.first, item.events, partial[key], item.commands) if key in partial else item for key, item in kept.items()]

    assert journal.replay(changed).events == journal.replay(items).events  # type: ignore[arg-type]


def test_ticks_cost_little() -> None:
    encoder = Encoder()
    assert max(len(encoder.line(Batch(n, (Ticked(1_000_000 + 200 * n),), "", 0))) for n in range(1, 100)) < 60
