"""Supervision of predictor processes: keep each one fed, restart it when it dies, and find the row it dies of."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from antinfer.errors import UserCodeError
from antinfer.worker.calls import select_columns
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.pieces import BadRow
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.process import SLOTS, PredictorProcess
from antinfer.worker.predictors.wire import Message

_LOG = logging.getLogger("antinfer.predictors")
_DEATHS_OF_A_BATCH = 2
_DEATHS_IN_SETUP = 5


class Feed(Protocol):
    """Where a predictor's batches come from and go to (`host.flow.Flow`)."""

    def take(self, node: int, *, want: bool = True, wake: Callable[[], bool] = ...) -> Assembled | None: ...

    def wake_up(self, node: int) -> None: ...

    def hold(self, node: int) -> None: ...

    def finish(self, node: int, call: Assembled, outcome: Outcome, seconds: float) -> None: ...


class Predictor:
    """One supervised process of one stage. `run` is its thread."""

    def __init__(self, node: int, stage: StageCall, feed: Feed, *, threads: int, started: spawn.Started) -> None:
        self._node = node
        self._stage = stage
        self._feed = feed
        self._threads = threads
        self._ready = threading.Event()
        self._inbox: deque[Message | None] = deque()
        self._again: deque[Assembled] = deque()
        """Batches to be run again, oldest first, before new ones."""
        self._under_way: dict[int, Assembled] = {}
        """Slot -> batch, oldest first: the first one is being computed."""
        self._deaths_in_setup = 0
        self._stopping = False
        self._ready_now = False
        self._process = self._adopt(started)

    def wait_ready(self, timeout: float) -> bool:
        """Wait for at most `timeout` seconds; true once the user code has been set up."""
        return self._ready.wait(timeout)

    def run(self) -> None:
        """Feed the process until the flow stops, then let it tear down. Raises UserCodeError when the user code is at fault for good."""
        try:
            while not self._stopping:
                self._handle_messages()
                call = self._next()
                if call is not None:
                    self._hand_over(call)
                elif not self._inbox:
                    break
            self._stopping = True
            self._process.stop()
        except BaseException:
            self._stopping = True
            self._process.kill()
            raise

    # -- feeding ---------------------------------------------------------------------------------------------------------------------
    def _next(self) -> Assembled | None:
        may_send = self._ready_now and len(self._under_way) < self._slots
        if self._again and may_send:
            return self._again.popleft()
        return self._feed.take(self._node, want=may_send and not self._again, wake=lambda: bool(self._inbox))

    @property
    def _slots(self) -> int:
        # A batch under suspicion runs alone, so that nobody else is blamed for its deaths.
        suspects = [*self._under_way.values(), *list(self._again)[:1]]
        return 1 if any(call.deaths for call in suspects) else SLOTS

    def _hand_over(self, call: Assembled) -> None:
        slot = next(slot for slot in range(SLOTS) if slot not in self._under_way)
        self._under_way[slot] = call
        self._process.send(slot, call.batch(lambda batch: select_columns(batch, self._stage)))

    # -- what the process says -------------------------------------------------------------------------------------------------------
    def _handle_messages(self) -> None:
        while self._inbox:
            message = self._inbox.popleft()
            if message is None:
                self._bury()
            elif message.data["is"] == "ready":
                self._ready_now = True
                self._deaths_in_setup = 0
                self._ready.set()
            elif message.data["is"] == "failed":
                data = message.data
                raise UserCodeError(data["error"], hint=data["hint"], user_traceback=data["traceback"])
            else:
                call = self._under_way.pop(message.data["slot"])
                self._feed.finish(self._node, call, self._process.outcome(message), message.data["seconds"])

    def _bury(self) -> None:
        """Restart a process that died, and decide what happens to its batches."""
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
        process = PredictorProcess(started, self._stage, self._threads)
        threading.Thread(target=self._listen, args=(process,), name=f"listen-{self._stage.name}-{process.pid}", daemon=True).start()
        return process

    def _listen(self, process: PredictorProcess) -> None:
        while True:
            message = process.receive()
            if message is None and self._stopping:
                return
            self._inbox.append(message)
            self._feed.wake_up(self._node)
            if message is None:
                return
