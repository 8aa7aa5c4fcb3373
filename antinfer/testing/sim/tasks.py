"""Leases in a simulated stage host: how far each one is, and what orders do to it. Mirrors `antinfer.worker.host.leases` and `runs`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from antinfer.core.ids import LeaseId
from antinfer.core.plan import Retry
from antinfer.core.ranges import UNSIZED
from antinfer.worker import hostlink


@dataclass(eq=False, slots=True)
class Task:
    """One lease on its way."""

    lease: LeaseId
    shard: int
    start: int
    stop: int
    attempt: int
    quarantine: str
    alone: bool
    retry: Retry | None
    staged: int
    """Everything before this row is staged."""
    done: int
    """Everything before this row is computed."""
    bad: set[int] = field(default_factory=set)
    is_begun: bool = False
    """A batch was filled from it."""
    is_dropped: bool = False
    is_asked_back: bool = False
    is_sized: bool = False
    part_since: int | None = None
    """When the first row that is not staged was computed; None when there is none."""
    failure: hostlink.Failed | None = None
    """Why the rest cannot be done here: said when the finished prefix is staged."""

    @classmethod
    def of(cls, work: hostlink.Work) -> Task:
        start, stop = work.rows
        shard = work.shard
        return cls(work.lease, shard.index, start, stop, work.attempt, work.quarantine, work.alone, shard.retry, staged=start, done=start)

    def again(self, start: int, stop: int) -> Task:
        """Return the same lease with other rows, as if it had just come."""
        fresh = replace(self, start=start, stop=stop, staged=start, done=start, bad=set(), part_since=None, failure=None)
        fresh.is_begun = fresh.is_dropped = False
        return fresh

    @property
    def is_idle(self) -> bool:
        """Nothing more of it is to be computed: what is done must be staged, and the last word said."""
        return self.is_asked_back or self.failure is not None or self.done >= self.stop

    def takes(self, offset: int) -> bool:
        """Tell whether a row is to be computed: in a retry round only those that it takes."""
        return self.retry is None or any(start <= offset < stop for start, stop in self.retry.rows())


class Tasks:
    """The leases that a host works on, in the order they came."""

    def __init__(self, say: Callable[[hostlink.FromHost], None]) -> None:
        self._say = say
        self._by_lease: dict[LeaseId, Task] = {}

    def __iter__(self) -> Iterator[Task]:
        return iter(self._by_lease.values())

    def __bool__(self) -> bool:
        return bool(self._by_lease)

    def line(self, batch: int) -> list[Task]:
        """Return the leases that batches of so many rows are filled from."""
        tasks = list(self)
        if batch > 1:
            return tasks
        # Whoever does one row at a time does one lease after the other; what may not begin waits for one that has, wherever it stands.
        return [next(task for task in tasks if self.may_begin(task))]

    def may_begin(self, task: Task) -> bool:
        """Tell whether rows of `task` may be in a batch: what is to be computed alone waits for all others, and they for it."""
        return task.is_begun or not any(other.is_begun and (task.alone or other.alone) for other in self)

    def drop(self, task: Task) -> None:
        task.is_dropped = True
        if self._by_lease.get(task.lease) is task:
            del self._by_lease[task.lease]

    # -- orders ------------------------------------------------------------------------------------------------------------------
    def start(self, work: hostlink.Work) -> None:
        self._by_lease[work.lease] = Task.of(work)

    def cut(self, cut: hostlink.Cut) -> None:
        task = self._by_lease.get(cut.lease)
        if task is None:
            return
        start, stop = cut.rows
        if stop <= start:
            self.drop(task)
        elif start <= task.staged and task.done <= stop <= task.stop:
            task.stop = stop
        else:
            self.drop(task)
            self._by_lease[cut.lease] = task.again(start, stop)

    def rename(self, order: hostlink.Regrant) -> None:
        task = self._by_lease.pop(order.old, None)
        if task is not None:
            task.lease, task.attempt = order.new, order.attempt
            self._by_lease[order.new] = task

    def yield_rest(self, order: hostlink.YieldRest) -> None:
        task = self._by_lease.get(order.lease)
        if task is None:
            self._say(hostlink.Released(order.lease))
        elif order.keep is not None and task.stop != UNSIZED:
            if task.failure is None and not task.is_asked_back:
                task.stop = min(task.stop, max(order.keep, task.done, task.start + 1))
                self._say(hostlink.Kept(task.lease, task.stop))
        else:
            task.is_asked_back = True
