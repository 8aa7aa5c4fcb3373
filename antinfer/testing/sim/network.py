"""Streams between workers and masters: in order, until they lose, double, delay or break."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from antinfer.core.events import StreamId
from antinfer.core.ids import ShardId
from antinfer.core.messages import Downward, Upward
from antinfer.core.plan import Shard
from antinfer.testing.sim.faults import Fault, Luck
from antinfer.testing.sim.world import Party, World

if TYPE_CHECKING:
    from antinfer.testing.sim.scenario import Weather

_KEEPALIVE_MS = 900
"""A peer that has been paused for so long is given up by the other end of the stream."""
_LOST: Final = Fault("lose", "network", "by order", 0)
_DIAL_MS = 300
"""How long a dialling worker waits for a master that does not answer."""


class Called(Protocol):
    """The end of a master."""

    @property
    def party(self) -> Party: ...
    @property
    def is_ruling(self) -> bool: ...
    @property
    def shards(self) -> Mapping[ShardId, Shard]: ...
    def opened(self, stream: Stream) -> None: ...
    def said(self, stream: Stream, message: Upward) -> None: ...
    def closed(self, stream: Stream) -> None: ...


class Caller(Protocol):
    """The end of a worker."""

    @property
    def party(self) -> Party: ...
    def opened(self, stream: Stream) -> None: ...
    def said(self, stream: Stream, message: Downward) -> None: ...
    def closed(self, stream: Stream | None) -> None: ...


@dataclass(eq=False, slots=True)
class Stream:
    """One connection."""

    id: StreamId
    caller: Caller
    called: Called
    caller_life: int
    called_life: int
    is_open: bool = True
    last_up: int = 0
    last_down: int = 0


class Network:
    """All streams. Its calls into a party happen as that party's events, so they wait while it is paused and vanish when it dies."""

    def __init__(self, world: World, weather: Weather, luck: Luck) -> None:
        self.world = world
        self._luck = luck
        self._odds = weather.at_message
        self._is_calm = False
        self.streams: dict[StreamId, Stream] = {}
        self.loses: Callable[[Upward | Downward], bool] = lambda message: False
        """For stage directions: messages that get lost whatever the weather."""
        self.latency_ms = (1, 4)
        """How long a message takes, whatever the weather; stage directions may change it."""
        self._cut_off: dict[str, int] = {}
        """Parties that nobody reaches, and until when."""
        self._unheard: dict[str, int] = {}
        """Parties whose messages vanish both ways although nobody is told, and until when."""
        self._ids = itertools.count(1)

    # -- connections -------------------------------------------------------------------------------------------------------------
    def dial(self, caller: Caller, called: Called | None) -> None:
        """Connect; ends in `opened`, or in `closed` with None."""
        world, party, life = self.world, caller.party, caller.party.life
        is_answered = False

        def refuse() -> None:
            nonlocal is_answered
            if not is_answered:
                is_answered = True
                world.after(self._latency(), lambda: caller.closed(None), party, life)

        def answer() -> None:
            nonlocal is_answered
            if is_answered or called is None or not party.is_alive or party.life != life:
                return
            if not called.is_ruling:
                refuse()
                return
            is_answered = True
            stream = Stream(StreamId(next(self._ids)), caller, called, life, called.party.life)
            self.streams[stream.id] = stream
            called.opened(stream)
            world.after(self._latency(), lambda: caller.opened(stream), party, life)

        if called is None or not called.party.is_alive or self._is_cut_off(party) or self._is_cut_off(called.party):
            refuse()
            return
        world.after(self._latency(), answer, called.party)
        world.after(_DIAL_MS, refuse)

    def close(self, stream: Stream) -> None:
        """Break a connection; both ends hear of it, each in its own time."""
        if not stream.is_open:
            return
        stream.is_open = False
        del self.streams[stream.id]
        self.world.after(self._latency(), lambda: stream.called.closed(stream), stream.called.party, stream.called_life)
        self.world.after(self._latency(), lambda: stream.caller.closed(stream), stream.caller.party, stream.caller_life)

    def lose(self, party: Party) -> None:
        """A process died: its connections break."""
        for stream in self._of(party):
            self.close(stream)

    def freeze(self, party: Party) -> None:
        """A process was stopped: after a while the others give it up."""
        pauses = party.pauses

        def give_up() -> None:
            if party.is_paused and party.pauses == pauses:
                self.lose(party)

        self.world.after(_KEEPALIVE_MS, give_up)

    def cut_off(self, party: Party, ms: int, *, silently: bool = False) -> None:
        """Let a process that lives on reach nobody for `ms`.

        Args:
            party: who.
            ms: for how long.
            silently: its connections do not break at once: what is sent on them vanishes, until one of the ends loses patience.
        """
        self.world.note(party.name, "is cut off for {} ms", ms)
        until = self._cut_off[party.name] = self.world.now + ms
        if not silently:
            self.lose(party)
            return
        self._unheard[party.name] = until
        streams = self._of(party)

        def give_up() -> None:
            for stream in streams:
                if self._unheard.get(party.name, 0) >= until:
                    self.close(stream)

        self.world.after(min(ms, _KEEPALIVE_MS), give_up)

    def calm_down(self) -> None:
        """From now on everything arrives, but for what stage directions have to say."""
        if not self._is_calm:
            self._is_calm = True
            self._cut_off.clear()
            self._unheard.clear()

    def stir_up(self) -> None:
        """The weather has a say again."""
        self._is_calm = False

    def _is_cut_off(self, party: Party) -> bool:
        return self._cut_off.get(party.name, 0) > self.world.now

    def _is_unheard(self, stream: Stream) -> bool:
        now = self.world.now
        return any(self._unheard.get(end.party.name, 0) > now for end in (stream.caller, stream.called))

    def _of(self, party: Party) -> list[Stream]:
        return [stream for stream in self.streams.values() if stream.caller.party is party or stream.called.party is party]

    # -- messages ----------------------------------------------------------------------------------------------------------------
    def up(self, stream: Stream, message: Upward) -> None:
        """Send to the master."""
        fate = self._fate(stream, message, "sends")
        if stream.is_open and (fate is None or fate.what != "lose"):
            stream.last_up = self._send(stream, message, stream.last_up, fate, up=True)

    def down(self, stream: Stream, message: Downward) -> None:
        """Send to the worker."""
        fate = self._fate(stream, message, "is sent")
        if stream.is_open and (fate is None or fate.what != "lose"):
            stream.last_down = self._send(stream, message, stream.last_down, fate, up=False)

    def _fate(self, stream: Stream, message: Upward | Downward, doing: str) -> Fault | None:
        """Return what happens to a message; it may be the one at which the connection breaks."""
        if self.loses(message) or (self._unheard and self._is_unheard(stream)):
            self.world.note("network", "loses {}", message)
            return _LOST
        fate = None if self._is_calm else self._luck.meet(stream.caller.party.name, doing, self._odds)
        if fate is not None:
            self.world.note("network", "{}", fate)
            if fate.what == "break":
                self.close(stream)
        return fate

    def _send(self, stream: Stream, message: Upward | Downward, not_before: int, fate: Fault | None, *, up: bool) -> int:
        at = max(not_before, self.world.now + self._latency() + (fate.ms if fate is not None and fate.what == "delay" else 0))
        party = stream.called.party if up else stream.caller.party
        life = stream.called_life if up else stream.caller_life

        def arrive() -> None:
            self.world.note(party.name, "<- {}", message)
            if up:
                stream.called.said(stream, message)  # type: ignore[arg-type]
            else:
                stream.caller.said(stream, message)  # type: ignore[arg-type]

        self.world.after(at - self.world.now, arrive, party, life)
        if fate is not None and fate.what == "double":
            self.world.after(at + fate.ms - self.world.now, arrive, party, life)
        return at

    def _latency(self) -> int:
        return self.world.rng.randint(*self.latency_ms)
