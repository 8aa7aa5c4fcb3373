"""Map threads: user functions that run in the host itself."""

from __future__ import annotations

import time

from antinfer.worker.calls import Caller, select_columns
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline.stagecalls import StageCall


class MapThread:
    """One copy of a stage's user code; `run` is its thread."""

    def __init__(self, node: int, stage: StageCall, flow: Flow) -> None:
        """Build the user code. Raises UserCodeError."""
        self._node = node
        self._stage = stage
        self._flow = flow
        self._caller = Caller(stage, copy=True)

    def run(self) -> None:
        """Call until the flow stops, then tear down. Raises UserCodeError when the code breaks its contract."""
        while (call := self._flow.take(self._node)) is not None:
            began = time.monotonic()
            outcome = self._caller.run(call.batch(lambda batch: select_columns(batch, self._stage)))
            self._flow.finish(self._node, call, outcome, time.monotonic() - began)
        self._caller.close()
