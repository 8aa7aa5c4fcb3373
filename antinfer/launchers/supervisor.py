"""One run of a job, watched over by the process of its user: a master, and whatever brings workers to it.

A supervisor restarts whatever dies, drains on the first Ctrl-C, and leaves nothing behind. Killed itself, it takes all of it along, and the
same call resumes.
"""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, Protocol

from antinfer.errors import InfraError, Interrupted, MasterError
from antinfer.launchers.children import Child
from antinfer.launchers.outcome import Outcome
from antinfer.launchers.processes import LineSink, keeps_dying

if TYPE_CHECKING:
    from antinfer.rpc.channel import Tls
    from antinfer.rpc.client import AdminClient
    from antinfer.rpc.values import Status
    from antinfer.spec.schema import JobSpec

POLL_S: Final = 0.02
RESUMES: Final = "the same command resumes the job"
_STATUS_S: Final = 0.5
_STATUS_AFTER_DEATH_S: Final = 0.1
"""What dies again and again should not be taken for hopeless because nobody looked in between."""
_FIRST_STATUS_S: Final = 2.0
"""Before that a status says little, and a short job is done."""
_MASTER_GRACE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a job, wherever its workers are."""

    workers: int | None = None
    """Workers; None: as in the job, at least one."""
    force: bool = False
    """Go on although the job file or the code changed, or very many parts are to be expected."""
    retry: int = 0
    """Retry round to do, of what is in quarantine; 0: the job itself."""
    drain_s: float = 30.0
    """Time the workers get to commit what they have finished after the first Ctrl-C."""
    verbose: bool = False


class Crew(Protocol):
    """Those that work, or see to it that others do."""

    def tend(self) -> None:
        """Start again who has died, if it is time. Raises `AntinferError` when that is in vain."""

    def progressed(self) -> None:
        """Take note that the job got on: deaths so far were not in vain."""

    @property
    def is_charged(self) -> bool:
        """True when some died and nothing is known to have been achieved since."""

    def drain(self) -> None:
        """Have all of them leave in order; none is started any more."""

    @property
    def is_alive(self) -> bool:
        """True until the last one has ended."""

    def end(self) -> None:
        """End what is left, in a few seconds."""


class Supervisor(ABC):
    """Runs one job."""

    def __init__(self, options: RunOptions, *, on_line: LineSink, on_status: Callable[[Status | None], None]) -> None:
        """
        Args:
            options: how.
            on_line: takes every line that a process of ours writes.
            on_status: takes the master's view twice a second, but not of the first seconds; None while it does not answer.
        """
        self._options = options
        self._on_line = on_line
        self._on_status = on_status
        self._signals = 0
        self._ending = ExitStack()
        self._master: Child | None = None
        self._crew: Crew
        self._changed = threading.Event()
        """Set by who knows that there is something new to look at."""
        self._rows = 0
        """Most rows that were ever seen committed."""
        self._address = ""
        """Where the master listens, once it is started."""
        self._token = ""
        self._tls: Tls | None = None
        self._outcome_file: Path

    def run(self, load: Callable[[], JobSpec]) -> JobSpec:
        """Start everything and return when the job is done.

        Args:
            load: reads the job; called when the first processes have been started, because their imports take as long.

        Returns:
            What `load` returned.

        Raises:
            Interrupted: Ctrl-C or SIGTERM, or somebody cancelled the job; what was finished is committed.
            AntinferError: What the master gave the job up with, or processes that keep dying.
        """
        try:
            with self._catching_signals():
                spec = self._begin(load)
                self._watch()
                return spec
        finally:
            self._ending.close()
            self._crew.end()
            if self._master is not None:
                self._master.end(_MASTER_GRACE_S)
            self._clean_up()

    @abstractmethod
    def _begin(self, load: Callable[[], JobSpec]) -> JobSpec:
        """Start the processes; return what `load` returned."""

    @abstractmethod
    def _clean_up(self) -> None:
        """Remove what is left when all processes have ended."""

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _watch(self) -> None:
        next_status = time.monotonic() + _FIRST_STATUS_S
        while True:
            outcome = self._tend_master()
            if outcome is not None:
                self._on_status(None)
                if outcome.status == "failed":
                    raise outcome.to_error()
                if outcome.status == "stopped":
                    raise Interrupted(outcome.message, hint=RESUMES)
                return
            self._crew.tend()
            if self._signals:
                self._drain()
            if time.monotonic() >= next_status:
                self._show()
                is_charged = self._crew.is_charged or (self._master is not None and self._master.is_charged)
                next_status = time.monotonic() + (_STATUS_AFTER_DEATH_S if is_charged else _STATUS_S)
            self._changed.wait(POLL_S)
            self._changed.clear()

    def _tend_master(self) -> Outcome | None:
        assert self._master is not None
        self._master.start_if_due()
        code = self._master.poll()
        if code is None:
            return None
        outcome = Outcome.read(self._outcome_file)
        if outcome is not None:
            return outcome
        said = self._master.last_words
        if not self._master.restart_later():
            raise InfraError(keeps_dying(self._master.name, code, said), hint=RESUMES)
        return None

    def _drain(self) -> None:
        """Let the workers commit what they have finished; a second signal ends everything at once."""
        self._crew.drain()
        until = time.monotonic() + self._options.drain_s
        while self._crew.is_alive and self._signals == 1 and time.monotonic() < until:
            self._tend_master()
            self._show()
            time.sleep(0.1)
        raise Interrupted("stopped; what was finished is committed", hint=RESUMES)

    def _show(self) -> None:
        try:
            status = self._admin.status(timeout_s=2.0)
        except MasterError:
            status = None
        if status is not None and status.rows_committed > self._rows:
            self._rows = status.rows_committed
            self._crew.progressed()
            if self._master is not None:
                self._master.progressed()
        self._on_status(status)

    @cached_property
    def _admin(self) -> AdminClient:
        # Not before it is used: gRPC takes longer to import than a short job has left, while its processes want every core.
        from antinfer.rpc.client import AdminClient

        return self._ending.enter_context(AdminClient(self._address, token=self._token, tls=self._tls))

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def count(number: int, frame: FrameType | None) -> None:
            self._signals += 1

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
