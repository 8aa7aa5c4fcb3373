"""The stage host: composition of readers, stages, predictors and writers, and their life and death."""

from __future__ import annotations

import faulthandler
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import assert_never

from antinfer.core.causes import Cause
from antinfer.core.messages import Interruption
from antinfer.launchers.gpus import gpu_room, visible_gpus
from antinfer.metrics import AccumulatorSet
from antinfer.spec import devices, usercode
from antinfer.storage.jobs import RunDocument, open_input, open_output, part_options
from antinfer.worker import deaths, families, hostlink
from antinfer.worker.host import failing
from antinfer.worker.host.accounts import Accounts
from antinfer.worker.host.credits import Credits
from antinfer.worker.host.flow import Flow
from antinfer.worker.host.leases import Leases
from antinfer.worker.host.link import AgentLink
from antinfer.worker.host.machine import MachineReader
from antinfer.worker.host.parts import OutputPlan
from antinfer.worker.host.pools import Pools
from antinfer.worker.host.readers import Reader
from antinfer.worker.host.runs import at_work
from antinfer.worker.host.tuning import Tuning
from antinfer.worker.host.writers import Writer
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.placing import PredictorPlaces
from antinfer.worker.schemas import SchemaGate

_CREDIT_BYTES = (512 << 20, 4 << 30)
"""What leases may hold between reader and commit at least and at most; between, a sixteenth of the memory: with it goes the number of
cores."""
_LEASES_AHEAD = 2
"""Leases beside those that are being read: some wait to be read, others for their last results."""
_COMMIT_SECONDS = 30.0
_TICK_SECONDS = 0.2
_PROGRESS_SECONDS = 1.0
_JOIN_SECONDS = 15.0
_DEAD_MAN_SECONDS = 300.0


