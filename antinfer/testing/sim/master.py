"""A master process, modelled around the real engine: mirrors `antinfer.master.reign` and `antinfer.master.loop` step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from antinfer.core import commands, guards
from antinfer.core.documents import Changes
from antinfer.core.engine import Engine, Phase
from antinfer.core.events import (
    DrainRequested,
    Event,
    HeartbeatSeen,
    JobFailed,
    Joined,
    PlanCompleted,
    PlanExtended,
    Published,
    Requested,
    StreamBroken,
    StreamId,
    Ticked,
)
from antinfer.core.ids import LeaseId, ShardId
from antinfer.core.messages import Heartbeat, Join, Upward
from antinfer.core.plan import PlanIndex, Shard
from antinfer.core.rounds import Round
from antinfer.errors import AntinferError, FencedError, InvariantViolation
from antinfer.master import retrying
from antinfer.master.holdback import Holdback
from antinfer.master.store.base import Batch, DiscontinuityError, Durability
from antinfer.testing.sim import proof
from antinfer.testing.sim.judge import CANCELLED, Account
from antinfer.testing.sim.network import Stream
from antinfer.testing.sim.publisher import MakeEvent, Publisher
from antinfer.testing.sim.reignlog import ReignLog
from antinfer.testing.sim.store import StoreClient
from antinfer.testing.sim.world import Party, Run, Signal

if TYPE_CHECKING:
    from antinfer.testing.sim.stage import Stage
    from antinfer.testing.sim.worker import Worker

_TICK_MS = 40
_LINGER_MS = 300


class EpochlessEngine(Engine):
    """Rule 13 off: the lease counter starts again with every reign, and the epoch is not part of the id."""

    def new_lease_id(self) -> LeaseId:
        return LeaseId(1, super().new_lease_id().n)


class Master(Party):
    """One slot for master processes; each life is another process."""

    def __init__(self, stage: Stage, name: str) -> None:
        super().__init__(stage.world, name, "master")
        self.stage = stage
        self.engine: Engine | None = None
        self.epoch = 0
        self.client: StoreClient | None = None
        """Of the store; stage directions may break its connection."""
        self.shards: Mapping[ShardId, Shard] = stage.shards
        """What workers are told about shards."""
        self._loop: Loop | None = None
        self._plan = PlanIndex()

    # -- the network's view ------------------------------------------------------------------------------------------------------
    @property
    def party(self) -> Party:
        return self

    @property
    def is_ruling(self) -> bool:
        return self._loop is not None

    def is_ruled_by(self, loop: Loop) -> bool:
        return self._loop is loop

    def opened(self, stream: Stream) -> None:
        if self._loop is None:
            self.stage.network.close(stream)
        else:
            self._loop.streams[stream.id] = stream

    def said(self, stream: Stream, message: Upward) -> None:
        if self._loop is None or stream.id not in self._loop.streams:
            return
        if isinstance(message, Join):
            self._loop.post(lambda at: Joined(at, stream.id, message))
        elif isinstance(message, Heartbeat):
            self._loop.post(lambda at: HeartbeatSeen(at, stream.id, message))
        else:
            self._loop.post(lambda at: Requested(at, stream.id, message))

    def closed(self, stream: Stream) -> None:
        if self._loop is not None and self._loop.streams.pop(stream.id, None) is not None:
            self._loop.post(lambda at: StreamBroken(at, stream.id))

    # -- life --------------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start a process in this slot."""
        self.begin()
        self._loop, self.engine, self.epoch = None, None, 0
        self._plan = PlanIndex()
        self.world.note(self.name, "starts (life {})", self.life)
        self.world.spawn(self, self._live())

    def on_gone(self) -> None:
        self._loop = None
        self.stage.network.lose(self)
        self.stage.on_master_gone(self)

    def on_paused(self) -> None:
        self.stage.network.freeze(self)

    def cancel(self) -> None:
        """Somebody gives the job up."""
        if self._loop is not None:
            self._loop.post(lambda at: JobFailed(at, CANCELLED))

    def drain(self, worker: Worker) -> None:
        """Somebody asks the master to have a worker stop."""
        if self._loop is not None:
            self._loop.post(lambda at: DrainRequested(at, worker.session.worker))

    def leave(self, why: str) -> None:
        """End by itself."""
        self.world.note(self.name, "ends: {}", why)
        self.end()
        self.on_gone()

    def _live(self) -> Run[None]:
        client = self.client = yield from self.stage.open_store(self)
        try:
            while True:
                try:
                    yield from self._reign(client)
                    break
                except DiscontinuityError as error:
                    self.world.note(self.name, "begins a new reign: {}", error)
            self.leave("the job is over")
        except FencedError as error:
            self.leave(f"fenced: {error}")
        except InvariantViolation as error:
            self.world.blame("lost" if "nowhere" in str(error) else "doubled", f"{self.name}: {error}")
            self.leave("the ledger is broken")
        except AntinferError as error:
            self.leave(str(error))
        except Exception as error:  # noqa: BLE001 - the finding of the search
            self.world.blame("error", f"{self.name}: {type(error).__name__}: {error}")
            self.leave("a bug")

    def _claim(self, client: StoreClient) -> Run[tuple[int, int, int]]:
        """Return the epoch claimed, and the highest ones seen before in the place and in the store."""
        place, owner = self.stage.place, f"{self.name}.{self.life}"
        while True:
            highest = place.highest_epoch() if self.stage.scenario.switches.claims_output else 0
            yield "looked for the highest epoch"
            fence = yield from client.fence()
            epoch = max(highest, fence.epoch) + 1
            if not self.stage.scenario.switches.claims_output or place.claim_epoch(epoch, owner):
                break
        yield "claimed the output"
        yield from client.claim(epoch, owner, unbroken=highest == fence.epoch)
        yield "claimed the store"
        return epoch, highest, fence.epoch

    def _reign(self, client: StoreClient) -> Run[None]:
        scenario = self.stage.scenario
        self.epoch, highest, stored_epoch = yield from self._claim(client)
        found = yield from client.load()
        trusted = bool(found.written_run) and guards.store_is_current(
            found.written_run, found.run, own_server=client.is_own, stored_epoch=stored_epoch, last_claim=highest
        )
        self._load_plan()
        ruled = yield from self._take_possession()
        self.world.note(self.name, "rules as epoch {} from {}", self.epoch, "the store" if trusted else "the output")
        index = PlanIndex(map(self._plan.rows, range(len(self._plan))), complete=self._plan.complete)
        kind = Engine if scenario.switches.counts_epochs else EpochlessEngine
        config = replace(self.stage.scenario.engine, job=retrying.job_name(self.stage.scenario.engine.job, ruled))
        engine = self.engine = kind(config, index, self.epoch, ruled)
        self.shards = {shard_id: self._handed_out(shard, ruled) for shard_id, shard in self.stage.shards.items()}
        loop = self._loop = Loop(self, engine, client, found.seq)
        if scenario.is_logged:
            loop.log = ReignLog(engine, loop.now, found.documents, trusted=trusted)
            self.stage.logs.append(loop.log)
        self.world.spawn(self, self._go_on_planning(loop))
        try:
            yield from loop.run(engine.start(loop.now, found.documents, trusted=trusted))
        except AntinferError:
            self._abdicate(loop)
            yield from loop.publisher.stop()
            raise
        self._abdicate(loop)
        yield from loop.publisher.stop()

    def _take_possession(self) -> Run[Round | None]:
        """Open the retry round that is wanted, unless it is open; return the one to rule over. Mirrors `antinfer.master.retrying`."""
        place, wanted = self.stage.place, self.stage.round
        if place.newest_round < wanted and place.sealed_round == wanted - 1:
            planned = proof.plan_round(place, wanted, self.stage.scenario.rows)
            self._still_rules()
            yield "is about to open a round"
            place.rounds[wanted] = planned
            yield "opened a round"
        newest = place.newest_round
        if not newest:
            return None
        if place.sealed_round is not None and place.sealed_round < newest:
            self._still_rules()
            yield "is about to remove the mark of success"
            place.success = None
            yield "removed the mark of success"
        return place.rounds[newest]

    def _still_rules(self) -> None:
        highest = self.stage.place.highest_epoch()
        if highest > self.epoch and self.stage.scenario.switches.claims_output:
            raise FencedError(f"epoch {highest} has claimed the output; this one had {self.epoch}")

    @staticmethod
    def _handed_out(shard: Shard, ruled: Round | None) -> Shard:
        return shard if ruled is None or shard.index not in ruled.shards else retrying.handed_out(shard, ruled)

    def _abdicate(self, loop: Loop) -> None:
        self._loop = None
        for stream in list(loop.streams.values()):
            self.stage.network.close(stream)

    # -- the plan ----------------------------------------------------------------------------------------------------------------
    def _load_plan(self) -> None:
        scenario, place = self.stage.scenario, self.stage.place
        if scenario.planned_at_once:
            place.planned, place.plan_complete = len(scenario.rows), True
        self._plan = PlanIndex(self.stage.planned_rows[: place.planned], complete=place.plan_complete)

    def _go_on_planning(self, loop: Loop) -> Run[None]:
        place, plan = self.stage.place, self._plan
        while not plan.complete and self._loop is loop:
            yield self.world.rng.randint(20, 120)
            if len(plan) < len(self.stage.planned_rows):
                rows = self.stage.planned_rows[len(plan)]
                place.planned = max(place.planned, len(plan) + 1)
                yield "planned a shard"
                plan.extend((rows,))
                self._tell_extended(loop, rows)
            else:
                place.plan_complete = True
                yield "planned everything"
                plan.complete = True
                loop.post(PlanCompleted)

    def _tell_extended(self, loop: Loop, rows: int | None) -> None:
        loop.post(lambda at: PlanExtended(at, (rows,)))


