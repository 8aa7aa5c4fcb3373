"""The stage host of one of thousands of workers: computes its leases one after the other at its own speed, without an event a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from antinfer.core.ids import LeaseId, staged_name
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.testing.sim.fleet.books import Books
from antinfer.testing.sim.fleet.clock import Clock
from antinfer.testing.sim.fleet.conditions import Conditions
from antinfer.worker import hostlink

_PART = (StagedObject("part"),)
_BOTH = (StagedObject("quarantine"), StagedObject("part"))
_NONE = (StagedObject("record"), StagedObject("quarantine"))


@dataclass(eq=False, slots=True)
class Task:
    """One lease on its way."""

    lease: LeaseId
    shard: int
    stop: int
    attempt: int
    is_given_up: bool
    staged: int
    """Everything before this row is staged."""
    done: int
    """Everything before this row was computed when the clock was last looked at."""


class Host:
    """Computes what it is ordered to; each life is another process."""

    def __init__(
        self, clock: Clock, conditions: Conditions, books: Books, ms_per_row: Callable[[int], float], nonce: Callable[[], str]
    ) -> None:
        """
        Args:
            clock: virtual time.
            conditions: of the job.
            books: the output place.
            ms_per_row: shard -> time that one row takes here.
            nonce: makes names private.
        """
        self._clock = clock
        self._conditions = conditions
        self._books = books
        self._ms_per_row = ms_per_row
        self._nonce = nonce
        self.say: Callable[[hostlink.FromHost], None] = lambda message: None
        self.die: Callable[[], None] = lambda: None
        """Called when a row has killed the process."""
        self.worker = ""
        self.rows_computed = 0
        """Over all lives, whatever became of them."""
        self.life = 0
        self.is_ready = False
        self.frozen_until = 0
        self._tasks: dict[LeaseId, Task] = {}
        self._since = 0.0
        """When the first task was last brought up to date."""
        self._committed_at = 0
        self._commit_ms = int((conditions.commit_every or 0) * 1000)
        self._plan = 0
        """Counts what was planned; a wake-up of an older plan does nothing."""

    # -- life --------------------------------------------------------------------------------------------------------------------
    def start(self, setup_ms: int) -> None:
        self.stop()
        self._clock.after(setup_ms, self._begin, self.life)

    def stop(self) -> None:
        """End; what was computed and not staged is lost."""
        self._advance()
        self.life += 1
        self.is_ready = False
        self._tasks = {}
        self._plan += 1

    def freeze(self, ms: int) -> None:
        """Stop computing for a while, though the process lives."""
        self._advance()
        self.frozen_until = self._clock.now + ms
        self._replan()

    def _begin(self, life: int) -> None:
        if life == self.life:
            self.is_ready = True
            self._since = self._committed_at = self._clock.now
            self._say(hostlink.Ready(self._conditions.setup, self._conditions.slots))

    def _say(self, message: hostlink.FromHost) -> None:
        self._clock.after(1, self._deliver, (self.life, message))

    def _deliver(self, said: tuple[int, hostlink.FromHost]) -> None:
        life, message = said
        if life == self.life:
            self.say(message)

    # -- orders ------------------------------------------------------------------------------------------------------------------
    def order(self, message: hostlink.ToHost) -> None:
        if not self.is_ready or isinstance(message, hostlink.HasResults):
            return
        self._advance()
        match message:
            case hostlink.Work():
                start, stop = message.rows
                if not self._tasks:
                    self._since = self._committed_at = self._clock.now
                task = Task(message.lease, message.shard.index, stop, message.attempt, bool(message.quarantine), start, start)
                self._tasks[message.lease] = task
            case hostlink.Cut():
                self._cut(message)
            case hostlink.Regrant():
                self._regrant(message)
            case hostlink.YieldRest():
                self._yield(message)
            case hostlink.CommitEvery():
                if self._conditions.commit_every is None:
                    self._commit_ms = message.ms
            case _:
                raise AssertionError(f"unknown order {message!r}")
        self._replan()

    def _cut(self, cut: hostlink.Cut) -> None:
        task = self._tasks.get(cut.lease)
        if task is None:
            return
        start, stop = cut.rows
        if stop <= start:
            del self._tasks[cut.lease]
        elif start <= task.staged and task.done <= stop <= task.stop:
            task.stop = stop
        else:
            task.staged = task.done = start
            task.stop = stop

    def _regrant(self, order: hostlink.Regrant) -> None:
        renamed = {}
        for lease, task in self._tasks.items():
            if lease == order.old:
                task.lease, task.attempt = order.new, order.attempt
            renamed[task.lease] = task
        self._tasks = renamed

    def _yield(self, order: hostlink.YieldRest) -> None:
        task = self._tasks.get(order.lease)
        if task is not None and order.keep is not None:
            task.stop = min(task.stop, max(order.keep, task.done, task.staged + 1))
            self._say(hostlink.Kept(task.lease, task.stop))
            return
        if task is not None:
            del self._tasks[order.lease]
            if task.done > task.staged:
                self._stage(task, task.done)
        self._say(hostlink.Released(order.lease))

    def progress(self) -> hostlink.Progress:
        """Return how far each lease is."""
        self._advance()
        return hostlink.Progress(self.rows_computed, reached=tuple((task.lease, task.done) for task in self._tasks.values()))

    # -- work --------------------------------------------------------------------------------------------------------------------
    @property
    def _first(self) -> Task | None:
        return next(iter(self._tasks.values()), None)

    def _advance(self) -> None:
        """Count the rows that the first task has got through since we last looked, in whole batches."""
        task, now = self._first, self._clock.now
        if task is None or now <= self._since:
            return
        if now < self.frozen_until:
            self._since = now
            return
        begin = max(self._since, self.frozen_until)
        rows, each = task.stop - task.done, self._ms_per_row(task.shard)
        if not task.is_given_up:
            batch = self._conditions.batch
            whole = int((now - begin) / each + 1e-6)
            rows = rows if whole >= rows else whole // batch * batch
            poison = self._books.first_poison(task.shard, task.done, task.done + rows)
            if poison is not None:
                rows = poison - task.done
        task.done += rows
        self.rows_computed += rows
        self._since = begin + rows * each if task.done < task.stop else now

    def _replan(self) -> None:
        """Plan the next time at which this host has something to say."""
        self._plan += 1
        task = self._first
        if task is None:
            return
        begin = max(self._since, self.frozen_until)
        if task.is_given_up:
            at = begin
        else:
            each = self._ms_per_row(task.shard)
            at = self._death(task) or begin + (task.stop - task.done) * each
            if self._commit_ms:
                at = min(at, max(begin + self._conditions.batch * each, self._committed_at + self._commit_ms))
        self._clock.after(max(1, int(at + 0.999) - self._clock.now), self._wake, (self.life, self._plan))

    def _death(self, task: Task) -> float | None:
        """Return when a row of this task will have killed the process, None when none will."""
        poison = None if task.is_given_up else self._books.first_poison(task.shard, task.done, task.stop)
        if poison is None:
            return None
        return max(self._since, self.frozen_until) + (poison + 1 - task.done) * self._ms_per_row(task.shard)

    def _wake(self, planned: tuple[int, int]) -> None:
        if planned != (self.life, self._plan):
            return
        task = self._first
        assert task is not None
        if not task.is_given_up:
            poison = self._books.first_poison(task.shard, task.done, task.stop)
            died_at = (
                None if poison is None else max(self._since, self.frozen_until) + (poison + 1 - task.done) * self._ms_per_row(task.shard)
            )
            if died_at is not None and self._clock.now >= died_at:
                self._advance()
                self.stop()
                self.die()
                return
        self._advance()
        if task.done > task.staged:
            self._stage(task, task.done)
        if task.done >= task.stop:
            self._tasks.pop(task.lease, None)
        self._committed_at = self._clock.now
        self._replan()

    def _stage(self, task: Task, stop: int) -> None:
        start, shard = task.staged, task.shard
        bad, good_sum, bad_sum = self._books.sums(shard, start, stop, is_given_up=task.is_given_up)
        rows = stop - start
        record = CommitRecord(
            shard=shard,
            start=start,
            stop=stop,
            staged=staged_name(task.lease, shard, start, stop, self._nonce()),
            objects=_PART if not bad else _BOTH if bad < rows else _NONE,
            rows_out=(rows - bad) * self._conditions.fan_out,
            rows_quarantined=bad,
            attempt=task.attempt,
            worker=self.worker,
            schema="columns" if bad < rows else "",
            accumulators=f"{good_sum} {bad_sum}",
            seconds=rows * self._ms_per_row(shard) / 1000,
        )
        task.staged = stop
        self._books.stage(record)
        self._say(hostlink.Staged(task.lease, record))
