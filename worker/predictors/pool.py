"""Supervision of predictor processes: keep each one fed, restart it when it dies, and find the row it dies of."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from antinfer.errors import UserCodeError
from antinfer.worker.calls import select_columns
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.batchsize import SLOTS, Sample
from antinfer.worker.pipeline.pieces import BadRow
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.process import PredictorProcess
from antinfer.worker.predictors.sizing import Sizing
from antinfer.worker.predictors.wire import Message

_LOG = logging.getLogger("antinfer.predictors")
_DEATHS_OF_A_BATCH = 2
_DEATHS_IN_SETUP = 5
_HANG_UP_SECONDS = 1.0
"""A channel lives on after its process where user code has started others that inherited it; nobody waits for them."""


class Feed(Protocol):
    """Where a predictor's batches come from and go to (`host.flow.Flow`)."""

    def take(self, node: int, *, want: bool = True, wake: Callable[[], bool] = ...) -> Assembled | None: ...

    def wake_up(self, node: int) -> None: ...

    def hold(self, node: int) -> None: ...

    def finish(self, node: int, call: Assembled, outcome: Outcome, seconds: float) -> None: ...

    def batch_rows(self, node: int) -> int: ...

    def set_batch_rows(self, node: int, rows: int) -> bool: ...


class Predictor:
    """One supervised process of one stage. `run` is its thread, which must live as long as the process."""

    def __init__(
        self,
        node: int,
        stage: StageCall,
        feed: Feed,
        *,
        threads: int,
        started: spawn.Started | None = None,
        devices: Sequence[str] | None = None,
        front: StageCall | None = None,
        sizing: Sizing | None = None,
    ) -> None:
        """Nothing runs yet, but for `started`.

        Args:
            node: Number of the stage in `feed`.
            stage: What to call.
            feed: Where batches come from and go to.
            threads: Threads that the process computes with.
            started: A process that is loading already; None: `run` starts one.
            devices: What the process may see of the GPUs; None: all.
            front: The stage before, for batches that come raw (`Assembled.fused`): its target is what runs on the device.
            sizing: The batch size of this stage, shared with its other predictors; None: one of its own.
        """
        self._node = node
        self._stage = stage
        self._feed = feed
        self._threads = threads
        self.devices = devices
        """What the process may see of the GPUs; None: all."""
        self._front = front
        self._sizing = Sizing(node, stage, feed) if sizing is None else sizing
        self.load_seconds = 0.0
        """Time that the user code took to set up, the last time."""
        self._told_threads = threads
        self._ready = threading.Event()
        self._inbox: deque[Message | None] = deque()
        self._again: deque[Assembled] = deque()
        """Batches to be run again, oldest first, before new ones."""
        self._under_way: dict[int, Assembled] = {}
        """Slot -> batch, oldest first: the first one is being computed."""
        self._sent_bytes: dict[int, int] = {}
        self._deaths_in_setup = 0
        self._stopping = False
        self._ready_now = False
        self._retiring = False
        self._noticed = False
        """`run` knows that it is retiring."""
        self._process = None if started is None else self._adopt(started)

    def wait_ready(self, timeout: float) -> bool:
        """Wait for at most `timeout` seconds; true once the user code has been set up."""
        return self._ready.wait(timeout)

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """The process at work; None before there is one."""
        return None if self._process is None else self._process.pid

    def limit_threads(self, threads: int) -> None:
        """Have the process compute with `threads` threads from its next batch on. May be called by any thread."""
        self._threads = threads
        self._feed.wake_up(self._node)

    def retire(self) -> None:
        """Have `run` take no more batches, finish those under way, let the process tear down, and return. May be called by any thread."""
        self._retiring = True
        self._feed.wake_up(self._node)

    def run(self) -> None:
        """Feed the process until the flow stops or it is retired, then let it tear down.

        Raises UserCodeError when the user code is at fault for good.
        """
        try:
            if self._process is None:
                self._process = self._adopt(spawn.start(self._threads))
            while not self._is_done():
                self._noticed = self._retiring
                self._handle_messages()
                self._tell_threads()
                call = self._next()
                if call is not None:
                    self._hand_over(call)
                elif not self._woken():
                    break
            self._stopping = True
            if self._ready_now:
                self._process.stop()
            else:
                self._process.kill()
        except BaseException:
            self._stopping = True
            if self._process is not None:
                self._process.kill()
            raise
        finally:
            self._hang_up()

    # -- feeding ---------------------------------------------------------------------------------------------------------------------
    def _is_done(self) -> bool:
        return self._retiring and not (self._inbox or self._under_way or self._again)

    def _woken(self) -> bool:
        # Whoever waits for a batch must hear that it is to take none.
        return bool(self._inbox) or self._retiring != self._noticed or self._is_done() or self._owes_threads

    def _next(self) -> Assembled | None:
        may_send = self._ready_now and len(self._under_way) < self._slots
        if self._again and may_send:
            return self._again.popleft()
        want = may_send and not self._again and not self._noticed
        return self._feed.take(self._node, want=want, wake=self._woken)

    @property
    def _owes_threads(self) -> bool:
        return self._ready_now and self._told_threads != self._threads

    def _tell_threads(self) -> None:
        if self._owes_threads:
            assert self._process is not None
            self._told_threads = self._threads
            self._process.limit_threads(self._told_threads)

    @property
    def _slots(self) -> int:
        # A batch under suspicion runs alone, so that nobody else is blamed for its deaths.
        suspects = [*self._under_way.values(), *list(self._again)[:1]]
        return 1 if any(call.deaths for call in suspects) else SLOTS

    def _hand_over(self, call: Assembled) -> None:
        slot = next(slot for slot in range(SLOTS) if slot not in self._under_way)
        self._under_way[slot] = call
        stage = self._front if call.fused and self._front is not None else self._stage
        batch = call.batch(lambda batch: select_columns(batch, stage))
        self._sent_bytes[slot] = batch.nbytes
        assert self._process is not None
        self._process.send(slot, batch, fused=call.fused, full=self._feed.batch_rows(self._node))

    # -- what the process says -------------------------------------------------------------------------------------------------------
    def _handle_messages(self) -> None:
        while self._inbox:
            message = self._inbox.popleft()
            if message is None:
                self._bury()
                continue
            match message.data["is"]:
                case "ready":
                    self._welcome(message.data)
                case "failed":
                    data = message.data
                    raise UserCodeError(data["error"], hint=data["hint"], user_traceback=data["traceback"])
                case "oom":
                    self._halve(message)
                case "result":
                    self._finish(message)

    def _welcome(self, data: dict[str, Any]) -> None:
        self._ready_now = True
        self._deaths_in_setup = 0
        self.load_seconds = data["load_seconds"]
        self._sizing.ready(data["device"], data["dtype"])
        _LOG.info(
            "%s is ready on %s after %.1f s",
            self._stage.where,
            data["device"],
            data["load_seconds"],
            extra={"action": "ready", "stage": self._stage.name, "device": data["device"], "load_seconds": round(data["load_seconds"], 3)},
        )
        self._ready.set()

    def _finish(self, message: Message) -> None:
        assert self._process is not None
        data = message.data
        call, size = self._under_way.pop(data["slot"]), self._sent_bytes.pop(data["slot"])
        outcome = self._process.outcome(message)
        if not outcome.bad:
            # One with bad rows was run several times over.
            self._sizing.observe(Sample(call.rows, size, data["seconds"], self._process.pid, data["free"], call.fused))
        self._feed.finish(self._node, call, outcome, data["seconds"])

    def _halve(self, message: Message) -> None:
        """Run a batch that does not fit into memory again in two parts, and have later ones cut smaller."""
        assert self._process is not None
        call = self._under_way.pop(message.data["slot"])
        del self._sent_bytes[message.data["slot"]]
        self._process.free(message)
        self._sizing.ran_out(call.rows)
        self._feed.hold(self._node)
        self._again.extendleft(reversed(call.halves()))

    def _bury(self) -> None:
        """Restart a process that died, and decide what happens to its batches."""
        assert self._process is not None
        how = self._process.end()
        _LOG.warning(
            "the process of %s %s; it is started again",
            self._stage.where,
            how,
            extra={"action": "restart", "stage": self._stage.name, "cause": how},
        )
        if not self._ready_now:
            self._deaths_in_setup += 1
            if self._deaths_in_setup >= _DEATHS_IN_SETUP:
                raise UserCodeError(
                    f"{self._stage.where}: its process {how} while it was being set up, {_DEATHS_IN_SETUP} times in a row",
                    hint="What it printed before is in the worker's log.",
                )
        calls = list(self._under_way.values())
        self._under_way.clear()
        self._sent_bytes.clear()
        if calls:
            calls[0].deaths += 1
            calls[:1] = self._suspect(calls[0], how)
        self._again.extendleft(reversed(calls))
        self._process = self._adopt(spawn.start(self._threads))

    def _suspect(self, call: Assembled, how: str) -> list[Assembled]:
        """Return what to run instead of a batch over which a process died: itself, its halves, or nothing when the row is alone."""
        if call.deaths < _DEATHS_OF_A_BATCH:
            return [call]
        if call.rows == 1:
            reason = BadRow(f"the process of {self._stage.where} {how} on this row", "", self._stage.name)
            self._feed.finish(self._node, call, Outcome(None, np.empty(0, dtype=np.int64), [(0, reason)]), 0.0)
            return []
        self._feed.hold(self._node)
        return list(call.halves())

    def _adopt(self, started: spawn.Started) -> PredictorProcess:
        self._ready_now = False
        rows = self._feed.batch_rows(self._node)
        self._told_threads = threads = self._threads
        process = PredictorProcess(started, self._stage, threads, devices=self.devices, front=self._front, rows=rows)
        name = f"listen-{self._stage.name}-{process.pid}"
        self._listener = threading.Thread(target=self._listen, args=(process,), name=name, daemon=True)
        self._listener.start()
        return process

    def _hang_up(self) -> None:
        """Let go of the channel of the last process, once its listener has heard the end of it."""
        if self._process is None:
            return
        self._listener.join(_HANG_UP_SECONDS)
        if not self._listener.is_alive():
            self._process.close()

    def _listen(self, process: PredictorProcess) -> None:
        while True:
            message = process.receive()
            if message is None and self._stopping:
                return
            self._inbox.append(message)
            self._feed.wake_up(self._node)
            if message is None:
                return
