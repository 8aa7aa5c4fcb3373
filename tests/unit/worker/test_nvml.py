"""What the driver's library is asked, and what is made of its answers."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from antinfer.worker.host.nvml import GpuReader
from antinfer.worker.predictors.serve import _device_name

MODELS = {b"0": b"NVIDIA H200", b"GPU-5": b"NVIDIA L4"}


class Library:
    """A driver with two devices."""

    def __init__(self, name: str) -> None:
        self.known = list(MODELS)

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        return self.nvmlDeviceGetHandleByUUID(str(index.value).encode(), handle)

    def nvmlDeviceGetHandleByUUID(self, name: bytes, handle: Any) -> int:
        if name not in self.known:
            return 6
        handle._obj.value = 1 + self.known.index(name)
        return 0

    def nvmlDeviceGetName(self, handle: Any, text: Any, size: Any) -> int:
        text.value = MODELS[self.known[handle.value - 1]]
        return 0


@pytest.mark.parametrize(
    ("devices", "name"), [(["0"], "NVIDIA H200"), (["GPU-5", "0"], "NVIDIA L4"), (["7"], "GPU 7"), ([], "CPU"), (None, "CPU")]
)
def test_a_device_is_known_by_its_model_without_torch(monkeypatch: pytest.MonkeyPatch, devices: list[str] | None, name: str) -> None:
    monkeypatch.setattr(ctypes, "CDLL", Library)
    assert _device_name(devices) == name


def test_without_the_library_it_is_known_by_its_number() -> None:
    assert GpuReader(["0"], library="libnvidia-there-is-none.so").model() == ""