class Host:
    """Everything that runs one job in one process."""

    def __init__(self, link: AgentLink, setup: hostlink.Setup, started: list[spawn.Started], began: float, box: int | None = None) -> None:
        """Build the pipeline; nothing runs yet.

        Args:
            link: The agent.
            setup: What to run.
            started: Predictor processes that are loading already, one for each stage that runs in processes.
            began: Monotonic time at which this process was asked to set up.
            box: File for last words; None: standard error.
        """
        self._link = link
        self._began = began
        self._box = sys.stderr.fileno() if box is None else box
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._exit_code = 0
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count()
        self._telling = threading.Lock()
        self._started = started
        document = RunDocument.from_json(setup.document)
        spec = document.spec
        gpus = visible_gpus()
        machine = MachineReader(gpus)
        cpus = max(1, round(machine.cpus))
        nodes = graph.isolated(graph.build(spec, cpus)) if setup.isolated else graph.build(spec, cpus)
        self._place = open_output(spec)
        self._has_free_interval = spec.commit_interval == "auto"
        interval = _COMMIT_SECONDS if spec.commit_interval == "auto" else spec.commit_interval
        credits = Credits(min(max(_CREDIT_BYTES[0], machine.read().ram_total // 16), _CREDIT_BYTES[1]))
        self._leases = Leases(credits, link.send, interval)
        self._flow = Flow(nodes, self._leases.collect)
        plan = OutputPlan(
            place=self._place,
            sink=spec.sink.type,
            options=part_options(spec),
            carryover=tuple(document.schema.names) if spec.carryover == "*" else spec.carryover,
            keep_columns=spec.quarantine.keep_columns,
            row_ids=spec.sink.row_ids,
            accumulators=AccumulatorSet.from_config(spec.accumulators, lambda name: usercode.resolve(name, spec.base_dir)),
            gate=SchemaGate("the output", widens=False),
            worker=setup.worker,
            code=document.code,
        )
        source = open_input(spec, document.schema)
        tunes = spec.tuning == "auto"
        places = PredictorPlaces(
            nodes, self._flow, cpus, gpus, gpu_room=gpu_room(), probes=tunes, start=self._start_thread, hears=self._interrupted
        )
        self._pools = Pools(nodes, self._flow, places, self._start_thread)
        self._machine = machine
        self._tuning = Tuning(nodes, self._flow, self._pools, machine) if tunes else None
        self._accounts = Accounts(self._flow, self._pools, self._tuning.decisions if self._tuning else {}, places.notes)
        # A chunk serves whole batches of the first stage; 1 where no stage has a fixed size.
        step = next((node.limits.rows for node in nodes if isinstance(node, Call)), 1)
        ends = devices.ends(spec.pipeline, gpus)
        self._readers = [Reader(source, plan, self._flow, self._leases, credits, step) for _ in range(ends)]
        self._writers = [Writer(plan, self._leases, self._send_staged) for _ in range(ends)]

    def run(self) -> int:
        """Set up, work until the agent says stop or is gone or user code fails for good; return the exit code."""
        self._start_thread("agent", self._listen)
        self._pools.start_processes(self._started)
        self._pools.start_threads()
        while not self._pools.wait_ready(0.1):
            if self._over.is_set():
                return self._shut_down()
            self._pools.widen(self._machine.read())
        self._pools.widen(self._machine.read())
        for name, workers in (("reader", self._readers), ("writer", self._writers)):
            for worker in workers:
                self._start_thread(name, worker.run)
        self._link.send(hostlink.Ready(time.monotonic() - self._began, slots=len(self._readers) + _LEASES_AHEAD))
        self._look_after()
        return self._shut_down()

    # -- inside ----------------------------------------------------------------------------------------------------------------------
    def _listen(self) -> None:
        while (message := self._link.receive()) is not None:
            match message:
                case hostlink.Work():
                    self._leases.start(message)
                case hostlink.Cut():
                    self._leases.cut(message.lease, message.rows)
                case hostlink.Regrant():
                    self._leases.rename(message.old, message.new, message.attempt)
                case hostlink.YieldRest():
                    self._leases.yield_rest(message.lease, message.keep)
                case hostlink.CommitEvery():
                    if self._has_free_interval:
                        self._leases.commit_every(message.ms / 1_000)
                case hostlink.HasResults():
                    self._pools.note_results()
                case hostlink.Stop():
                    self._over.set()
                    return
                case hostlink.Setup():
                    raise AssertionError("a host is set up once")
                case _:
                    assert_never(message)
        # Nobody wants the results any more; the kernel ends the predictors with us, but not what user code has started.
        if os.getsid(0) == os.getpid():
            families.end(os.getpid())
        os._exit(0)

    def _look_after(self) -> None:
        """Tune and tell until it is over."""
        told_at = time.monotonic()
        self._reassure()
        while not self._over.wait(_TICK_SECONDS):
            now = time.monotonic()
            self._end_if_hanging()
            if self._tuning is not None:
                self._tuning.tick(now)
            if now - told_at >= _PROGRESS_SECONDS:
                told_at = now
                self._reassure()
                self._tell()

    def _reassure(self) -> None:
        """Have this process end by itself when none of its threads comes to do this again: the agent, who would end it, may be gone."""
        faulthandler.dump_traceback_later(_DEAD_MAN_SECONDS, file=self._box, exit=True)

    def _end_if_hanging(self) -> None:
        """End the host when a call in one of its threads does not come back: a thread cannot be ended alone."""
        for pool in self._pools:
            if (found := pool.hanging()) is not None:
                thread, overdue = found
                words = f"{pool.call.stage.where} did not come back for {overdue.seconds:.0f} s ({overdue.limit.reason})"
                os.write(self._box, f"{words}\n{thread.stack()}".encode())
                os._exit(deaths.HUNG)

    def _tell(self) -> None:
        with self._telling:
            self._link.send(hostlink.Progress(self._leases.rows_done, self._accounts.tick(time.monotonic()), self._leases.reached()))

    def _interrupted(self, cause: Cause, words: str, call: Assembled | None = None) -> None:
        ranges = at_work(call.parts) if call is not None else ()
        self._link.send(hostlink.Interrupted(Interruption(cause, detail=words, ranges=ranges)))

    def _send_staged(self, message: hostlink.FromHost) -> None:
        """Send what a writer has to say behind what is to be told about the work in it."""
        self._tell()
        self._link.send(message)

    def _start_thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                target()
            except BaseException as error:  # noqa: BLE001 - ends the host, which tells its agent
                self._fail(error)

        # A daemon: user code that never returns must not keep the process alive.
        thread = threading.Thread(target=guarded, name=f"{name}-{next(self._numbers)}", daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()]
        thread.start()
        self._threads.append(thread)
        return thread

    def _fail(self, error: BaseException) -> None:
        with self._guard:
            if self._over.is_set():
                return
            self._exit_code = 1
            self._link.send(failing.failed(None, error))
            self._over.set()

    def _shut_down(self) -> int:
        self._over.set()
        self._flow.stop()
        self._leases.stop()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            if thread is not threading.current_thread() and not thread.name.startswith("agent"):
                thread.join(max(0.0, deadline - time.monotonic()))
        self._place.close()
        return self._exit_code
