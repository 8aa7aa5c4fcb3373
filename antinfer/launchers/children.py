"""Child processes of a launcher: started fresh, heard line by line, ended for sure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from antinfer.launchers.restarts import RestartBudget

_SPARE_AFTER_S: Final = 1.0
"""A process that has just come back has others waiting for it, who want the cores first."""

LineSink = Callable[[str, str], None]
"""Takes the name of a child and one line that it wrote to standard error or standard output."""


class Child:
    """One named process that runs a module of ours, and whose lines go to a sink.

    It gets a session of its own, so that Ctrl-C reaches the launcher alone, and is told our process id, so that it dies with us.
    """

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
        self._takes_input = takes_input
        self._has_spare = has_spare
        self._spare: subprocess.Popen[str] | None = None
        self._spare_at: float | None = None
        self._input: str | None = None
        self._command = [sys.executable, "-m", module, *arguments, "--parent", str(os.getpid())]
        self._on_line: LineSink | None = None
        self._budget = budget
        self._process: subprocess.Popen[str] | None = None
        self._pump: threading.Thread | None = None
        self._start_at: float | None = None
        self.last_lines: deque[str] = deque(maxlen=40)
        """The last things it said, for the error message when it keeps dying."""

    def start(self) -> None:
        self._start_at = None
        spare, self._spare = self._spare, None
        self._process = spare or self._spawn()
        if self._on_line is not None:
            self.hear(self._on_line)
        if self._input is not None:
            self.give(self._input)

    def _spawn(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE if self._takes_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def hear(self, on_line: LineSink) -> None:
        """Pass on the lines of the running process, those of the past too, and of every one that is started after it."""
        self._on_line = on_line
        self._pump = threading.Thread(target=self._read, args=(self._process, on_line), name=f"lines of {self.name}", daemon=True)
        self._pump.start()

    def give(self, text: str) -> None:
        """Write `text` to the standard input of the process, and of every one that is started after it."""
        self._input = text
        assert self._process is not None and self._process.stdin is not None
        try:
            with self._process.stdin as stdin:
                stdin.write(text)
        except BrokenPipeError:
            return  # it has died already; whoever polls it will see

    def _read(self, process: subprocess.Popen[str], on_line: LineSink) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.last_lines.append(line.rstrip("\n"))
                on_line(self.name, line.rstrip("\n"))

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def poll(self) -> int | None:
        """Return the exit status once the process has ended and all its lines were passed on; None while it runs or waits to be started."""
        if self._process is None or self._process.poll() is None:
            return None
        if self._pump is not None:
            # Its own children may hold the pipe open a moment longer than it lives.
            self._pump.join(timeout=1.0)
        return self._process.returncode

    def restart_later(self, least_s: float = 0.0) -> bool:
        """Plan a restart, not before `least_s` seconds, after the process ended; False when it has died too often lately."""
        assert self._process is not None
        wait_s = self._budget.ended(time.monotonic(), self._process.returncode)
        if wait_s is None:
            return False
        self._process = None
        self._start_at = time.monotonic() + max(wait_s, least_s)
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

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End a process that nobody hears, at once."""
        self._discard_spare()
        if self._process is not None:
            with self._process:
                self._process.kill()

    def end(self, grace_s: float) -> None:
        """Ask it to stop, and kill it when it has not after `grace_s` seconds."""
        self._discard_spare()
        if self._process is None:
            return
        if self.is_alive:
            self.send(signal.SIGTERM)
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self.poll()

    def _discard_spare(self) -> None:
        if self._spare is not None:
            with self._spare:
                self._spare.kill()
            self._spare = None


def explain_exit(status: int) -> str:
    """Say how a process ended, for people."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
