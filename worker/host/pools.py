"""The executors of the stages: map threads and predictor processes that join and leave while the flow goes on.

An executor that is to leave finishes its batch, tears down and is gone; one that joins takes batches as soon as it is ready. Nobody else
notices, so resizing loses no row and does none twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from antinfer.errors import InfraError, UserCodeError
from antinfer.worker.host.flow import Flow
from antinfer.worker.host.machine import PROCESS_BYTES, resident_bytes
from antinfer.worker.host.threads import MapThread
from antinfer.worker.pipeline.graph import Call, Node
from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.placing import PredictorPlaces
from antinfer.worker.predictors.predictor import Predictor
from antinfer.worker.predictors.watch import Overdue
from antinfer.worker.tuning.values import Machine, Mode

_LOG = logging.getLogger("antinfer.worker")
_BLIND_RAM_SHARE: Final = 0.5
"""Of the memory, so much may be taken by processes before they have seen a batch, while models still load."""

Executor = MapThread | Predictor
Start = Callable[[str, Callable[[], None]], threading.Thread]
"""Runs a function in a thread of the given name, which ends the host when it raises."""


@dataclass(eq=False, slots=True)
class _Member:
    executor: Executor
    thread: threading.Thread | None = None
    leaving: bool = False
    expendable: bool = False
    """When its user code cannot be set up, the stage goes on without it."""

    @property
    def mode(self) -> Mode:
        return "threads" if isinstance(self.executor, MapThread) else "processes"


class StagePool:
    """The executors of one stage. To be changed by one thread; any may look."""

    def __init__(self, node: int, call: Call, flow: Flow, places: PredictorPlaces, start: Start) -> None:
        """An empty pool; `start` is how executors get their threads."""
        self.node = node
        self.call = call
        self._flow = flow
        self._places = places
        self._start = start
        self._members: tuple[_Member, ...] = ()
        self._left_cpu_seconds = 0.0
        self._troubles = 0

    # -- joining and leaving ---------------------------------------------------------------------------------------------------------
    def join(self, executor: Executor) -> None:
        """Take an executor in; it runs from now on."""
        self._admit(_Member(executor))

    def resize(self, *, threads: int, processes: int, expendable: bool = False) -> None:
        """Have so many executors of each kind: the youngest leave when there are too many.

        With `expendable`, processes whose user code cannot be set up are missed by nobody but `state`.
        """
        self.reap()
        self._troubles = 0
        wishes: tuple[tuple[Mode, int], ...] = (("processes", processes), ("threads", threads))
        for mode, wanted in wishes:
            staying = [member for member in self._members if member.mode == mode and not member.leaving]
            for member in staying[wanted:]:
                member.leaving = True
                member.executor.retire()
            for _ in range(wanted - len(staying)):
                made = self.thread() if mode == "threads" else self._places.another(self.node)
                if made is None:
                    break
                self._admit(_Member(made, expendable=expendable and mode == "processes"))

    def widen(self, machine: Machine) -> int:
        """Start the rest of the processes that the stage begins with, once the first are set up and show what memory one takes.

        Returns the bytes that those will take which were started now.
        """
        predictors = self.predictors()
        missing = self.call.processes - len(predictors)
        if not self.call.in_processes or missing <= 0 or not all(predictor.is_ready for predictor in predictors):
            return 0
        size = max(PROCESS_BYTES, *(resident_bytes(predictor.pid) for predictor in predictors if predictor.pid is not None))
        room = machine.room_for(size, _BLIND_RAM_SHARE)
        more = missing if room is None else min(missing, room)
        if more:
            self.resize(threads=0, processes=len(predictors) + more)
        return more * size

    def thread(self) -> MapThread:
        """Return a map thread for this stage; it does not run yet."""
        return MapThread(self.node, self.call.stage, self._flow, self._places.patience(self.node), self._places.standing(self.node))

    def reap(self) -> None:
        """Forget those that have left."""
        gone = [member for member in self._members if member.thread is not None and not member.thread.is_alive()]
        for member in gone:
            if isinstance(member.executor, Predictor):
                self._places.gone(self.node, member.executor)
            else:
                self._left_cpu_seconds += member.executor.cpu_seconds
        if gone:
            self._members = tuple(member for member in self._members if member not in gone)

    def _admit(self, member: _Member) -> None:
        self._members += (member,)
        kind = "map" if member.mode == "threads" else "predictor"
        member.thread = self._start(kind, lambda: self._run(member))

    def _run(self, member: _Member) -> None:
        try:
            member.executor.run()
        except (InfraError, UserCodeError) as error:
            if not member.expendable or member.executor.is_ready:
                raise
            self._troubles += 1
            _LOG.info(
                "%s cannot be set up in a process: %s",
                self.call.stage.where,
                error,
                extra={"action": "workers_as", "stage": self.call.name},
            )

    # -- how things are --------------------------------------------------------------------------------------------------------------
    @property
    def mode(self) -> Mode:
        """What most of those that stay are."""
        return "processes" if self.count("processes") > self.count("threads") else "threads"

    @property
    def degree(self) -> int:
        """Executors that are here to stay, ready or not."""
        return sum(not member.leaving for member in self._members)

    def count(self, mode: Mode) -> int:
        return sum(member.mode == mode and not member.leaving for member in self._members)

    @property
    def ready(self) -> int:
        """Executors that are set up, those included that finish their last batch."""
        return sum(member.executor.is_ready for member in self._members)

    def state(self, *, threads: int, processes: int) -> Literal["changing", "settled", "failed"]:
        """Tell whether exactly so many executors are at work, or why they never will be."""
        self.reap()
        if self._troubles:
            return "failed"
        here = [member for member in self._members if not member.leaving]
        counts = [sum(member.mode == mode for member in here) for mode in ("threads", "processes")]
        whole = len(here) == len(self._members) and all(member.executor.is_ready for member in here)
        return "settled" if whole and counts == [threads, processes] else "changing"

    @property
    def cpu_seconds(self) -> float:
        """What its threads have computed so far."""
        here = [member.executor.cpu_seconds for member in self._members if isinstance(member.executor, MapThread)]
        return self._left_cpu_seconds + sum(here)

    @property
    def load_seconds(self) -> float:
        """Longest time that a process took to set its user code up."""
        return max((predictor.load_seconds for predictor in self.predictors()), default=0.0)

    def hanging(self) -> tuple[MapThread, Overdue] | None:
        """Return a thread in which a call did not come back in time."""
        for member in self._members:
            if isinstance(member.executor, MapThread) and (overdue := member.executor.overdue()) is not None:
                return member.executor, overdue
        return None

    def predictors(self) -> list[Predictor]:
        return [member.executor for member in self._members if isinstance(member.executor, Predictor)]


class Pools:
    """The pools of all stages. To be changed by one thread; any may look."""

    def __init__(self, nodes: Sequence[Node], flow: Flow, places: PredictorPlaces, start: Start) -> None:
        """Nothing runs yet; see `StagePool` for the arguments."""
        self._flow = flow
        self._places = places
        calls = {index: node for index, node in enumerate(nodes) if isinstance(node, Call)}
        self._pools = {index: StagePool(index, call, flow, places, start) for index, call in calls.items()}
        self._threads = places.threads

    def __iter__(self) -> Iterator[StagePool]:
        return iter(self._pools.values())

    def start_processes(self, started: Sequence[spawn.Started]) -> None:
        """Start the first predictors of all stages, all at once; `started` are some that load already."""
        for node, predictor in self._places.first(started):
            self._pools[node].join(predictor)

    def start_threads(self) -> None:
        """Start the map threads. Raises UserCodeError.

        The user code of the first one of each stage is built here, one after the other: two threads that import the same packages can
        meet in a circle of imports and find a module half made.
        """
        for pool in self:
            if not pool.call.in_processes:
                first = pool.thread()
                first.prepare()
                pool.join(first)
                pool.resize(threads=pool.call.degree, processes=0)

    def widen(self, machine: Machine) -> None:
        """Start what is missing of the processes that stages begin with, as far as `machine` has memory for them."""
        for pool in self:
            machine = replace(machine, ram_used=machine.ram_used + pool.widen(machine))
        self.share_cores()

    def wait_ready(self, timeout: float) -> bool:
        """Wait for some time for predictors; true once every one of them has been set up."""
        return all(predictor.wait_ready(timeout) for pool in self for predictor in pool.predictors())

    def has_room(self, node: int) -> bool:
        """Tell whether there is a device for one more predictor of `node`."""
        return self._places.has_room(node)

    @property
    def killed(self) -> int:
        """Processes that the system has killed for want of memory."""
        return self._places.killed

    def note_results(self) -> None:
        """Take in that all of the user code has worked somewhere. May be called by any thread."""
        for pool in self:
            self._places.standing(pool.node).has_results = True

    def share_cores(self) -> None:
        """Have all processes compute with their share of the cores, as many as they are now."""
        self._places.threads = threads = self._places.share(sum(pool.count("processes") for pool in self))
        if threads != self._threads:
            self._threads = threads
            for pool in self:
                for predictor in pool.predictors():
                    predictor.limit_threads(threads)
