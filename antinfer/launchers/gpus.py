"""Which GPUs this process may use, found without loading torch or a driver, and how another one is told to use fewer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from antinfer.spec.devices import Lot

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ROOM = "ANTINFER_GPU_ROOM"
_DEVICE = re.compile(r"nvidia\d+")
_NVIDIA_SMI_SECONDS = 20.0


def visible_gpus(environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> tuple[str, ...]:
    """Return the names by which ``CUDA_VISIBLE_DEVICES`` calls the GPUs of this process; empty when there are none.

    That variable decides where it is set. Otherwise the device files are counted, or what nvidia-smi lists.
    """
    chosen = environ.get(_VISIBLE)
    if chosen is not None:
        return _chosen(chosen)
    if environ.get("NVIDIA_VISIBLE_DEVICES") in ("none", "void"):
        return ()
    try:
        count = sum(_DEVICE.fullmatch(entry.name) is not None for entry in devices.iterdir())
    except OSError:
        count = 0
    # A container may be given the third device alone; to CUDA it is number 0.
    return tuple(map(str, range(count or _listed())))


def gpu_room(environ: Mapping[str, str] = os.environ) -> float:
    """Return how much of each of its GPUs this process may use: 0.5 where another worker has the other half."""
    return float(environ.get(_ROOM, "1"))


def environment(lot: Lot) -> dict[str, str]:
    """Return what a process finds in its environment that may use `lot`, and nothing else of the machine's GPUs."""
    return {_VISIBLE: ",".join(lot.gpus), _ROOM: str(lot.room)}


def _chosen(text: str) -> tuple[str, ...]:
    names: list[str] = []
    for name in map(str.strip, text.split(",")):
        # As CUDA reads it: what follows the first one that is no device does not count.
        if not name or name.startswith("-") or not (name.isdigit() or name.startswith(("GPU-", "MIG-"))):
            break
        names.append(name)
    return tuple(names)


def _listed() -> int:
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0
