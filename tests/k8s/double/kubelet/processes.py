"""A container while it runs: a real process under its shim, or one that a test only pretends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

_SHIM: Final = Path(__file__).with_name("shim.py")
_PATIENCE_S: Final = 10.0


class Process(Protocol):
    """What a kubelet does with a container."""

    exit_code: int | None
    """None while it runs."""
    failure: str
    """Why it could not be started; empty when it was."""

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def close(self) -> None: ...


class RealProcess:
    """A process tree under a shim of its own; `on_end` is called, from another thread, when all of it is gone."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path, on_end: Callable[[], None]) -> None:
        self.exit_code: int | None = None
        self.failure = ""
        self.pid: int | None = None
        self._on_end = on_end
        # There from the beginning, so that it can be read before anything has been said.
        log.touch()
        self._shim = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SHIM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
        )
        self._lock = threading.Lock()
        self._send(json.dumps({"argv": list(argv), "env": dict(env), "cwd": str(cwd), "log": str(log)}))
        self._thread = threading.Thread(target=self._listen, name="container", daemon=True)
        self._thread.start()

    def _send(self, line: str) -> None:
        assert self._shim.stdin is not None
        with self._lock:
            if self._shim.stdin.closed:
                return
            try:
                self._shim.stdin.write(line.encode() + b"\n")
            except BrokenPipeError:
                # The shim has ended, and said so on its other pipe.
                return

    def _listen(self) -> None:
        assert self._shim.stdout is not None
        with self._shim.stdout:
            for line in self._shim.stdout:
                word, _, rest = line.decode().strip().partition(" ")
                if word == "started":
                    self.pid = int(rest)
                elif word == "failed":
                    self.failure, self.exit_code = rest, 128
                elif word == "exited":
                    self.exit_code = int(rest)
        self._close_orders()
        self._shim.wait()
        if self.exit_code is None:
            # The shim was told to end everything, or was killed itself.
            self.exit_code = 137
        self._on_end()

    def _close_orders(self) -> None:
        assert self._shim.stdin is not None
        with self._lock:
            self._shim.stdin.close()

    def terminate(self) -> None:
        """SIGTERM to the first process, if it has a handler for it."""
        self._send("TERM")

    def kill(self) -> None:
        """SIGKILL to the first process, and then to all."""
        self._send("KILL")

    def close(self) -> None:
        """End everything and wait until it has ended."""
        self._close_orders()
        if threading.current_thread() is not self._thread:
            self._thread.join(_PATIENCE_S)


class PretendProcess:
    """A container without a process; `end` says how it ends. Told to terminate it ends with 143 unless it `ignores_term`."""

    def __init__(self, on_end: Callable[[], None], *, ignores_term: bool) -> None:
        self.exit_code: int | None = None
        self.failure = ""
        self._on_end = on_end
        self._ignores_term = ignores_term

    def end(self, exit_code: int) -> None:
        if self.exit_code is None:
            self.exit_code = exit_code
            self._on_end()

    def terminate(self) -> None:
        if not self._ignores_term:
            self.end(143)

    def kill(self) -> None:
        self.end(137)

    def close(self) -> None:
        """Nothing to wait for."""
