"""The parent of one container's processes: starts the first, passes signals to it, and leaves nobody behind.

It is run as a script, apart from everything else, so that it is there in milliseconds. The first line on its standard input says
what to run (JSON: argv, env, cwd, log); later lines are `TERM` and `KILL`; the end of the input means that the double has died, and
the container with it. It says `started PID`, `failed WHY` and `exited CODE` on its standard output.

As the first process of a container does in its own PID namespace, so here the end of the first process is the end of all: the shim
adopts whatever a container starts, and kills what is left. And a first process without a handler for SIGTERM is not touched by it.
"""

import ctypes
import json
import os
import select
import signal
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _say(text: str) -> None:
    try:
        os.write(1, f"{text}\n".encode())
    except BrokenPipeError:
        # Nobody listens any more; the end of the input says what to do.
        return


class _Lines:
    """Lines from a descriptor, without a buffer that `select` does not see."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._rest = b""

    def read(self) -> list[bytes] | None:
        """The lines that have come; None at the end. Blocks where nothing has."""
        data = os.read(self.descriptor, 65536)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines


def _start(spec: dict[str, Any], libc: ctypes.CDLL) -> int:
    """Start the first process. Raises OSError where it cannot be executed."""
    told, tell = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            log = os.open(spec["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(spec["cwd"])
            os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
        except OSError as error:
            os.write(tell, f"{error.errno}".encode())
        os._exit(127)
    os.close(tell)
    trouble = os.read(told, 100)
    os.close(told)
    if trouble:
        os.waitpid(pid, 0)
        raise OSError(int(trouble), os.strerror(int(trouble)))
    return pid


def _handles_term(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status") as status:
            caught = next(line for line in status if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as listing:
        return [int(pid) for pid in listing.read().split()]


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        # It ended in this very moment.
        return


def _reap(first: int) -> int | None:
    """Collect all that have ended; the status of the first process when it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == first:
            found = status


def _kill_the_rest() -> None:
    """Kill every descendant: those whose parent dies become our own children."""
    while True:
        for pid in _children():
            _kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    orders = _Lines(0)
    lines: list[bytes] | None = []
    while lines == []:
        lines = orders.read()
    if lines is None:
        return
    try:
        first = _start(json.loads(lines.pop(0)), libc)
    except OSError as error:
        _say(f"failed {error.strerror}")
        return
    _say(f"started {first}")
    status = None
    while status is None:
        for line in lines or []:
            if line == b"KILL" or (line == b"TERM" and _handles_term(first)):
                _kill(first, signal.SIGKILL if line == b"KILL" else signal.SIGTERM)
        ready, _, _ = select.select([orders.descriptor, woken], [], [])
        lines = []
        if orders.descriptor in ready:
            lines = orders.read()
            if lines is None:
                break
        if woken in ready:
            os.read(woken, 4096)
            status = _reap(first)
    _kill_the_rest()
    if status is not None:
        code = os.waitstatus_to_exitcode(status)
        _say(f"exited {128 - code if code < 0 else code}")


if __name__ == "__main__":
    main()
