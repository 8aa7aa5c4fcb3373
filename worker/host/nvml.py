"""GPUs, what they are and their memory, asked of the driver's own library (NVML): microseconds a call, no context, nothing to install."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

_LIBRARY = "libnvidia-ml.so.1"
_SUCCESS = 0
_NAME_BYTES = 96


class _Memory(ctypes.Structure):
    """``nvmlMemory_t``: bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class GpuReader:
    """Reads what there is to know of some GPUs; where the library is missing, or does not know a device, nothing is told."""

    def __init__(self, names: Sequence[str], library: str = _LIBRARY) -> None:
        """`names`: as in ``CUDA_VISIBLE_DEVICES``, numbers or UUIDs."""
        self._handles: list[ctypes.c_void_p] = []
        try:
            self._nvml = ctypes.CDLL(library)
        except OSError:
            return
        if self._nvml.nvmlInit_v2() != _SUCCESS:
            return
        for name in names:
            handle = ctypes.c_void_p()
            if name.isdigit():
                code = self._nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
            else:
                code = self._nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
            if code == _SUCCESS:
                self._handles.append(handle)

    def fullest(self) -> tuple[int, int]:
        """Return the memory of the fullest GPU, and what of it is taken, in bytes; zeros when nothing is known."""
        found = []
        for handle in self._handles:
            memory = _Memory()
            if self._nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == _SUCCESS and memory.total:
                found.append((int(memory.total), int(memory.used)))
        return max(found, key=lambda each: each[1] / each[0], default=(0, 0))

    def model(self) -> str:
        """Return the model of the first GPU that is known, as CUDA calls it too; empty when nothing is known."""
        text = ctypes.create_string_buffer(_NAME_BYTES)
        for handle in self._handles:
            if self._nvml.nvmlDeviceGetName(handle, text, ctypes.c_uint(_NAME_BYTES)) == _SUCCESS:
                return text.value.decode(errors="replace")
        return ""
