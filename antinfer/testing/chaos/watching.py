"""What is to be seen of a job while it runs: rows published, and what its master says; looked at again and again on a thread of its own."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from antinfer.core.records import parse_output_name
from antinfer.errors import AntinferError, MasterError
from antinfer.rpc.channel import open_channel
from antinfer.rpc.client import AdminClient
from antinfer.rpc.values import Status
from antinfer.storage import layout

_EVERY_S: Final = 0.1
PATIENCE_S: Final = 1.0
"""How long a master may take to answer."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The job at one moment."""

    at: float
    """Monotonic seconds."""
    published: int
    """Input rows behind the parts that have their final names."""
    status: Status | None
    """None: no master answered."""

    @property
    def rules(self) -> bool:
        """A master answers, and grants work."""
        return self.status is not None and self.status.phase in ("running", "finishing", "done")

    def leases_of(self, worker: str) -> int:
        """Leases that the master counts for this worker; 0 for one that it does not know."""
        return sum(member.leases for member in self.status.workers if member.worker == worker) if self.status else 0

    def rows_of(self, worker: str) -> int:
        """Rows that this worker has committed in this reign."""
        return sum(member.rows_committed for member in self.status.workers if member.worker == worker) if self.status else 0


@dataclass
class Watcher:
    """Keeps every sample of a run."""

    ask: Callable[[], Status | None]
    """Of the master that rules; None: nobody answers."""
    published: Callable[[], int]
    samples: list[Sample] = field(default_factory=list)
    _failure: AntinferError | None = None
    """Why nothing is looked at any more."""
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watcher:
        _keep_core_up()
        self.look()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def last(self) -> Sample:
        """The newest one. Raises `AntinferError` when there will be none any more."""
        if self._failure is not None:
            raise self._failure
        return self.samples[-1]

    def look(self) -> Sample:
        """Take a sample now."""
        status = self.ask()
        # The time is that of the look at the output: what was seen there was there by then.
        sample = Sample(time.monotonic(), self.published(), status)
        self.samples.append(sample)
        return sample

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            try:
                self.look()
            except AntinferError as error:
                self._failure = error
                return


@functools.cache
def _keep_core_up() -> Any:
    """Return a channel that nobody uses. While there is one, gRPC's core is not taken down and put up again with every look: now and then,
    in thousands of times, a call that came in between never returned."""
    return open_channel("unix:///dev/null/nobody")


def ask_first(addresses: Iterable[str]) -> Status | None:
    """Return what the first master says that answers at one of these addresses; None: none does."""
    for address in addresses:
        try:
            with AdminClient(address) as admin:
                return admin.status(timeout_s=PATIENCE_S)
        except MasterError:
            continue
    return None


def rows_behind(names: Iterable[str]) -> int:
    """Count the input rows behind the parts among these names of an output."""
    parts = (parse_output_name(name) for name in names if name.startswith(layout.PART_PREFIX))
    return sum(stop - start for _, start, stop, _ in parts)
