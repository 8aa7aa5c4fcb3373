"""What a measurement costs: CPU time of this process and of all that descend from it, and the share of time in which the GIL is held."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_NAP_SECONDS = 0.002
_LATE_SECONDS = 0.001
"""Who wakes up so late has waited for the GIL, unless no core was free."""


def cpu_seconds() -> float:
    """Return the CPU time that this process and its living descendants have used so far."""
    return time.process_time() + sum(_descendants(os.getpid()))


def _descendants(root: int) -> list[float]:
    """Return the CPU seconds of each process that descends from `root`."""
    seconds: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name before the last parenthesis may hold anything.
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        seconds[int(entry.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
        children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        for child in children.get(todo.pop(), []):
            found.append(seconds[child])
            todo.append(child)
    return found


class OthersGauge:
    """Which share of the cores processes of others take, from its making on."""

    def __init__(self) -> None:
        self._cores = os.sched_getaffinity(0)
        self._began = time.monotonic()
        self._before = self._others_seconds()

    def share(self) -> float:
        """Return the share so far; 0 where the kernel does not say. Processes of ours that were started since must have ended."""
        seconds = (time.monotonic() - self._began) * len(self._cores)
        return min(1.0, max(0.0, (self._others_seconds() - self._before) / seconds))

    def _others_seconds(self) -> float:
        names = {f"cpu{core}" for core in self._cores}
        try:
            lines = [line.split() for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines()]
        except OSError:
            return 0.0
        # user, nice, system; idle and waiting follow; then interrupts of two kinds, and what another guest of the machine took.
        busy = sum(int(line[at]) for line in lines if line and line[0] in names for at in (1, 2, 3, 6, 7, 8)) / _TICKS
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return busy - time.process_time() - ended.ru_utime - ended.ru_stime


class GilProbe:
    """Samples whether the GIL is free: a thread that naps, and notes how late it is back. Disturbs next to nothing."""

    def __init__(self) -> None:
        self._over = False
        self._naps = 0
        self._late = 0
        self._thread = threading.Thread(target=self._run, name="gil-probe", daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """End the sampling and return the share of time in which somebody held the GIL, about."""
        self._over = True
        self._thread.join()
        return self._late / max(1, self._naps)

    def _run(self) -> None:
        with _QueueClock() as queued:
            while not self._over:
                before, began = queued.seconds(), time.perf_counter()
                time.sleep(_NAP_SECONDS)
                late = time.perf_counter() - began - _NAP_SECONDS
                # On a busy machine a thread waits for a core too, which is nobody's fault here.
                self._late += late > _LATE_SECONDS and late - (queued.seconds() - before) > _LATE_SECONDS
                self._naps += 1


class _QueueClock:
    """How long the thread that enters it has waited for a core so far; stands still where the kernel does not count that."""

    def __enter__(self) -> _QueueClock:
        try:
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        except OSError:
            self._file = -1
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)

    def seconds(self) -> float:
        # One call of the kernel: whatever is waited for after it is not in the figure.
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9 if self._file >= 0 else 0.0
