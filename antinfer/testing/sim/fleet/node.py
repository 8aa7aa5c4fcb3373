"""One of thousands of workers: the real session, with a modelled host below it and a modelled network above."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from antinfer.core.causes import Cause
from antinfer.core.events import StreamId
from antinfer.core.ids import ShardId, WorkerId
from antinfer.core.messages import Downward
from antinfer.core.plan import Piece, Shard
from antinfer.testing.sim.fleet.books import Books
from antinfer.testing.sim.fleet.clock import Clock
from antinfer.testing.sim.fleet.conditions import Conditions
from antinfer.testing.sim.fleet.host import Host
from antinfer.testing.sim.fleet.reign import Master
from antinfer.worker import hostlink
from antinfer.worker.session import Session
from antinfer.worker.signals import (
    Action,
    Connect,
    Connected,
    Disconnected,
    DrainAsked,
    Event,
    Exit,
    HostDied,
    HostSaid,
    Received,
    SendUp,
    StartHost,
    StopHost,
    Ticked,
    ToHost,
)

_LATENCY_MS: Final = 2
_KEEPALIVE_MS: Final = 20_000
"""A connection on which nothing gets through for so long is given up by both ends."""
_DIAL_MS: Final = 1_000


class Shards(Mapping[ShardId, Shard]):
    """The descriptions of all shards, each made when it is asked for."""

    def __init__(self, count: int, rows: int) -> None:
        self._count = count
        self._rows = rows

    def __getitem__(self, shard: ShardId) -> Shard:
        return Shard(shard, (Piece("in", shard, shard + 1, self._rows),), self._rows, 1)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Any:
        return map(ShardId, range(self._count))


class World:
    """What all workers of a job have in common."""

    def __init__(self, clock: Clock, conditions: Conditions, books: Books, master: Master, rng: random.Random) -> None:
        self.clock = clock
        self.conditions = conditions
        self.books = books
        self.master = master
        self.rng = rng
        self.shards = Shards(conditions.shards, conditions.rows)
        self.problems: list[str] = []
        self.streams = 0

    def next_stream(self) -> StreamId:
        self.streams += 1
        return StreamId(self.streams)


class Node:
    """One slot for workers; each life is another process on another machine, as fast as chance makes it."""

    __slots__ = (
        "_armed_at", "_computed_before", "_rate", "_started_at", "_stream", "_told", "_worked_ms", "_world",
        "host", "index", "is_alive", "life", "on_exit", "parted_until", "session",
    )  # fmt: skip

    def __init__(self, world: World, index: int) -> None:
        self._world = world
        self.index = index
        self.life = 0
        self.is_alive = False
        self.parted_until = 0
        """Until then nothing gets through to the master, or back."""
        self.on_exit: Callable[[Node, int], None] = lambda node, code: None
        """Called with the exit code when the process has ended by itself."""
        self._started_at = self._worked_ms = self._computed_before = 0
        self._rate = 0.0
        self._stream: StreamId | None = None
        self._told: tuple[StreamId | None, int] = (None, 0)
        """Rows that the worker has computed, when it last said something, and on which stream."""
        self._armed_at = -1
        """When the session's timer is planned; -1: not."""
        self.session = Session(WorkerId(""))
        self.host = Host(world.clock, world.conditions, world.books, self._ms_per_row, lambda: f"{world.rng.getrandbits(32):08x}")
        self.host.say = self._host_said
        self.host.die = self._host_died

    # -- life --------------------------------------------------------------------------------------------------------------------
    def start(self, name: str = "") -> None:
        """Start a worker in this slot; it has a name of its own where it is given none."""
        world, speeds = self._world, self._world.conditions.speeds
        self.life += 1
        self.is_alive = True
        self.parted_until = 0
        slowness = speeds.slow_factor if world.rng.random() < speeds.slow_share else 1.0
        self._rate = speeds.rows_per_s * (1 + speeds.spread * world.rng.uniform(-1, 1)) / slowness
        name = name or f"w{self.index}.{self.life}"
        self._started_at, self._computed_before = world.clock.now, self.host.rows_computed
        self.host.worker = name
        self.session = Session(WorkerId(name), "fleet", world.conditions.session)
        self._stream, self._armed_at = None, -1
        self._perform(self.session.start())

    def kill(self, *, silently: bool = False) -> None:
        """End the process without a word; silently: the machine is gone, so that nobody closes its connection."""
        self._worked_ms, self.is_alive = self.worked_ms, False
        self.life += 1
        self.host.stop()
        stream, self._stream = self._stream, None
        if stream is not None and not silently:
            self._world.clock.after(_LATENCY_MS, self._world.master.lose, stream)

    def drain(self) -> None:
        """Tell it by a signal that it has to leave."""
        self._step(DrainAsked(self._world.clock.now, "drained after SIGTERM", Cause.PREEMPTED))

    def part(self, ms: int) -> None:
        """Cut it off from the master; short interruptions are only waited for, as TCP does."""
        clock = self._world.clock
        self.parted_until = clock.now + ms
        stream = self._stream
        if stream is not None and ms > _KEEPALIVE_MS:
            clock.after(_KEEPALIVE_MS, self._give_up, stream)

    def _give_up(self, stream: StreamId) -> None:
        self._world.master.lose(stream)
        self.lose_stream(stream)

    def _ms_per_row(self, shard: int) -> float:
        conditions = self._world.conditions
        # Which shards are heavy their number decides: a multiplicative hash spreads them.
        is_heavy = conditions.heavy_share > 0 and (shard * 2_654_435_761 & 0xFFFFFFFF) < conditions.heavy_share * 0x100000000
        return (conditions.heavy_factor if is_heavy else 1.0) * 1000 / self._rate

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self._rate

    @property
    def worked_ms(self) -> int:
        """Time that workers were here, over all lives."""
        return self._worked_ms + (self._world.clock.now - self._started_at if self.is_alive else 0)

    @property
    def rows_told(self) -> int | None:
        """Rows that the present worker has computed, as it has told its master; None: it has not told this one."""
        stream, rows = self._told
        return rows if stream is not None and stream == self._stream else None

    # -- the network -------------------------------------------------------------------------------------------------------------
    def _delay(self) -> int:
        return max(0, self.parted_until - self._world.clock.now) + _LATENCY_MS

    def hear(self, stream: StreamId, message: Downward) -> None:
        """The master sends this."""
        self._world.clock.after(self._delay(), self._heard, (stream, message))

    def _heard(self, sent: tuple[StreamId, Downward]) -> None:
        stream, message = sent
        if stream == self._stream:
            self._step(Received(self._world.clock.now, message, self._world.shards))

    def lose_stream(self, stream: StreamId) -> None:
        if stream == self._stream:
            self._stream = None
            self._step(Disconnected(self._world.clock.now))

    def _send(self, message: object) -> None:
        if self._stream is not None:
            self._told = self._stream, self.host.rows_computed - self._computed_before
            self._world.clock.after(self._delay(), self._arrive, (self._stream, message))

    def _arrive(self, sent: tuple[StreamId, Any]) -> None:
        self._world.master.hear(*sent)

    def _dial(self, life: int) -> None:
        world = self._world
        if life != self.life:
            return
        if not world.master.is_ruling or self.parted_until > world.clock.now:
            world.clock.after(_DIAL_MS, self._refused, life)
            return
        self._stream = world.next_stream()
        world.master.streams[self._stream] = self
        self._step(Connected(world.clock.now))

    def _refused(self, life: int) -> None:
        if life == self.life:
            self._step(Disconnected(self._world.clock.now))

    # -- the host ----------------------------------------------------------------------------------------------------------------
    def _host_said(self, message: hostlink.FromHost) -> None:
        self._step(HostSaid(self._world.clock.now, message))

    def _host_died(self) -> None:
        self._step(HostDied(self._world.clock.now, "exit status -9"))

    def _start_host(self, life: int) -> None:
        if life == self.life:
            self.host.start(int(self._world.conditions.setup * 1000))

    # -- the session -------------------------------------------------------------------------------------------------------------
    def _step(self, event: Event) -> None:
        if not self.is_alive:
            return
        try:
            actions = self.session.step(event)
        except Exception as error:  # noqa: BLE001 - the finding of the simulation
            self._world.problems.append(f"error: w{self.index}.{self.life}: {type(error).__name__}: {error} at {event}")
            self.kill()
            return
        self._perform(actions)
        if self.is_alive:
            self._arm()

    def _arm(self) -> None:
        """Plan the session's next tick. A timer that turns out to be early is planned again, which is cheaper than one for every step."""
        wake_at, clock = self.session.wake_at, self._world.clock
        if wake_at is not None and (self._armed_at < 0 or wake_at < self._armed_at):
            self._armed_at = max(wake_at, clock.now)
            clock.after(self._armed_at - clock.now, self._tick, (self.life, self._armed_at))

    def _tick(self, planned: tuple[int, int]) -> None:
        life, at = planned
        if life != self.life or at != self._armed_at:
            return
        self._armed_at = -1
        wake_at = self.session.wake_at
        if wake_at is not None and wake_at > at:
            self._arm()
        else:
            if self.host.is_ready:
                # What the master hears of progress it hears with a heart-beat, so nobody need tell the session in between.
                self._step(HostSaid(at, self.host.progress()))
            self._step(Ticked(at))

    def _perform(self, actions: list[Action]) -> None:
        world = self._world
        for action in actions:
            match action:
                case SendUp():
                    self._send(action.message)
                case ToHost():
                    self.host.order(action.message)
                case StartHost():
                    world.clock.after(action.after_ms, self._start_host, self.life)
                case StopHost():
                    self.host.stop()
                case Connect():
                    stream, self._stream = self._stream, None
                    if stream is not None:
                        world.clock.after(_LATENCY_MS, world.master.lose, stream)
                    world.clock.after(action.after_ms + world.rng.randint(1, 20), self._dial, self.life)
                case Exit():
                    self.kill()
                    self.on_exit(self, action.code)
                case _:
                    raise AssertionError(f"unknown action {action!r}")
