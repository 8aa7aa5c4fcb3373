"""How busy GPUs and CPUs are, looked at from outside while a contestant runs."""

from __future__ import annotations

import os
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

INTERVAL: Final = 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    gpus: tuple[float, ...]
    """Share of the driver's last period in which a kernel ran, for each GPU."""
    gpu_bytes: tuple[int, ...]
    cores: float
    """Cores busy since the sample before."""


class Sampler:
    """Samples from a thread of its own, from ``with`` to the end of it."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join()

    def summary(self, window: tuple[float, float] | None) -> dict[str, Any]:
        """Return means over `window`, of the monotonic clock, or over everything (JSON data)."""
        inside = [sample for sample in self.samples if window is None or window[0] <= sample.at <= window[1]]
        if not inside:
            return {}
        gpus = len(inside[0].gpus)
        return {
            "gpu_busy": [round(statistics.fmean(sample.gpus[n] for sample in inside), 4) for n in range(gpus)],
            "gpu_bytes_most": [max(sample.gpu_bytes[n] for sample in self.samples) for n in range(gpus)],
            "cores_busy": round(statistics.fmean(sample.cores for sample in inside), 2),
            "samples": len(inside),
        }

    def _run(self) -> None:
        devices = _Devices()
        before = _cpu_seconds(), time.monotonic()
        while not self._ending.wait(INTERVAL):
            busy, at = _cpu_seconds(), time.monotonic()
            shares, used = devices.read()
            self.samples.append(Sample(at, shares, used, (busy - before[0]) / (at - before[1])))
            before = busy, at


class _Devices:
    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        if gpu_names():
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]

    def read(self) -> tuple[tuple[float, ...], tuple[int, ...]]:
        shares = tuple(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100 for handle in self._handles)
        used = tuple(int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in self._handles)
        return shares, used


def gpu_names() -> list[str]:
    """Return the names of the GPUs here, none where there is no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no package, no driver, no device: all say the same
        return []
    names = [pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(n)) for n in range(pynvml.nvmlDeviceGetCount())]
    return [name if isinstance(name, str) else name.decode() for name in names]


def _cpu_seconds() -> float:
    """Return the seconds that all cores together were busy since the machine started."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
