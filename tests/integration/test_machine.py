"""What the kernel tells of cores and memory, ours and those of our control group."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from antinfer.worker.host.machine import MachineReader, cpu_seconds, resident_bytes, usable_cpus
from antinfer.worker.host.nvml import GpuReader

pytestmark = [pytest.mark.alone, pytest.mark.timeout(60)]


def test_the_machine_is_read() -> None:
    reader = MachineReader(())
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass
    machine = reader.read()
    assert 0 < machine.cpus <= (os.cpu_count() or 1)
    assert 0.3 < machine.cpu_used <= machine.cpus
    assert 0 < machine.ram_used < machine.ram_total and (machine.gpu_total, machine.gpu_used) == (0, 0)
    assert resident_bytes(os.getpid()) > 10 << 20 and resident_bytes(2**30) == 0
    assert cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=0.1) and cpu_seconds(2**30) == 0


def test_the_limits_of_a_control_group_hold(tmp_path: Path) -> None:
    for name, text in {
        "cpu.max": "150000 100000",
        "cpu.stat": "usage_usec 1000000\nuser_usec 1\n",
        "memory.max": str(1 << 30),
        "memory.current": str(600 << 20),
        "memory.stat": f"anon 1\ninactive_file {100 << 20}\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert usable_cpus(tmp_path) == min(1.5, len(os.sched_getaffinity(0)))
    reader = MachineReader((), groups=tmp_path)
    (tmp_path / "cpu.stat").write_text("usage_usec 9000000\n")
    machine = reader.read()
    assert machine.cpu_used == machine.cpus and (machine.ram_total, machine.ram_used) == (1 << 30, 500 << 20)


def test_gpus_that_cannot_be_asked_tell_nothing() -> None:
    assert GpuReader(["0"], library="libnvidia-there-is-none.so").fullest() == (0, 0)
