"""The copies of one stage: threads or predictor processes, as in a run, at whatever they are fed from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from antinfer.worker.calls import Caller, select_columns
from antinfer.worker.pipeline.graph import Call, Node
from antinfer.worker.predictors.feed import Feed
from antinfer.worker.predictors.placing import PredictorPlaces
from antinfer.worker.profiling.model import RunsAs

_JOIN_SECONDS = 15.0


class Bed(Feed, Protocol):
    """Where copies get their batches, and what ends them."""

    def stop(self) -> None: ...

    def fail(self, error: BaseException) -> None: ...

    def check(self) -> None: ...


class MapCopy:
    """One copy of a stage that runs in a thread of this process."""

    def __init__(self, node: int, call: Call, feed: Feed) -> None:
        """Build the user code. Raises UserCodeError."""
        self._node = node
        self._stage = call.stage
        self._feed = feed
        self._caller = Caller(call.stage, copy=True)

    def run(self) -> None:
        """Call until there is nothing more, then tear down. Raises UserCodeError when the code breaks its contract."""
        while (call := self._feed.take(self._node)) is not None:
            began = time.monotonic()
            outcome = self._caller.run(call.batch(lambda batch: select_columns(batch, self._stage)))
            self._feed.finish(self._node, call, outcome, time.monotonic() - began)
        self._caller.close()


def lone(call: Call, runs_as: RunsAs, degree: int) -> Call:
    """Return `call` with exactly `degree` copies, all of one kind."""
    spec = None if call.spec is None else call.spec.model_copy(update={"concurrency": degree})
    return replace(call, degree=degree, in_processes=runs_as == "processes", spec=spec)


@contextmanager
def working(nodes: Sequence[Node], bed: Bed, cpus: int, gpus: Sequence[str]) -> Iterator[float | None]:
    """Run all copies of the calls among `nodes` for as long as the block does. Yields the seconds until the processes were ready.

    Raises:
        UserError: GPUs that are asked for are not there.
        UserCodeError: The user code cannot be built or torn down, or breaks its contract.
    """
    threads: list[threading.Thread] = []

    def start(target: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                target()
            except BaseException as error:  # noqa: BLE001 - raised where the results are waited for
                bed.fail(error)

        threads.append(threading.Thread(target=guarded, daemon=True))
        threads[-1].start()

    try:
        began = time.monotonic()
        predictors = [predictor for _, predictor in PredictorPlaces(nodes, bed, cpus, gpus).first()]
        for predictor in predictors:
            start(predictor.run)
        calls = [(at, node) for at, node in enumerate(nodes) if isinstance(node, Call) and not node.in_processes]
        copies = [MapCopy(at, node, bed) for at, node in calls for _ in range(node.degree)]
        for predictor in predictors:
            while not predictor.wait_ready(0.1):
                bed.check()
        loaded = time.monotonic() - began if predictors else None
        for copy in copies:
            start(copy.run)
        yield loaded
    finally:
        bed.stop()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    bed.check()
