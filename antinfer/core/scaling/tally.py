"""The workers of one moment, sorted by what counts for how many there should be."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from antinfer.core.causes import Cause
from antinfer.core.scaling.values import CLASSES, WorkerSeen, WorkerState

_COUNT = (WorkerState.PENDING, WorkerState.STARTING, WorkerState.READY)


@dataclass(slots=True)
class ClassTally:
    """The workers of one class."""

    pending: list[WorkerSeen] = field(default_factory=list)
    """Those that were asked for and are not seen yet among them."""
    starting: list[WorkerSeen] = field(default_factory=list)
    ready: list[WorkerSeen] = field(default_factory=list)
    leaving: list[WorkerSeen] = field(default_factory=list)
    lost: list[WorkerSeen] = field(default_factory=list)
    ended: list[WorkerSeen] = field(default_factory=list)

    @property
    def active(self) -> int:
        """Workers that count: they work, or are about to."""
        return len(self.pending) + len(self.starting) + len(self.ready)

    @property
    def placed(self) -> int:
        """Of these, the ones that have a node."""
        return len(self.starting) + len(self.ready)


class Tally:
    """All workers, sorted once."""

    def __init__(self, workers: Iterable[WorkerSeen], asked: Iterable[WorkerSeen], told: Container[str]) -> None:
        """
        Args:
            workers: those that are seen.
            asked: those that were asked for and are not seen yet.
            told: names of workers that were told to leave, which may not show yet.
        """
        self.by_class: Mapping[str, ClassTally] = {name: ClassTally() for name in CLASSES}
        for worker in (*workers, *asked):
            lists = self.by_class[worker.worker_class]
            state = worker.state
            if state in _COUNT and worker.name in told:
                state = WorkerState.LEAVING
            match state:
                case WorkerState.READY:
                    lists.ready.append(worker)
                case WorkerState.STARTING:
                    lists.starting.append(worker)
                case WorkerState.PENDING:
                    lists.pending.append(worker)
                case WorkerState.LEAVING:
                    lists.leaving.append(worker)
                case WorkerState.LOST:
                    lists.lost.append(worker)
                case WorkerState.ENDED:
                    lists.ended.append(worker)

    @property
    def active(self) -> int:
        """Workers that count against the most there may be."""
        return sum(each.active for each in self.by_class.values())

    @property
    def placed(self) -> int:
        """Of these, the ones that have a node."""
        return sum(each.placed for each in self.by_class.values())

    def all(self, kind: str) -> list[WorkerSeen]:
        """Return the workers of all classes in the list named `kind`."""
        return [worker for each in self.by_class.values() for worker in getattr(each, kind)]

    def waiting(self) -> list[WorkerSeen]:
        """Return the workers that there is no place for."""
        return [worker for worker in self.all("pending") if worker.obstacle is not None and worker.obstacle.cause is Cause.NO_CAPACITY]
