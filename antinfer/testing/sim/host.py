"""A stage host, modelled: computes rows in order, stages what is finished, hears of leases late. Mirrors `antinfer.worker.host`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from antinfer.core.ids import LeaseId, staged_name
from antinfer.core.messages import FailureKind
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.errors import AntinferError
from antinfer.testing.sim.output import Blob
from antinfer.testing.sim.world import Party, Run, Signal
from antinfer.worker import hostlink

if TYPE_CHECKING:
    from antinfer.testing.sim.worker import Worker


_PROGRESS: Final = 0.3
"""Probability that a host says after a row how far it is."""


@dataclass(eq=False, slots=True)
class Task:
    """One lease on its way."""

    lease: LeaseId
    shard: int
    start: int
    stop: int
    attempt: int
    quarantine: str
    staged: int
    """Everything before this row is staged."""
    done: int
    """Everything before this row is computed."""
    bad: set[int] = field(default_factory=set)
    is_dropped: bool = False
    is_asked_back: bool = False
    is_sized: bool = False

    @classmethod
    def of(cls, work: hostlink.Work) -> Task:
        start, stop = work.rows
        return cls(work.lease, work.shard.index, start, stop, work.attempt, work.quarantine, staged=start, done=start)


class Host(Party):
    """The stage host of one worker; each life is another process."""

    def __init__(self, worker: Worker, name: str) -> None:
        super().__init__(worker.world, name, "host")
        self._worker = worker
        self._stage = worker.stage
        self._tasks: dict[LeaseId, Task] = {}
        self._order = Signal()
        self._said_at = 0

    # -- life --------------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        self.begin()
        self._tasks, self._order = {}, Signal()
        self.world.spawn(self, self._live())

    def stop(self) -> None:
        """End, by force; nothing it has said matters any more."""
        if self.is_alive:
            self.end()
        self.life += 1

    def on_gone(self) -> None:
        worker, life = self._worker, self.life
        # Behind everything that this life has said.
        delay = max(0, self._said_at - self.world.now) + 1
        self.world.after(delay, lambda: worker.host_died() if self.life == life and not self.is_alive else None, worker)

    def order(self, message: hostlink.ToHost) -> None:
        """Take an order; it arrives a little later."""
        if self.is_alive:
            self._said_at = max(self._said_at, self.world.now)
            self.world.after(1, lambda: self._obey(message), self)

    def _live(self) -> Run[None]:
        yield self.world.rng.randint(1, 20)
        self._say(hostlink.Ready(0.1, self._stage.scenario.slots))
        while True:
            # One task after the other makes the world's choices easy to read; the session cannot tell the difference.
            task = next((each for each in self._tasks.values() if not each.is_dropped), None)
            if task is None:
                yield self._order
            else:
                yield from self._work(task)

    def _say(self, message: hostlink.FromHost) -> None:
        worker, life = self._worker, self.life
        self._said_at = max(self._said_at, self.world.now + self.world.rng.randint(0, 3))
        deliver = self._said_at - self.world.now
        self.world.after(deliver, lambda: worker.host_said(message) if self.life == life else None, worker)

    # -- orders ------------------------------------------------------------------------------------------------------------------
    def _obey(self, message: hostlink.ToHost) -> None:
        match message:
            case hostlink.Work():
                self._tasks[message.lease] = Task.of(message)
            case hostlink.Cut():
                self._cut(message)
            case hostlink.Regrant():
                task = self._tasks.pop(message.old, None)
                if task is not None:
                    task.lease, task.attempt = message.new, message.attempt
                    self._tasks[message.new] = task
            case hostlink.YieldRest():
                task = self._tasks.get(message.lease)
                if task is not None and message.keep is not None and task.stop <= self._stage.scenario.rows[task.shard]:
                    task.stop = min(task.stop, max(message.keep, task.done, task.start + 1))
                    self._say(hostlink.Kept(task.lease, task.stop))
                elif task is not None:
                    task.is_asked_back = True
                else:
                    self._say(hostlink.Released(message.lease))
            case hostlink.CommitEvery() | hostlink.HasResults():
                return
            case _:
                raise AssertionError(f"unknown order {message!r}")
        self._order.set()

    def _cut(self, cut: hostlink.Cut) -> None:
        task = self._tasks.get(cut.lease)
        if task is None:
            return
        start, stop = cut.rows
        if stop <= start:
            self._drop(task)
        elif start <= task.staged and task.done <= stop <= task.stop:
            task.stop = stop
        else:
            self._drop(task)
            self._tasks[cut.lease] = replace(task, start=start, stop=stop, staged=start, done=start, bad=set(), is_dropped=False)

    def _drop(self, task: Task) -> None:
        task.is_dropped = True
        if self._tasks.get(task.lease) is task:
            del self._tasks[task.lease]

    # -- work --------------------------------------------------------------------------------------------------------------------
    def _work(self, task: Task) -> Run[None]:
        """Do one row, or end a part."""
        scenario, size = self._stage.scenario, self._stage.scenario.rows[task.shard]
        if task.stop > size and not task.is_sized:
            task.is_sized = True
            self._say(hostlink.Sized(task.lease, size))
            task.stop = max(size, task.start)
            if task.stop == task.start:
                self._drop(task)
                return
        if not task.is_asked_back and task.done < task.stop:
            if not (yield from self._compute(task)):
                return
            if self.world.chance(_PROGRESS):
                self._say(hostlink.Progress(0, reached=tuple((each.lease, each.done) for each in self._tasks.values())))
            is_due = self.world.chance(scenario.prefix)
        else:
            is_due = True
        if task.done > task.staged and (is_due or task.done >= task.stop):
            yield from self._finish_part(task)
        if task.is_dropped:
            return
        if task.staged >= task.stop or (task.is_asked_back and task.staged >= task.done):
            if task.is_asked_back:
                self._say(hostlink.Released(task.lease))
            self._drop(task)

    def _compute(self, task: Task) -> Run[bool]:
        """Compute the next row; False when the host died of it."""
        scenario, row = self._stage.scenario, (task.shard, task.done)
        if not task.quarantine:
            yield self._stage.row_ms(self.name)
            self._stage.computed[row] += 1
            if row in scenario.poison:
                self.crash()
                yield "died of a row"
                return False
            is_bad = row in scenario.bad or (row in scenario.flaky and self._stage.computed[row] == 1)
        else:
            is_bad = True
        if task.is_dropped or task.done >= task.stop:
            return False
        if is_bad:
            task.bad.add(task.done)
        task.done += 1
        return True

    def _finish_part(self, task: Task) -> Run[None]:
        """Stage what is done, and say so."""
        lease, start, stop = task.lease, task.staged, task.done
        record = self._record(task, start, stop)
        try:
            objects = []
            for staged in record.objects:
                blob = Blob(staged.kind, record, self._rows_of(staged, record, task.bad))
                sync = self._stage.scenario.switches.syncs_staging
                objects.append((yield from self._stage.place.stage(record, blob, sync=sync)))
        except AntinferError as error:
            if not task.is_dropped:
                self._say(hostlink.Failed(task.lease, FailureKind.STORAGE, str(error)))
                self._drop(task)
            return
        yield "staged a part"
        # A lease that was dropped while its part was under way is reported all the same: both orders of these two happen.
        if not task.is_dropped or self.world.chance(0.5):
            task.staged = stop
            task.bad -= set(range(start, stop))
            self._say(hostlink.Staged(lease, replace(record, objects=tuple(objects))))

    def _record(self, task: Task, start: int, stop: int) -> CommitRecord:
        good = [offset for offset in range(start, stop) if offset not in task.bad]
        bad = stop - start - len(good)
        kinds = [StagedObject("record")] if not good or self._stage.scenario.suffix != "parquet" else []
        kinds += [StagedObject("quarantine")] if bad else []
        kinds += [StagedObject("part")] if good else []
        return CommitRecord(
            shard=task.shard,
            start=start,
            stop=stop,
            staged=staged_name(task.lease, task.shard, start, stop, f"{self.world.rng.getrandbits(24):06x}"),
            objects=tuple(kinds),
            rows_out=sum(self._stage.scenario.outputs(task.shard, offset) for offset in good),
            rows_quarantined=bad,
            attempt=task.attempt,
            worker=self._worker.session.worker,
            schema="columns" if good else "",
            accumulators=json.dumps(good),
        )

    @staticmethod
    def _rows_of(staged: StagedObject, record: CommitRecord, bad: set[int]) -> frozenset[int]:
        offsets = Rows(record.start, record.stop)
        if staged.kind == "record":
            return frozenset()
        return frozenset(offset for offset in range(*offsets) if (offset in bad) == (staged.kind == "quarantine"))
