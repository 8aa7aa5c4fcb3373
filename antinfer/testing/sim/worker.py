"""A worker process, modelled around the real session: mirrors `antinfer.worker.agent`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from antinfer.core.ids import WorkerId, lease_of
from antinfer.core.messages import NO_ROWS, Acceptance, Answer, CommitOutcome, Downward, Grant
from antinfer.core.records import CommitRecord
from antinfer.testing.sim.host import Host
from antinfer.testing.sim.network import Stream
from antinfer.testing.sim.world import Party, Run
from antinfer.worker import hostlink
from antinfer.worker.holdings import Holdings
from antinfer.worker.leases import HeldLease
from antinfer.worker.session import Session
from antinfer.worker.signals import (
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

if TYPE_CHECKING:
    from antinfer.testing.sim.scenario import Switches
    from antinfer.testing.sim.stage import Stage


@dataclass(frozen=True, slots=True)
class DeleteStaged:
    """What a worker that breaks rule 1 does: remove "its garbage" from staging."""

    staged: str


class ForgetfulSession(Session):
    """Drops a request that is not answered when the stream breaks, and goes on: not what the real one does, but rule 10 allows for it."""

    def step(self, event: Event) -> list[Any]:
        if isinstance(event, Disconnected) and self._id:
            self._unanswered = None
        return super().step(event)


class CarelessHoldings(Holdings):
    """Holds leases as no real worker does, but as the master's half of rules 1 and 13 allows for."""

    def __init__(self, switches: Switches) -> None:
        """
        Args:
            switches: `spares_refused` and `forgets_former` say what it is careless about.
        """
        super().__init__()
        self._switches = switches

    def settle(self, outcome: CommitOutcome) -> None:
        lease = self.find(lease_of(outcome.staged))
        if lease is None:
            return
        if outcome.acceptance is Acceptance.REFUSED and not self._switches.spares_refused:
            self._actions.append(DeleteStaged(outcome.staged))
        if lease.id == lease_of(outcome.staged):
            super().settle(outcome)
        elif outcome.acceptance is Acceptance.ACCEPTED:
            lease.accept(outcome.staged)
            self.shrink(lease, outcome.left or NO_ROWS)
        else:
            self._refuse(lease, outcome)

    def _carry_over(self, lease: HeldLease, grant: Grant) -> None:
        kept: list[CommitRecord] = []
        if not self._switches.forgets_former:
            kept, lease.staged = lease.staged, []
        super()._carry_over(lease, grant)
        lease.staged = kept


class Worker(Party):
    """One slot for worker processes; each life is another process."""

    def __init__(self, stage: Stage, name: str) -> None:
        super().__init__(stage.world, name, "worker")
        self.stage = stage
        self.host = Host(self, f"{name}.host")
        self.session = Session(WorkerId(name))
        self.exit: Exit | None = None
        self._stream: Stream | None = None
        self._dials = int(name.removeprefix("w"))
        """Which of the masters' addresses is next; not the same one for everybody."""

    @property
    def party(self) -> Party:
        return self

    # -- life --------------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start a process in this slot."""
        self.begin()
        scenario = self.stage.scenario
        name = self.name if scenario.keeps_worker_names else f"{self.name}.{self.life}"
        kind = Session if scenario.switches.repeats_requests else ForgetfulSession
        self.session = kind(WorkerId(name), self.stage.job, scenario.session)
        if not (scenario.switches.spares_refused and scenario.switches.forgets_former):
            self.session._holdings = CarelessHoldings(scenario.switches)
        self.exit, self._stream = None, None
        self.world.note(self.name, "starts as {}", name)
        self._perform(self.session.start())
        self._arm()

    def drain(self) -> None:
        """Ask it to stop, as by SIGTERM."""
        self.world.note(self.name, "is asked to drain")
        self.world.after(0, lambda: self._step(DrainAsked(self._now, "asked")), self)

    def on_gone(self) -> None:
        self._stream = None
        self.stage.network.lose(self)
        self.host.stop()
        self.stage.on_worker_gone(self)

    def on_paused(self) -> None:
        self.stage.network.freeze(self)
        if self.host.is_awake:
            self.host.pause()

    def resume(self) -> None:
        super().resume()
        self.host.resume()

    @property
    def _now(self) -> int:
        """Time on this process's own clock."""
        return self.world.now + 7_000_000 * self.life

    # -- the network's view ------------------------------------------------------------------------------------------------------
    def opened(self, stream: Stream) -> None:
        if not stream.is_open:
            self._step(Disconnected(self._now))
            return
        self._stream = stream
        self._step(Connected(self._now))

    def said(self, stream: Stream, message: Downward) -> None:
        if stream is not self._stream:
            return
        if isinstance(message, Answer):
            for outcome in message.outcomes:
                if outcome.acceptance is Acceptance.ACCEPTED:
                    self.stage.on_acknowledged(outcome.staged)
        self._step(Received(self._now, message, stream.called.shards))

    def closed(self, stream: Stream | None) -> None:
        if stream is self._stream:
            self._stream = None
            self._step(Disconnected(self._now))

    # -- the host's view ---------------------------------------------------------------------------------------------------------
    def host_said(self, message: hostlink.FromHost) -> None:
        self.world.note(self.name, "host: {}", message)
        self._step(HostSaid(self._now, message))

    def host_died(self) -> None:
        self._step(HostDied(self._now, "exit status -9"))

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _step(self, event: Event) -> None:
        if not self.is_alive:
            return
        try:
            actions = self.session.step(event)
        except Exception as error:  # noqa: BLE001 - the finding of the search
            self.world.blame("error", f"{self.name}: {type(error).__name__}: {error} at {event}")
            self.crash()
            return
        self._perform(actions)
        if self.is_alive:
            self._arm()
            self.world.reached(self, "stepped")

    def _arm(self) -> None:
        wake_at, life = self.session.wake_at, self.life
        if wake_at is None:
            return

        def wake() -> None:
            # Only the timer that is still the session's own may fire; an older one was overtaken by an event.
            if self.life == life and self.session.wake_at == wake_at:
                self._step(Ticked(self._now))

        self.world.after(max(0, wake_at - self._now), wake, self)

    def _perform(self, actions: list[Any]) -> None:
        for action in actions:
            match action:
                case SendUp():
                    if self._stream is not None:
                        self.stage.network.up(self._stream, action.message)
                case ToHost():
                    self.host.order(action.message)
                case StartHost():
                    self.world.after(action.after_ms, self.host.start, self)
                case StopHost():
                    self.host.stop()
                case Connect():
                    self._dial(action.after_ms)
                case DeleteStaged():
                    self.world.spawn(self, self._delete(action.staged))
                case Exit():
                    self.exit = action
                    self.world.note(self.name, "exits {}: {}", action.code, action.reason)
                    self.end()
                    self.on_gone()
                case _:
                    raise AssertionError(f"unknown action {action!r}")

    def _dial(self, pause_ms: int) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self.stage.network.close(stream)
        self._dials += 1
        called = self.stage.address(self._dials)
        pause = int(pause_ms * self.world.rng.uniform(0.5, 1.5))
        self.world.after(pause, lambda: self.stage.network.dial(self, called), self)

    def _delete(self, staged: str) -> Run[None]:
        yield "is about to delete a staged object"
        self.stage.place.collect(staged)
        yield "deleted a staged object"
