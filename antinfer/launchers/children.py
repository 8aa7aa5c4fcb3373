"""Child processes that a launcher starts again when they end."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import Final

from antinfer.launchers.processes import LineSink, Process
from antinfer.launchers.restarts import RestartBudget

_SPARE_AFTER_S: Final = 1.0
"""A process that has just come back has others waiting for it, who want the cores first."""


class Child:
    """One named process, and those that take its place."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        budget: RestartBudget,
        *,
        takes_input: bool = False,
        has_spare: bool = False,
    ) -> None:
        """
        Args:
            name: for people.
            module: what is run.
            arguments: of its command line.
            budget: how often it is started again.
            takes_input: it reads its standard input.
            has_spare: it does nothing that others see before it has read that. One that has died once may do so again: from then on
                another one waits to take its place.
        """
        self.name = name
        self._module = module
        self._arguments = arguments
        self._budget = budget
        self._takes_input = takes_input
        self._has_spare = has_spare
        self._process: Process | None = None
        self._spare: Process | None = None
        self._spare_at: float | None = None
        self._start_at: float | None = None
        self._input: str | None = None
        self._on_line: LineSink | None = None

    def start(self) -> None:
        self._start_at = None
        spare, self._spare = self._spare, None
        self._process = spare or self._spawn()
        if self._on_line is not None:
            self._process.hear(self._on_line)
        if self._input is not None:
            self._process.give(self._input)

    def _spawn(self) -> Process:
        return Process(self.name, self._module, self._arguments, takes_input=self._takes_input)

    def hear(self, on_line: LineSink) -> None:
        """Pass on the lines of the running process, those of the past too, and of every one that is started after it."""
        self._on_line = on_line
        assert self._process is not None
        self._process.hear(on_line)

    def give(self, text: str) -> None:
        """Write `text` to the standard input of the process, and of every one that is started after it."""
        self._input = text
        assert self._process is not None
        self._process.give(text)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive

    @property
    def last_words(self) -> str:
        """The last things it said."""
        return "" if self._process is None else "\n".join(self._process.last_lines)

    def poll(self) -> int | None:
        """Return the exit code of one that has ended (see `Process.poll`); None while it runs or waits to be started."""
        return None if self._process is None else self._process.poll()

    def restart_later(self) -> bool:
        """Plan a restart after the process ended; False when it has died too often lately."""
        assert self._process is not None
        wait_s = self._budget.ended(time.monotonic(), self._process.wait())
        if wait_s is None:
            return False
        self._process = None
        self._start_at = time.monotonic() + wait_s
        return True

    def progressed(self) -> None:
        """Take note that the job got on: deaths so far were not in vain."""
        self._budget.progressed()

    @property
    def is_charged(self) -> bool:
        """True when it died and nothing is known to have been achieved since."""
        return self._budget.is_charged

    def start_if_due(self) -> None:
        now = time.monotonic()
        if self._start_at is not None and now >= self._start_at:
            self.start()
            self._spare_at = now + _SPARE_AFTER_S if self._has_spare else None
        elif self._spare_at is not None and now >= self._spare_at and self.is_alive:
            self._spare_at = None
            self._spare = self._spawn()

    def forget_restart(self) -> None:
        self._start_at = None

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send(number)

    def kill(self) -> None:
        """End a process that nobody hears, at once."""
        self._discard_spare()
        if self._process is not None:
            self._process.kill()

    def end(self, grace_s: float) -> None:
        """Ask it to stop, and kill it when it has not after `grace_s` seconds."""
        self._discard_spare()
        if self._process is not None:
            self._process.end(grace_s)

    def _discard_spare(self) -> None:
        if self._spare is not None:
            self._spare.kill()
            self._spare = None
