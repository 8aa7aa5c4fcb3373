"""What processes are said to have died of."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from antinfer.worker import deaths, families
from antinfer.worker.deaths import BlackBox, DeathKind, OomCounter
from tests.controlgroups import write_groups


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (-signal.SIGSEGV, DeathKind.SEGFAULT, "SIGSEGV (segmentation fault)"),
        (-signal.SIGBUS, DeathKind.SEGFAULT, "SIGBUS"),
        (-signal.SIGABRT, DeathKind.ABORT, "SIGABRT"),
        (-signal.SIGKILL, DeathKind.KILLED, "from outside"),
        (-signal.SIGUSR1, DeathKind.SIGNAL, "SIGUSR1"),
        (-50, DeathKind.SIGNAL, "signal 50"),
        (3, DeathKind.EXIT, "code 3"),
        (deaths.BROKEN_DEVICE, DeathKind.BROKEN_DEVICE, "RuntimeError: CUDA error: an illegal memory access"),
        (deaths.HUNG, DeathKind.HANG, "map 'x' did not come back"),
    ],
)
def test_every_status_has_its_name(status: int, kind: DeathKind, words: str) -> None:
    box = "map 'x' did not come back\nFile\nRuntimeError: CUDA error: an illegal memory access\n"
    death = deaths.of_status(status, box=box)
    assert death.kind is kind and words in death.how
    assert death.about("predict 'M'").startswith(f"{kind.value}: the process of predict 'M' ")


def write(folder: Path, version: int, group: int, machine: int) -> Path:
    if version == 1:
        files = {"memory/job/memory.oom_control": f"oom_kill_disable 0\nunder_oom 0\noom_kill {group}"}
        proc = write_groups(folder, "4:memory:/job\n", {"memory": "/ memory"}, files)
    else:
        files = {"v2/job/memory.events": f"low 0\noom 9\noom_kill {group}\noom_group_kill 9"}
        proc = write_groups(folder, "0::/job\n", {"v2": "/"}, files)
    (proc / "vmstat").write_text(f"pgfault 17\noom_kill {machine}\n")
    return proc


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("group", "machine", "kind", "words"),
    [(1, 1, DeathKind.KILLED, "from outside"), (1, 2, DeathKind.OUT_OF_MEMORY, "probably"), (2, 2, DeathKind.OUT_OF_MEMORY, "our memory")],
)
def test_a_kill_for_lack_of_memory_is_told_by_the_kernels_counters(
    tmp_path: Path, version: int, group: int, machine: int, kind: DeathKind, words: str
) -> None:
    ooms = OomCounter(write(tmp_path, version, 1, 1))
    write(tmp_path, version, group, machine)
    death = deaths.of_status(-signal.SIGKILL, ooms=ooms)
    assert death.kind is kind and words in death.how


def test_where_the_kernel_tells_nothing_nothing_is_claimed(tmp_path: Path) -> None:
    assert OomCounter(tmp_path).rise() == (False, False)


def test_a_black_box_holds_what_a_crash_leaves() -> None:
    box = BlackBox()
    code = f"from antinfer.worker import blackbox\nblackbox.keep({box.descriptor})\nimport ctypes\nctypes.string_at(0)"
    done = subprocess.run([sys.executable, "-c", code], pass_fds=[box.descriptor], check=False)
    assert done.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in box.text() and 'File "<string>", line 4' in box.text() and "Extension" not in box.text()
    box.close()
    box.close()


def test_a_family_is_ended_whatever_groups_it_made() -> None:
    sleeper = "import time; time.sleep(600)"
    code = (
        "import subprocess, sys, os\n"
        f"made = [subprocess.Popen([sys.executable, '-c', {sleeper!r}], process_group=group) for group in (None, 0)]\n"
        "print(*(one.pid for one in made), flush=True)\n" + sleeper
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True) as head:
        assert head.stdout is not None
        children = [int(pid) for pid in head.stdout.readline().split()]
        assert {head.pid, *children} == set(families.members(head.pid))
        families.end(head.pid)
        assert head.wait(10) == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in children):
        assert time.monotonic() < deadline, children


def is_running(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False
