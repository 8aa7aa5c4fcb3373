"""What the machine has and what of it is taken: cores, memory and GPUs, with the limits of our control group."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from antinfer.worker.cgroups import ControlGroups
from antinfer.worker.host.nvml import GpuReader
from antinfer.worker.tuning.values import Machine

_PROC: Final = Path("/proc")
PROCESS_BYTES: Final = 256 << 20
"""What a process of a map stage takes before anybody has seen one."""


def usable_cpus(proc: Path = _PROC) -> float:
    """Return the cores that this process may keep busy: those it may run on, or fewer when a control group of it has a quota."""
    quota = ControlGroups(proc).cpus()
    cores = float(len(os.sched_getaffinity(0)))
    return cores if quota is None else min(cores, quota)


class MachineReader:
    """Reads the state of the machine. To be used from one thread; cheap enough for once a second."""

    def __init__(self, gpus: Sequence[str], proc: Path = _PROC) -> None:
        """`gpus` are the names of those we may use (`visible_gpus`); `proc` is where the kernel tells the rest."""
        self._proc = proc
        self._groups = ControlGroups(proc)
        self.cpus = usable_cpus(proc)
        self._gpus = GpuReader(gpus) if gpus else None
        self._cpu_seconds = self.cpu_seconds()
        self._at = time.monotonic()

    def read(self) -> Machine:
        """Return the state now; the use of cores is that since the last call."""
        now, seconds = time.monotonic(), self.cpu_seconds()
        used = (seconds - self._cpu_seconds) / max(1e-3, now - self._at)
        self._at, self._cpu_seconds = now, seconds
        total, taken = self._memory()
        gpu_total, gpu_used = (0, 0) if self._gpus is None else self._gpus.fullest()
        return Machine(self.cpus, min(self.cpus, used), total, taken, gpu_total, gpu_used)

    def cpu_seconds(self) -> float:
        """Return the seconds for which our cores were at work: those of the group when it has a quota, else of all that runs on them."""
        if (seconds := self._groups.cpu_seconds()) is not None:
            return seconds
        ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        ticks = 0
        for line in _lines(self._proc / "stat"):
            name, *counts = line.split()
            if name in ours:
                # user, nice, system, irq, softirq, steal: all but idle and waiting for disks.
                user, nice, system, _, _, irq, softirq, steal = map(int, counts[:8])
                ticks += user + nice + system + irq + softirq + steal
        return ticks / os.sysconf("SC_CLK_TCK")

    def _memory(self) -> tuple[int, int]:
        """Return the memory there is and what of it is taken, in bytes; 0 where the system does not tell."""
        sizes = {}
        for line in _lines(self._proc / "meminfo"):
            name, _, rest = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                sizes[name] = int(rest.split()[0]) << 10
        total = sizes.get("MemTotal", 0)
        used = total - sizes.get("MemAvailable", total)
        ours = self._groups.memory()
        return ours if ours is not None and ours[0] < total else (total, used)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 when it is gone."""
    pages = _words(Path(f"/proc/{pid}/statm"))
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else 0


def cpu_seconds(pid: int) -> float:
    """Return the seconds that a process has computed; 0 when it is gone."""
    # Its name may hold anything, blanks and brackets too.
    _, _, fields = "".join(_lines(Path(f"/proc/{pid}/stat"))).rpartition(")")
    times = fields.split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        # Another kernel, or a process that is gone: what is not told does not count.
        return []


def _words(path: Path) -> list[str]:
    lines = _lines(path)
    return lines[0].split() if lines else []
