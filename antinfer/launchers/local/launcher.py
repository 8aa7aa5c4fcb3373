"""Workers as processes of this machine that die with whoever started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from antinfer.core.causes import Cause
from antinfer.core.scaling.facts import ContainerFacts, NodeState, PodFacts
from antinfer.core.scaling.values import Obstacle, Severity
from antinfer.launchers.local.headstart import start_worker
from antinfer.launchers.port import Sight, WorkerOrder
from antinfer.launchers.processes import LineSink, Process

_HURRIED_S: Final = 1.0
_CONTAINER: Final = "worker"


@dataclass(slots=True)
class _Worker:
    """One process that was started as a worker."""

    order: WorkerOrder
    process: Process
    created_at: int
    exit_code: int | None = None
    is_leaving: bool = False
    ends: list[threading.Timer] = field(default_factory=list)
    """Each kills it when the time that it was given to leave is over."""
    watching: threading.Thread | None = None

    def facts(self) -> PodFacts:
        code = self.exit_code
        said = "" if code is None else "\n".join(self.process.last_lines)
        return PodFacts(
            name=self.order.name,
            worker_class=self.order.worker_class,
            created_at=self.created_at,
            uid=str(self.process.pid),
            container=_CONTAINER,
            phase="Running" if code is None else "Failed" if code else "Succeeded",
            containers=() if code is None else (ContainerFacts(_CONTAINER, exit_code=code, message=said),),
            node=os.uname().nodename,
            node_state=NodeState.READY,
            is_deleting=self.is_leaving,
        )


class LocalLauncher:
    """Makes workers as processes. See `antinfer.launchers.port.Launcher`; `start` is for a thread that lives as long as they are to.

    Limits of memory and nodes to avoid mean nothing here: there is one node, which they share.
    """

    def __init__(self, master: str, on_line: LineSink, *, grace_s: float, verbose: bool = False) -> None:
        """
        Args:
            master: where the master listens.
            on_line: takes the name of a worker and one line that it said.
            grace_s: time that one which may drain has to leave, in seconds.
            verbose: they say more.
        """
        self._master = master
        self._on_line = on_line
        self._grace_s = grace_s
        self._verbose = verbose
        self._on_change: Callable[[], None] = lambda: None
        self._guard = threading.Lock()
        self._workers: dict[str, _Worker] = {}
        self._refused: dict[str, Obstacle] = {}
        self._environs: Mapping[str, Mapping[str, str]] = {}

    def open(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change

    def equip(self, environs: Mapping[str, Mapping[str, str]]) -> None:
        """Have each worker of these names find so much in its environment beside ours, as often as it is started.

        One that is there already cannot be told any more: it is ended and forgotten.
        """
        self._environs = environs
        with self._guard:
            late = [self._workers.pop(name) for name in environs if name in self._workers]
        for worker in late:
            worker.process.send(signal.SIGKILL)
        for worker in late:
            if worker.watching is not None:
                worker.watching.join()

    def start(self, workers: Sequence[WorkerOrder]) -> None:
        for order in workers:
            with self._guard:
                is_there = order.name in self._workers
            if is_there:
                continue
            try:
                process = start_worker(order.name, self._master, verbose=self._verbose, environ=self._environs.get(order.name))
            except OSError as error:
                why = Obstacle(Cause.NO_CAPACITY, Severity.WAITING, f"no process can be started: {error.strerror}")
                with self._guard:
                    self._refused[order.name] = why
                self._on_change()
            else:
                self.adopt(order, process)

    def adopt(self, order: WorkerOrder, process: Process) -> None:
        """Take over a process that somebody has started as the worker of `order`, and that nobody hears yet."""
        worker = _Worker(order, process, _now_ms())
        worker.watching = threading.Thread(target=self._watch, args=(worker,), name=f"end of {order.name}", daemon=True)
        with self._guard:
            self._workers[order.name] = worker
        process.hear(self._on_line)
        worker.watching.start()
        self._on_change()

    def stop(self, name: str, *, drain: bool) -> None:
        with self._guard:
            worker = self._workers.get(name)
            if worker is None:
                return
            if worker.exit_code is not None:
                del self._workers[name]
                return
            if worker.is_leaving and drain:
                return
            worker.is_leaving = True
            end = threading.Timer(self._grace_s if drain else _HURRIED_S, worker.process.send, [signal.SIGKILL])
            worker.ends.append(end)
        end.daemon = True
        end.start()
        worker.process.send(signal.SIGTERM)
        self._on_change()

    def observe(self) -> Sight | None:
        with self._guard:
            refused, self._refused = self._refused, {}
            return Sight(tuple([worker.facts() for worker in self._workers.values()]), refused)

    def close(self) -> None:
        with self._guard:
            leaving = [worker.watching for worker in self._workers.values() if worker.is_leaving]
        for watching in leaving:
            if watching is not None:
                watching.join()

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _watch(self, worker: _Worker) -> None:
        code = worker.process.wait()
        with self._guard:
            worker.exit_code = code
            for end in worker.ends:
                end.cancel()
        self._on_change()


def _now_ms() -> int:
    return int(time.monotonic() * 1_000)
