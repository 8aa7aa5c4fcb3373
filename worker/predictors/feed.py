"""What a predictor is fed by, as it sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.splitter import Outcome


class Feed(Protocol):
    """Where a predictor's batches come from and go to (`host.flow.Flow`)."""

    def take(self, node: int, *, want: bool = True, owed: int = 0, wake: Callable[[], bool] = ...) -> Assembled | None: ...

    def wake_up(self, node: int) -> None: ...

    def hold(self, node: int) -> None: ...

    def finish(self, node: int, call: Assembled, outcome: Outcome, seconds: float) -> None: ...

    def batch_rows(self, node: int) -> int: ...

    def set_batch_rows(self, node: int, rows: int) -> bool: ...
