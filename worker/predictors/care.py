"""What the processes of one stage have in common: patience, standing, a ward for suspects, length of life, who is told of their deaths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from antinfer.core.causes import Cause
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.leaks import Life
from antinfer.worker.pipeline.stagecalls import Standing
from antinfer.worker.predictors.watch import Patience


class Admits(Protocol):
    """Takes suspects over (`ward.Ward`)."""

    def admit(self, calls: list[Assembled], size_bytes: int) -> bool: ...


class Hears(Protocol):
    """Is told of every interruption of a process in a few words, with the batch that was at work."""

    def __call__(self, cause: Cause, words: str, call: Assembled | None = None) -> None: ...


def _nobody(cause: Cause, words: str, call: Assembled | None = None) -> None:
    """Nobody wants to hear it but the log."""


@dataclass(slots=True)
class Care:
    """Shared by all processes of a stage."""

    patience: Patience = field(default_factory=Patience)
    standing: Standing = field(default_factory=Standing)
    """What the user code has shown so far, in whichever process or thread."""
    keeps_batches: bool = False
    """A batch is to be run as it is when that can be: the job is to be reproducible."""
    lends: bool = False
    """Results may stay in the memory of the process that made them: nobody sees them next but another process."""
    most_batches: int | None = None
    """Batches after which a process is started afresh; None: no such end."""
    most_seconds: float | None = None
    """The same in seconds."""
    ward: Admits | None = None
    """Where suspects go; None: their own process goes on with them."""
    note: Hears = _nobody

    def life(self) -> Life:
        """Return the life of a new process."""
        return Life(self.most_batches, self.most_seconds)
