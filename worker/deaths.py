"""What a process died of, as well as can be told from outside: exit status, what it left in its black box, and the kernel's counters."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from antinfer.core.causes import Cause
from antinfer.worker.cgroups import ControlGroups

BROKEN_DEVICE: Final = 75
"""Exit code of a predictor whose device answers no call any more."""
HUNG: Final = 76
"""Exit code of a stage host in which a call of user code did not come back."""
_BOX_BYTES: Final = 16 << 10
"""Of what a process left, so much is read."""
_NEWLINE: Final = "\n"
_NOISE: Final = (f'  File "{Path(__file__).parent}{os.sep}', '  File "<frozen runpy>"', "Extension modules: ")
_PROC: Final = Path("/proc")


class DeathKind(Enum):
    """Classes of deaths; the value is what quarantined rows and the log call them."""

    SEGFAULT = "Segfault"
    ABORT = "Abort"
    OUT_OF_MEMORY = "OutOfMemory"
    KILLED = "Killed"
    SIGNAL = "Signal"
    BROKEN_DEVICE = "BrokenDevice"
    HANG = "Hang"
    EXIT = "Exit"

    @property
    def cause(self) -> Cause:
        """What the master counts it as."""
        return _CAUSES.get(self, Cause.PROCESS_CRASH)

    @property
    def cause_of_host(self) -> Cause:
        """The same of a stage host: it has no device of its own, and its crash is one of all its threads."""
        return self.cause if self in (DeathKind.OUT_OF_MEMORY, DeathKind.HANG) else Cause.HOST_DIED


_CAUSES: Final = {
    DeathKind.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
    DeathKind.BROKEN_DEVICE: Cause.GPU_FAULT,
    DeathKind.HANG: Cause.PROCESS_HANG,
}


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended."""

    kind: DeathKind
    how: str
    """Behind "the process": ``was killed by SIGSEGV (segmentation fault)``."""
    stack: str = ""
    """Where its threads were, as far as it could still say."""

    def about(self, where: str) -> str:
        """Return one line for the log and for quarantined rows; `where` names the stage."""
        return f"{self.kind.value}: the process of {where} {self.how}"


class BlackBox:
    """Shared memory into which a process writes where it is when it crashes or is asked to; it has no name, and goes with its users."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("antinfer-box")

    def text(self) -> str:
        """Return what was written so far, without frames of our own that are always the same."""
        lines = os.pread(self.descriptor, _BOX_BYTES, 0).decode(errors="replace").splitlines()
        return "\n".join(line for line in lines if line and not line.startswith(_NOISE))

    @property
    def written(self) -> int:
        """Bytes written so far."""
        return os.fstat(self.descriptor).st_size

    def close(self) -> None:
        """Let go of it; it may be done twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class OomCounter:
    """Counts kills by the kernel's OOM killer: in our control group, or on the whole machine where that is all that is told."""

    def __init__(self, proc: Path = _PROC) -> None:
        """`proc`: where the kernel tells."""
        self._group = ControlGroups(proc).oom_counter()
        self._machine = proc / "vmstat"
        self._before = self._read()

    def rise(self) -> tuple[bool, bool]:
        """Tell whether there were kills since this object was made: in our group, and anywhere."""
        group, machine = (now > before for now, before in zip(self._read(), self._before, strict=True))
        return group, machine

    def _read(self) -> tuple[int, int]:
        return 0 if self._group is None else _oom_kills(self._group), _oom_kills(self._machine)


def _oom_kills(path: Path) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0  # another kernel, or it is not ours to read: then nothing is told
    return sum(int(value) for name, _, value in (line.partition(" ") for line in lines) if name == "oom_kill" and value.isdigit())


def of_status(status: int, *, ooms: OomCounter | None = None, box: str = "") -> Death:
    """Read the `subprocess` return code of a process.

    Args:
        status: Negative for a signal.
        ooms: Made when the process was started.
        box: What it left in its black box.
    """
    if status == BROKEN_DEVICE:
        last = next((line for line in reversed(box.splitlines()) if line.strip()), "")
        return Death(DeathKind.BROKEN_DEVICE, "could not use its device any more" + (f" ({last.strip()})" if last else ""), box)
    if status == HUNG:
        return Death(DeathKind.HANG, f"ended because {box.partition(_NEWLINE)[0] or 'user code in it did not come back'}", box)
    if status >= 0:
        return Death(DeathKind.EXIT, f"exited with code {status}", box)
    if status == -signal.SIGKILL:
        return _killed(ooms, box)
    kind, words = _SIGNALS.get(-status, (DeathKind.SIGNAL, ""))
    return Death(kind, f"was killed by {_name(-status)}{words}", box)


_SIGNALS: Final[Mapping[int, tuple[DeathKind, str]]] = {
    signal.SIGSEGV: (DeathKind.SEGFAULT, " (segmentation fault)"),
    signal.SIGBUS: (DeathKind.SEGFAULT, " (bus error: a mapped file was cut short, or shared memory is full)"),
    signal.SIGABRT: (DeathKind.ABORT, " (abort: a library found itself in a state that cannot be)"),
    signal.SIGILL: (DeathKind.ABORT, " (an instruction that this CPU does not have)"),
    signal.SIGFPE: (DeathKind.ABORT, " (arithmetic error)"),
}


def _killed(ooms: OomCounter | None, box: str) -> Death:
    in_group, anywhere = (False, False) if ooms is None else ooms.rise()
    if in_group:
        return Death(DeathKind.OUT_OF_MEMORY, "was killed by SIGKILL (the OOM killer: our memory limit was reached)", box)
    if anywhere:
        return Death(DeathKind.OUT_OF_MEMORY, "was killed by SIGKILL (probably the OOM killer, which struck on this machine)", box)
    return Death(DeathKind.KILLED, "was killed by SIGKILL (from outside; the kernel tells of no lack of memory)", box)


def hung(seconds: float, why: str, box: str = "") -> Death:
    """Return the death of a process that was ended since it said nothing for `seconds`; `why`: where that limit comes from."""
    return Death(DeathKind.HANG, f"gave no sign of life for {seconds:.3g} s ({why}) and was ended", box)


def wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Wait for a process to end; None when it does not in time."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
