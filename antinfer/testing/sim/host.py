"""A stage host, modelled: fills batches from its leases, stages what is finished, hears of leases late. Mirrors `antinfer.worker.host`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from antinfer.core.causes import Cause
from antinfer.core.ids import staged_name
from antinfer.core.messages import FailureKind
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.errors import AntinferError, OutputError
from antinfer.testing.sim.output import Blob
from antinfer.testing.sim.tasks import Task, Tasks
from antinfer.testing.sim.world import Party, Run, Signal
from antinfer.worker import hostlink

if TYPE_CHECKING:
    from antinfer.testing.sim.worker import Worker

NO_MODULE: Final = "No module named 'nets'"
"""What a host says whose pipeline cannot be set up."""
WRONG_CODE: Final = "the code fails on whatever it is given"
"""What a host says of a row after which no other one can be tried."""

_PROGRESS: Final = 0.3
"""Probability that a host says after a batch how far it is."""
Batch = list[tuple[Task, int]]
"""Rows that are computed together, by lease and offset."""


class Host(Party):
    """The stage host of one worker; each life is another process."""

    def __init__(self, worker: Worker, name: str) -> None:
        super().__init__(worker.world, name, "host")
        self._worker = worker
        self._stage = worker.stage
        self._tasks = Tasks(self._say)
        self._order = Signal()
        self._said_at = 0
        self._commit_ms: int | None = None

    # -- life --------------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        self.begin()
        self._tasks, self._order, self._commit_ms = Tasks(self._say), Signal(), None
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
        if (failure := self._stage.start_failure(self._worker.name)) is not None:
            self._say(failure)
            return
        self._say(hostlink.Ready(0.1, self._stage.scenario.slots))
        while True:
            if not self._tasks:
                yield self._order
            elif self._stage.breaks(self.name):
                self._say(hostlink.Failed(None, FailureKind.STORAGE, "the pipeline fell apart", cause=Cause.HOST_DIED))
                return
            else:
                # One step after the other makes the world's choices easy to read; the session cannot tell the difference.
                yield from self._turn()

    def _say(self, message: hostlink.FromHost) -> None:
        worker, life = self._worker, self.life
        self._said_at = max(self._said_at, self.world.now + self.world.rng.randint(0, 3))
        deliver = self._said_at - self.world.now
        self.world.after(deliver, lambda: worker.host_said(message) if self.life == life else None, worker)

    def _obey(self, message: hostlink.ToHost) -> None:
        match message:
            case hostlink.Work():
                self._tasks.start(message)
            case hostlink.Cut():
                self._tasks.cut(message)
            case hostlink.Regrant():
                self._tasks.rename(message)
            case hostlink.YieldRest():
                self._tasks.yield_rest(message)
            case hostlink.CommitEvery():
                self._commit_ms = message.ms
            case hostlink.HasResults():
                return
            case _:
                raise AssertionError(f"unknown order {message!r}")
        self._order.set()

    # -- work --------------------------------------------------------------------------------------------------------------------
    def _turn(self) -> Run[None]:
        """Wind up a lease of which there is nothing to compute, or do a batch and end the parts that are due."""
        scenario = self._stage.scenario
        line = self._tasks.line(scenario.batch)
        if not scenario.sizes_late:
            line = [task for task in line if self._size(task)]
        idle = next((task for task in line if task.is_idle), None)
        if idle is not None:
            yield from self._wind_up(idle, is_due=True)
            return
        batch = self._gather(line)
        if not batch or not (yield from self._compute(batch)):
            return
        if self.world.chance(_PROGRESS):
            self._say(hostlink.Progress(0, reached=tuple((each.lease, each.done) for each in self._tasks)))
        for task in dict.fromkeys(task for task, _ in batch):
            is_due = self.world.chance(scenario.prefix)
            if not task.is_dropped:
                yield from self._wind_up(task, is_due=is_due or self._is_late(task))

    def _size(self, task: Task) -> bool:
        """Say how many rows the shard has, unless that is known; False when that leaves nothing of the lease."""
        size = self._stage.size(task.shard)
        if task.stop > size and not task.is_sized:
            task.is_sized = True
            self._say(hostlink.Sized(task.lease, size))
            task.stop = max(size, task.start)
            if task.stop == task.start:
                self._tasks.drop(task)
        return not task.is_dropped

    def _gather(self, line: list[Task]) -> Batch:
        """Fill a batch, in order, across the borders of leases."""
        batch: Batch = []
        most, is_blocked = self._stage.scenario.batch, False
        for task in line:
            if not task.is_begun and (is_blocked or not self._tasks.may_begin(task)):
                is_blocked = True
                continue
            offset = task.done
            while len(batch) < most:
                if offset >= self._stage.size(task.shard) and not self._size(task):
                    break
                if offset >= task.stop:
                    break
                if self._stage.cannot_read(self.name):
                    task.failure = hostlink.Failed(task.lease, FailureKind.STORAGE, "the input cannot be reached")
                    break
                task.is_begun = True
                batch.append((task, offset))
                offset += 1
        return batch

    def _compute(self, batch: Batch) -> Run[bool]:
        """Compute a batch; False when nothing came of it: the host died, or all of it was dropped meanwhile."""
        stage = self._stage
        seen = [(task.shard, offset) for task, offset in batch if not task.quarantine and task.takes(offset)]
        if seen:
            yield max([stage.row_ms(self.name) for _ in seen])
            stage.computed.update(seen)
            if not stage.scenario.poison.isdisjoint(seen):
                self.crash()
                yield "died of a row"
                return False
        is_of_use = False
        for task, offset in batch:
            # What was cut, dropped or begun anew meanwhile is another matter.
            if not task.is_dropped and offset == task.done < task.stop and task.failure is None:
                self._finish(task, offset)
                is_of_use = True
        return is_of_use

    def _finish(self, task: Task, offset: int) -> None:
        scenario, row = self._stage.scenario, (task.shard, offset)
        if row in scenario.fatal and not task.quarantine:
            task.failure = hostlink.Failed(task.lease, FailureKind.FATAL, WRONG_CODE, "Traceback ...")
            return
        is_bad = bool(task.quarantine) or row in scenario.bad or (row in scenario.flaky and self._stage.computed[row] == 1)
        if is_bad and task.takes(offset):
            task.bad.add(offset)
        if task.part_since is None:
            task.part_since = self.world.now
        task.done += 1

    def _is_late(self, task: Task) -> bool:
        """Tell whether the part has been open for as long as the master has parts be."""
        return self._commit_ms is not None and task.part_since is not None and self.world.now - task.part_since >= self._commit_ms

    def _wind_up(self, task: Task, *, is_due: bool) -> Run[None]:
        """End the part if it is due, and the lease if it is over."""
        if task.done > task.staged and (is_due or task.done >= task.stop):
            yield from self._finish_part(task)
        if task.is_dropped:
            return
        if task.staged >= task.stop or (task.is_idle and task.staged >= task.done):
            if task.staged < task.stop and task.failure is not None:
                self._say(replace(task.failure, lease=task.lease))
            elif task.is_asked_back:
                self._say(hostlink.Released(task.lease))
            self._tasks.drop(task)

    def _finish_part(self, task: Task) -> Run[None]:
        """Stage what is done, and say so."""
        lease, start, stop = task.lease, task.staged, task.done
        record = self._record(task, start, stop)
        try:
            objects = []
            for staged in record.objects:
                blob = Blob(staged.kind, record, self._rows_of(staged, record, task))
                sync = self._stage.scenario.switches.syncs_staging
                objects.append((yield from self._stage.place.stage(record, blob, sync=sync)))
        except AntinferError as error:
            if not task.is_dropped:
                # An upload that somebody aborted says nothing about the place.
                cause = self._stage.place.refusal if isinstance(error, OutputError) else Cause.STORAGE
                self._say(hostlink.Failed(task.lease, FailureKind.STORAGE, str(error), cause=cause))
                self._tasks.drop(task)
            return
        yield "staged a part"
        # A lease that was dropped while its part was under way is reported all the same: both orders of these two happen.
        if not task.is_dropped or self.world.chance(0.5):
            task.staged = stop
            task.bad -= set(range(start, stop))
            task.part_since = None
            self._say(hostlink.Staged(lease, replace(record, objects=tuple(objects))))

    def _record(self, task: Task, start: int, stop: int) -> CommitRecord:
        scenario = self._stage.scenario
        mine = [offset for offset in range(start, stop) if task.takes(offset)]
        good = [offset for offset in mine if offset not in task.bad]
        bad = len(mine) - len(good)
        kinds = [StagedObject("record")] if not good or scenario.suffix != "parquet" else []
        kinds += [StagedObject("quarantine")] if bad else []
        kinds += [StagedObject("part")] if good else []
        return CommitRecord(
            shard=task.shard,
            start=start,
            stop=stop,
            staged=staged_name(task.lease, task.shard, start, stop, f"{self.world.rng.getrandbits(24):06x}"),
            objects=tuple(kinds),
            rows_out=sum(scenario.outputs(task.shard, offset) for offset in good),
            rows_quarantined=bad,
            round=0 if task.retry is None else task.retry.round,
            rows_retried=0 if task.retry is None else len(mine),
            attempt=task.attempt,
            worker=self._worker.session.worker,
            schema=self._stage.schema((task.shard, offset) for offset in good) if good else "",
            accumulators=json.dumps(good),
        )

    @staticmethod
    def _rows_of(staged: StagedObject, record: CommitRecord, task: Task) -> frozenset[int]:
        if staged.kind == "record":
            return frozenset()
        offsets = filter(task.takes, range(*Rows(record.start, record.stop)))
        return frozenset(offset for offset in offsets if (offset in task.bad) == (staged.kind == "quarantine"))
