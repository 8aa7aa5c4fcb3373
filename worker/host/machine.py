"""What the machine has and what of it is taken: cores, memory and GPUs, with the limits of our control group."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from antinfer.worker.host.nvml import GpuReader
from antinfer.worker.tuning.values import Machine

_PROC: Final = Path("/proc")
_GROUPS: Final = Path("/sys/fs/cgroup")
PROCESS_BYTES: Final = 256 << 20
"""What a process of a map stage takes before anybody has seen one."""


def usable_cpus(groups: Path = _GROUPS) -> float:
    """Return the cores that this process may keep busy: those it may run on, or fewer when its control group has a quota."""
    cores = float(len(os.sched_getaffinity(0)))
    quota = _words(groups / "cpu.max")
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, int(quota[0]) / int(quota[1]))
    return cores


class MachineReader:
    """Reads the state of the machine. To be used from one thread; cheap enough for once a second."""

    def __init__(self, gpus: Sequence[str], proc: Path = _PROC, groups: Path = _GROUPS) -> None:
        """`gpus` are the names of those we may use (`visible_gpus`); the folders are where the kernel tells the rest."""
        self._proc, self._groups = proc, groups
        self.cpus = usable_cpus(groups)
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
        if _words(self._groups / "cpu.max")[:1] not in ([], ["max"]):
            for key, value in self._pairs("cpu.stat"):
                if key == "usage_usec":
                    return int(value) / 1e6
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
        limit = _words(self._groups / "memory.max")
        current = _words(self._groups / "memory.current")
        if limit and limit[0].isdigit() and int(limit[0]) < total and current:
            # What is cached of files goes when somebody needs the room.
            cached = sum(int(value) for key, value in self._pairs("memory.stat") if key == "inactive_file")
            total, used = int(limit[0]), max(0, int(current[0]) - cached)
        return total, used

    def _pairs(self, name: str) -> list[tuple[str, str]]:
        return [(key, value) for key, _, value in (line.partition(" ") for line in _lines(self._groups / name))]


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
