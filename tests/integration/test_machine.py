"""What the kernel tells of cores and memory, ours and those of our control group."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from antinfer.worker.host.machine import MachineReader, cpu_seconds, resident_bytes, usable_cpus
from antinfer.worker.host.nvml import GpuReader
from tests.controlgroups import write_groups

pytestmark = [pytest.mark.alone, pytest.mark.timeout(60)]
FIRST = {
    "memory": {"memory.limit_in_bytes": str(300 << 20)},
    "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
}
"""Limits by hierarchy, in version 1."""
SECOND = {"": {"memory.max": str(300 << 20), "cpu.max": "50000 100000"}}
"""And in version 2."""


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
    files = {
        "v2/job/cpu.max": "150000 100000",
        "v2/job/cpu.stat": "usage_usec 1000000\nuser_usec 1",
        "v2/job/memory.max": 1 << 30,
        "v2/job/memory.current": 600 << 20,
        "v2/job/memory.stat": f"anon 1\ninactive_file {100 << 20}",
        "proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB",
    }
    proc = write_groups(tmp_path, "0::/job\n", {"v2": "/"}, files)
    assert usable_cpus(proc) == min(1.5, len(os.sched_getaffinity(0)))
    reader = MachineReader((), proc)
    (tmp_path / "v2/job/cpu.stat").write_text("usage_usec 9000000\n")
    machine = reader.read()
    assert machine.cpu_used == machine.cpus and (machine.ram_total, machine.ram_used) == (1 << 30, 500 << 20)
    # More than the machine has is no limit.
    (tmp_path / "v2/job/memory.max").write_text(str(9 << 30))
    assert (reader.read().ram_total, reader.read().ram_used) == (8 << 30, 4 << 30)


@pytest.fixture
def groups() -> Iterator[list[Path]]:
    """The inner one of two groups around each other, for each controller where they have hierarchies of their own; the outer has limits."""
    mounted = Path("/sys/fs/cgroup")
    wanted = SECOND if (mounted / "cgroup.controllers").exists() else FIRST
    made: list[Path] = []
    try:
        try:
            for controller, limits in wanted.items():
                outer = mounted / controller / f"antinfer-test-{os.getpid()}"
                for group in (outer, outer / "inner"):
                    group.mkdir()
                    made.append(group)
                for name, value in limits.items():
                    (outer / name).write_text(value)
        except OSError as error:
            pytest.skip(f"no control group can be made here: {error}")
        yield made[1::2]
    finally:
        for group in reversed(made):
            group.rmdir()


def test_the_limits_around_a_real_group_hold(groups: list[Path]) -> None:
    join = 'for group in "$@"; do echo $$ > "$group/cgroup.procs" || exit 9; done; exec "$0" -c "$CODE"'
    code = "import json; from antinfer.worker.host.machine import MachineReader; m = MachineReader(()).read(); "
    code += "print(json.dumps([m.ram_total, m.ram_used, m.cpus, m.cpu_used]))"
    done = subprocess.run(
        ["sh", "-c", join, sys.executable, *map(str, groups)], env={**os.environ, "CODE": code}, capture_output=True, text=True, check=False
    )
    if done.returncode == 9:
        pytest.skip(f"no control group can be joined here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    total, used, cpus, cpu_used = json.loads(done.stdout)
    assert (total, cpus) == (300 << 20, 0.5)
    assert 1 << 20 < used < total and 0 <= cpu_used <= cpus


def test_gpus_that_cannot_be_asked_tell_nothing() -> None:
    assert GpuReader(["0"], library="libnvidia-there-is-none.so").fullest() == (0, 0)
