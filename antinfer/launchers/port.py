"""What a controller needs of whatever starts workers. Nothing in it waits: what became of an order shows in what is observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from antinfer.core.scaling.facts import PodFacts
from antinfer.core.scaling.values import Obstacle
from antinfer.core.values import value


@value
class WorkerOrder:
    """A worker that is to be started. Its name is used once: one that is there already under it is this one."""

    name: str
    worker_class: str
    memory_bytes: int = 0
    """Limit; 0: as its template says."""
    avoid: tuple[str, ...] = ()
    """Nodes that it should not be placed on."""


@value
class Sight:
    """All that a launcher sees at one moment."""

    pods: tuple[PodFacts, ...] = ()
    """What the master alone knows of them (`has_session`, `was_ready`, `was_asked`) is left out."""
    refused: Mapping[str, Obstacle] = field(default_factory=dict)
    """Workers that could not be asked for since the last look, by name."""
    denied: str = ""
    """Why nothing can be seen, where that cannot mend by itself, such as a right that is missing; what was seen before stays in `pods`."""
    give_back: int = 0
    """So many workers are wanted back, as the object of the job says to whoever looks."""


class Launcher(Protocol):
    """Starts workers and sees what becomes of them. May be called by one thread; calls return at once."""

    def open(self, on_change: Callable[[], None]) -> None:
        """Begin to look. `on_change` is called by any thread when there is something new to see."""

    def start(self, workers: Sequence[WorkerOrder]) -> None:
        """Start workers, side by side."""

    def stop(self, name: str, *, drain: bool) -> None:
        """Remove a worker. One that runs is told by a signal, and has its whole grace period if it may `drain`, else a second."""

    def observe(self) -> Sight | None:
        """Return what is seen now; None as long as nothing has been."""

    def close(self) -> None:
        """Carry out what was asked for, then look no more. Workers stay as they are. May take some seconds."""