class Loop:
    """Drives one engine: gather events, step, persist the batch, and only then act on it."""

    def __init__(self, master: Master, engine: Engine, client: StoreClient, seq: int) -> None:
        self.streams: dict[StreamId, Stream] = {}
        self._master = master
        self._engine = engine
        self._client = client
        self._seq = seq
        self._switches = master.stage.scenario.switches
        self._inbox: deque[Event] = deque()
        self._filled = Signal()
        self._error: AntinferError | None = None
        self._batches = 0
        self.log: ReignLog | None = None
        self._account = Account(master.stage.troubles)
        self._scenario = master.stage.scenario
        """What the job was like when this reign began."""
        self._holdback = Holdback() if client.durability is Durability.PUBLISH else None
        self.publisher = Publisher(
            master, master.stage.place, engine.epoch, master.stage.scenario.switches, post=self.post, fail=self._fail
        )

    @property
    def now(self) -> int:
        """Time on this process's own clock."""
        return self._master.world.now + 1_000_000 * self._master.life

    def post(self, make: MakeEvent) -> None:
        self._inbox.append(make(self.now))
        self._filled.set()

    def _fail(self, error: AntinferError) -> None:
        self._error = self._error or error
        self._filled.set()

    def run(self, started: list[commands.Command]) -> Run[None]:
        """Rule until the job is over. Raises FencedError, DiscontinuityError, InvariantViolation."""
        self._master.world.spawn(self._master, self._tick())
        yield from self._settle(started, ())
        ended_at: int | None = None
        while True:
            yield self._filled
            if self._error is not None:
                raise self._error
            events = tuple(self._inbox)
            self._inbox.clear()
            ordered: list[commands.Command] = []
            for event in events:
                ordered += self._step(event)
            yield from self._settle(ordered, events)
            if self._engine.phase in (Phase.DONE, Phase.FAILED):
                ended_at = self.now if ended_at is None else ended_at
                if not self.streams or self.now - ended_at > _LINGER_MS:
                    return

    def _step(self, event: Event) -> list[commands.Command]:
        self._account.hear(self._engine, event)
        ordered = self._engine.step(event)
        self._account.see(ordered)
        return ordered

    def _tick(self) -> Run[None]:
        while self._master.is_ruled_by(self):
            if not any(isinstance(event, Ticked) for event in self._inbox):
                self.post(Ticked)
            yield _TICK_MS

    def _settle(self, ordered: list[commands.Command], events: tuple[Event, ...]) -> Run[None]:
        """Make the state durable, then carry out what was decided from it."""
        switches = self._switches
        self._master.stage.check_engine(self._engine)
        changes = self._engine.take_changes()
        early, late = self._divide(ordered, switches.answers_wait, switches.effects_wait)
        self._carry_out(early)
        if changes or ordered:
            self._batches += 1
            token = f"{self._master.name}.{self._master.life}-{self._engine.epoch}-{self._batches}"
            yield "stepped a batch"
            try:
                yield from self._client.persist(Batch(self._engine.epoch, self._seq, token, changes.puts, changes.deletes, changes.reset))
            except AntinferError as error:
                self._note(events, changes, len(ordered), lost=str(error))
                raise
            self._seq += 1
            self._note(events, changes, len(ordered))
            yield "persisted a batch"
        else:
            self._note(events, changes, 0)
        self._carry_out(late)
        if self._holdback is not None:
            for event in events:
                if isinstance(event, Published):
                    for send in self._holdback.published(event.staged):
                        self._send(send)

    def _note(self, events: tuple[Event, ...], changes: Changes, ordered: int, lost: str = "") -> None:
        if self.log is not None:
            self.log.note(events, changes, ordered, lost)

    @staticmethod
    def _divide(
        ordered: list[commands.Command], answers_wait: bool, effects_wait: bool
    ) -> tuple[list[commands.Command], list[commands.Command]]:
        """Split a batch into what is carried out before it is durable (nothing, with rules 3 and 4 on) and after."""

        def waits(command: commands.Command) -> bool:
            return answers_wait if isinstance(command, commands.Send) else effects_wait

        return [each for each in ordered if not waits(each)], [each for each in ordered if waits(each)]

    def _carry_out(self, ordered: list[commands.Command]) -> None:
        publications = [record for command in ordered if isinstance(command, commands.Publish) for record in command.records]
        if self._holdback is not None:
            self._holdback.expect(record.staged for record in publications)
        if publications:
            self.publisher.publish(publications)
        for command in ordered:
            if isinstance(command, commands.Send):
                if self._holdback is None or self._holdback.offer(command):
                    self._send(command)
            elif isinstance(command, commands.GiveUp):
                self._give_up(command.reason)
            elif not isinstance(command, commands.Publish):
                self.publisher.carry_out(command)

    def _give_up(self, reason: str) -> None:
        stage = self._master.stage
        is_right = self._account.excuses(self._scenario, self._engine, reason)
        if is_right and self._scenario is not stage.scenario:
            stage.world.note(self._master.name, "gives up what somebody else goes on with: {}", reason)
        else:
            stage.on_given_up(self._master, reason, is_right=is_right)

    def _send(self, send: commands.Send) -> None:
        stream = self.streams.get(send.stream)
        if stream is not None:
            self._master.stage.network.down(stream, send.message)
