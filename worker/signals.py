"""What a worker's session is told and what it wants done: the inputs and outputs of `antinfer.worker.session.Session.step`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from antinfer.core.causes import Cause
from antinfer.core.ids import ShardId
from antinfer.core.messages import Downward, Upward
from antinfer.core.plan import Shard
from antinfer.worker import hostlink


@dataclass(frozen=True, slots=True)
class Connected:
    """A stream to a master is open. All events carry their time in ms on the worker's monotonic clock."""

    at: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream broke, or could not be opened."""

    at: int


@dataclass(frozen=True, slots=True)
class Received:
    """The master said something on the present stream."""

    at: int
    message: Downward
    shards: Mapping[ShardId, Shard] = field(default_factory=dict)
    """The shards of the grants in `message`."""


@dataclass(frozen=True, slots=True)
class HostSaid:
    """The present stage host said something."""

    at: int
    message: hostlink.FromHost


@dataclass(frozen=True, slots=True)
class HostDied:
    """The present stage host is gone, and everything it said has been delivered."""

    at: int
    detail: str
    """How it ended, for people."""
    cause: Cause = Cause.HOST_DIED


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """Somebody wants this worker to stop without losing what it has finished."""

    at: int
    reason: str
    cause: Cause = Cause.DRAINED


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed; due at `Session.wake_at`."""

    at: int


Event = Connected | Disconnected | Received | HostSaid | HostDied | DrainAsked | Ticked


@dataclass(frozen=True, slots=True)
class SendUp:
    """Send on the present stream; lost with it."""

    message: Upward


@dataclass(frozen=True, slots=True)
class ToHost:
    """Send to the present stage host; lost with it."""

    message: hostlink.ToHost


@dataclass(frozen=True, slots=True)
class StartHost:
    """Start a stage host after a pause; whatever it says ends with `HostDied`."""

    after_ms: int


@dataclass(frozen=True, slots=True)
class StopHost:
    """Stop the stage host, by force if it must be; nothing it says matters any more."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Drop the present stream, pause, try the next master address; ends in `Connected` or `Disconnected`."""

    after_ms: int


@dataclass(frozen=True, slots=True)
class Exit:
    """The worker is finished; the last action ever."""

    code: int
    reason: str


Action = SendUp | ToHost | StartHost | StopHost | Connect | Exit
