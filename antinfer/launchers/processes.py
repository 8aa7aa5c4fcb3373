"""One child process of a launcher, from its start to its end: heard line by line, ended for sure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from antinfer.core.scaling import exits

_LAST_LINES: Final = 40
_LATE_LINES_S: Final = 1.0
"""Its own children may hold its output open a moment longer than it lives."""

LineSink = Callable[[str, str], None]
"""Takes the name of a process and one line that it wrote to standard error or standard output."""


class Process:
    """A process that runs a module of ours.

    It gets a session of its own, so that Ctrl-C reaches the launcher alone, and is told our process id, so that it dies with the thread
    that makes this object.
    """

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], *, takes_input: bool = False, environ: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            name: for people.
            module: what is run.
            arguments: of its command line.
            takes_input: it reads its standard input.
            environ: what it finds in its environment beside ours.

        Raises:
            OSError: The system starts no more processes.
        """
        self.name = name
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        """The last things it said, once somebody hears it."""
        self._pump: threading.Thread | None = None
        self._popen = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, "--parent", str(os.getpid())],
            stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, **(environ or {})},
        )

    def hear(self, on_line: LineSink) -> None:
        """Pass on its lines, those of the past too."""
        self._pump = threading.Thread(target=self._read, args=(on_line,), name=f"lines of {self.name}", daemon=True)
        self._pump.start()

    def give(self, text: str) -> None:
        """Write `text` to its standard input, and close that."""
        assert self._popen.stdin is not None
        # One that has died already is seen by whoever waits for it.
        with suppress(BrokenPipeError), self._popen.stdin as stdin:
            stdin.write(text)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def poll(self) -> int | None:
        """Return the exit code (a signal as 128 and its number) once it has ended and all its lines were passed on; None before."""
        return self.wait() if self._popen.poll() is not None else None

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until it has ended and all its lines were passed on; return the exit code as `poll` does.

        Raises:
            subprocess.TimeoutExpired: It has not ended after `timeout_s` seconds.
        """
        code = exits.of_process(self._popen.wait(timeout_s))
        if self._pump is not None:
            self._pump.join(timeout=_LATE_LINES_S)
        elif self._popen.stdout is not None:
            self._popen.stdout.close()
        return code

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """End one that nobody hears, at once."""
        with self._popen:
            self._popen.kill()

    def end(self, grace_s: float) -> None:
        """Ask it to stop, and kill it when it has not after `grace_s` seconds."""
        if self.is_alive:
            self.send(signal.SIGTERM)
            try:
                self._popen.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        self.wait()

    def _read(self, on_line: LineSink) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for line in lines:
                self.last_lines.append(line.rstrip("\n"))
                on_line(self.name, line.rstrip("\n"))


def explain_exit(code: int) -> str:
    """Say for people how a process ended with `code` (a signal as 128 and its number)."""
    if code <= 128:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(code - 128).name}"
    except ValueError:
        return f"killed by signal {code - 128}"


def keeps_dying(name: str, code: int, said: str) -> str:
    """Return the error of a process that is not started any more: how it ended with `code` at last, and what it said before."""
    words = "\n".join(f"  {line}" for line in said.splitlines()) or "  (it said nothing)"
    return f"the {name} keeps dying, at last with {explain_exit(code)}. Its last words:\n{words}"
