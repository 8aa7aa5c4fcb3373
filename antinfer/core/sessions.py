"""Sessions: which workers are members of the job, and until when silence is forgiven."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from antinfer.core import guards
from antinfer.core.causes import Cause
from antinfer.core.events import StreamId
from antinfer.core.ids import LeaseId, SessionId, ShardId, WorkerId
from antinfer.core.paces import Pace

_SETTLING_MS: Final = 500
"""Time in which a worker that has found a new master tells of all that it has done meanwhile, in several requests."""
_MEAN_MS: Final = 1_000
"""How long a mean over all workers is good for."""


@dataclass(slots=True)
class Session:
    """One membership of a worker."""

    id: SessionId
    worker: WorkerId
    last_request: int = 0
    """Highest request number that was applied."""
    leases: set[LeaseId] = field(default_factory=set)
    stream: StreamId | None = None
    """Where the worker can be reached now; None while it is not connected."""
    deadline: int = 0
    """Time (ms) at which silence ends the session."""
    draining: bool = False
    drain_cause: Cause = Cause.DRAINED
    """Why, as far as the master knows; a later one does not."""
    is_ready: bool = False
    """Its pipeline is set up: it has asked for work."""
    has_committed: bool = False
    rests_until: int = 0
    """Time (ms) before which it gets no work, because it keeps being lost."""
    pace: Pace = field(default_factory=Pace)
    moved_at: int | None = None
    """Last time (ms) at which it computed a row; None: not since this master knows it."""
    settles_until: int | None = 0
    """Time (ms) up to which what it tells of may have been computed before this master was there; None: it has told of nothing yet."""
    near: tuple[ShardId, int] | None = None
    """Shard and row where its last lease ended: what it can read on most cheaply."""

    def is_settling(self, at: int) -> bool:
        """Tell whether what it tells of at `at` (ms) may be old."""
        return self.settles_until is None or at < self.settles_until


class Sessions:
    """The table of sessions, by id, worker and stream."""

    def __init__(self, ttl_ms: int, grace_ms: int) -> None:
        self._ttl_ms = ttl_ms
        self._grace_ms = grace_ms
        self._by_id: dict[SessionId, Session] = {}
        self._by_worker: dict[WorkerId, Session] = {}
        self._by_stream: dict[StreamId, Session] = {}
        self._seen_at: int | None = None
        self._mean_rate = 0.0
        self._mean_at = 0
        self.awake_since = 0
        """Time (ms) since which the master has been awake: silence before says nothing."""

    def add(self, session: Session, now: int) -> None:
        self._by_id[session.id] = session
        self._by_worker[session.worker] = session
        session.deadline = now + self._ttl_ms

    def remove(self, session: Session) -> None:
        del self._by_id[session.id]
        del self._by_worker[session.worker]
        if session.stream is not None:
            self._by_stream.pop(session.stream, None)

    def get(self, session: SessionId) -> Session | None:
        return self._by_id.get(session)

    def of_worker(self, worker: WorkerId) -> Session | None:
        return self._by_worker.get(worker)

    def of_stream(self, stream: StreamId) -> Session | None:
        return self._by_stream.get(stream)

    def hear(self, session: Session, stream: StreamId, now: int) -> None:
        """The worker gave a sign of life on `stream`."""
        if session.settles_until is None:
            session.settles_until = now + _SETTLING_MS
        if session.stream != stream:
            if session.stream is not None:
                self._by_stream.pop(session.stream, None)
            session.stream = stream
            self._by_stream[stream] = session
        session.deadline = now + self._ttl_ms

    def lose_stream(self, stream: StreamId, now: int) -> None:
        """A broken stream leaves its worker only the grace period to come back."""
        session = self._by_stream.pop(stream, None)
        if session is not None:
            session.stream = None
            session.deadline = min(session.deadline, now + self._grace_ms)

    def observe(self, now: int) -> None:
        """Note that the master is awake; after a long gap every session gets a fresh time to live (rule 16)."""
        if now == self._seen_at:
            return
        if self._seen_at is not None and guards.clock_jumped(now - self._seen_at, self._ttl_ms):
            self.awake_since = now
            for session in self._by_id.values():
                session.deadline = now + self._ttl_ms
        self._seen_at = now

    def mean_rate(self) -> float:
        """Return the mean speed (rows per ms) of the workers whose speed is known, as of the last second; 0 while none is."""
        now = self._seen_at or 0
        if not self._mean_rate or now - self._mean_at >= _MEAN_MS:
            rates = [session.pace.rate for session in self._by_id.values() if session.pace.rate]
            self._mean_rate, self._mean_at = sum(rates) / max(1, len(rates)), now
        return self._mean_rate

    def has_others(self, session: Session) -> bool:
        """Tell whether anybody else is there to take work over."""
        return any(other is not session and other.stream is not None and not other.draining for other in self._by_id.values())

    def expired(self, now: int) -> list[Session]:
        return [session for session in self._by_id.values() if session.deadline <= now]

    def __iter__(self) -> Iterator[Session]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)
