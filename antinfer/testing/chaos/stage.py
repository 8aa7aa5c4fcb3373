"""Where faults are played: on processes of this machine, or on pods of a cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from antinfer.errors import AntinferError
from antinfer.rpc.values import Status
from antinfer.spec.schema import JobSpec
from antinfer.testing.chaos.hits import Armed, Hit
from antinfer.testing.chaos.plan import FaultPlan, Launcher
from antinfer.testing.chaos.points import Proof
from antinfer.testing.chaos.schedule import Strike
from antinfer.testing.chaos.watching import Sample


class Life(NamedTuple):
    """A worker or a master, and when it was there (monotonic seconds)."""

    name: str
    started_at: float
    ended_at: float | None


class Stage(Protocol):
    """One run of one job: master, workers, and what befalls them. Whoever goes missing is replaced."""

    surprises: list[str]
    """What no fault explains: somebody who died by itself, or outlived its parent."""
    failure: AntinferError | None
    """What the job was given up with."""

    @property
    def patience_s(self) -> float:
        """Time in which somebody must turn up whom a fault can meet."""
        ...

    def start(self) -> None:
        """Start everything; need not wait until it works."""
        ...

    def tend(self) -> bool:
        """Do what is due and look after everybody; return whether the job is over. Is called again and again."""
        ...

    def ask(self) -> Status | None:
        """Return what the master says that rules; None: nobody answers. Is called from a thread of its own, as `published` is."""
        ...

    def published(self) -> int:
        """Return the number of input rows whose results have their final names."""
        ...

    def strike(self, what: Strike, now: Sample) -> Hit | Armed | None:
        """Let a fault happen; None when there is nobody now whom it could meet."""
        ...

    def proofs(self) -> list[Proof]:
        """Return what has fired at fault points so far."""
        ...

    def end(self) -> list[str]:
        """Wait until everybody has left who should by now; return who is there still."""
        ...

    def lives(self) -> list[Life]:
        """Return everybody who was ever there."""
        ...

    def last_words(self) -> str:
        """Return what everybody said last, for people."""
        ...

    def bugs(self) -> list[str]:
        """Return what somebody said that only a bug of ours makes one say."""
        ...

    def close(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        ...


class Venue(Protocol):
    """Makes the stages of a session, one for each of its runs, and knows where these write to."""

    launcher: Launcher

    def check(self, plan: FaultPlan) -> None:
        """Raise `UsageError` when the plan cannot be played here, or the session cannot begin."""
        ...

    def prepare(self, run: str, plan: FaultPlan, rows_per_second: float) -> JobSpec:
        """Return the job as it is run here under the name `run`, at this pace of one worker."""
        ...

    def stage(self, run: str, spec: JobSpec, plan: FaultPlan, rows: int) -> AbstractContextManager[Stage]:
        """Give a stage that is not started for the time of the block; nothing of it is left afterwards."""
        ...

    def rows_computed(self, run: str, rows: int) -> int | None:
        """Return how many rows came through the first step in a run over so many, again and again too; None: that is not known."""
        ...

    def remove_outputs(self) -> None:
        """Remove what the runs have written, but for logs."""
        ...
