"""Map threads: user functions that run in the host itself."""

from __future__ import annotations

import threading
import time

from antinfer.worker.calls import Caller, select_columns
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline.stagecalls import StageCall


class MapThread:
    """One copy of a stage's user code; `run` is its thread."""

    def __init__(self, node: int, stage: StageCall, flow: Flow) -> None:
        """Nothing is built yet."""
        self._node = node
        self._stage = stage
        self._flow = flow
        self._caller: Caller | None = None
        self._ready = threading.Event()
        self._retiring = False
        self.cpu_seconds = 0.0
        """Computed by this thread itself, in user code."""

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    def prepare(self) -> None:
        """Build the user code, unless that is done. Raises UserCodeError."""
        if self._caller is None:
            self._caller = Caller(self._stage, copy=True)
            self._ready.set()

    def retire(self) -> None:
        """Have `run` finish its batch, tear down, and return. May be called by any thread."""
        self._retiring = True
        self._flow.wake_up(self._node)

    def run(self) -> None:
        """Call until the flow stops or it is retired, then tear down. Raises UserCodeError when the code breaks its contract."""
        self.prepare()
        caller = self._caller
        assert caller is not None
        while (call := self._flow.take(self._node, wake=lambda: self._retiring)) is not None:
            began, computed = time.monotonic(), time.thread_time()
            outcome = caller.run(call.batch(lambda batch: select_columns(batch, self._stage)))
            self.cpu_seconds += time.thread_time() - computed
            self._flow.finish(self._node, call, outcome, time.monotonic() - began)
        caller.close()
