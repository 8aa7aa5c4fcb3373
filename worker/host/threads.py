"""Map threads: user functions that run in the host itself."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from typing import Final

from antinfer.worker.calls import Caller, select_columns
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline.stagecalls import StageCall, Standing
from antinfer.worker.predictors.watch import Overdue, Patience, Watch

_LEAST_SECONDS: Final = 30.0
"""A call that hangs here takes the whole host with it, so it is given longer than one in a process."""


class MapThread:
    """One copy of a stage's user code; `run` is its thread."""

    def __init__(self, node: int, stage: StageCall, flow: Flow, patience: Patience | None = None, standing: Standing | None = None) -> None:
        """Nothing is built yet. `patience`: how long calls may take; `standing`: what the stage has shown so far."""
        self._node = node
        self._stage = stage
        self._flow = flow
        self._patience = Patience() if patience is None else patience
        self._standing = standing
        self._watch: Watch | None = None
        self._number: int | None = None
        """Of the thread."""
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
            began = time.monotonic()
            self._caller = Caller(self._stage, copy=True, standing=self._standing)
            self._watch = watch = Watch(self._patience, least_seconds=_LEAST_SECONDS)
            watch.is_ready(time.monotonic() - began)
            self._caller.pulse = watch.spoke
            self._ready.set()

    def retire(self) -> None:
        """Have `run` finish its batch, tear down, and return. May be called by any thread."""
        self._retiring = True
        self._flow.wake_up(self._node)

    def run(self) -> None:
        """Call until the flow stops or it is retired, then tear down. Raises UserCodeError when the code breaks its contract."""
        self.prepare()
        caller, watch = self._caller, self._watch
        assert caller is not None and watch is not None
        self._number = threading.get_ident()
        while (call := self._flow.take(self._node, wake=lambda: self._retiring)) is not None:
            began, computed = time.monotonic(), time.thread_time()
            batch = call.batch(lambda batch: select_columns(batch, self._stage))
            watch.handed(0, call)
            outcome = caller.run(batch)
            watch.spoke(0, outcome.ran)
            self.cpu_seconds += time.thread_time() - computed
            self._flow.finish(self._node, call, outcome, time.monotonic() - began)
            # Their memory must not be held while the next one is waited for, which may be long.
            del call, batch, outcome
        caller.close()

    def overdue(self) -> Overdue | None:
        """Return the call that did not come back in time. To be asked several times a second, by another thread."""
        return None if self._watch is None else self._watch.overdue()

    def stack(self) -> str:
        """Return where the thread is now."""
        frame = None if self._number is None else sys._current_frames().get(self._number)
        return "" if frame is None else "".join(traceback.format_stack(frame))
