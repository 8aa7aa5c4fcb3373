"""Control groups made of plain files, as the kernel tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_groups(folder: Path, member: str, mounts: Mapping[str, str], files: Mapping[str, str | int]) -> Path:
    """Write a tree of groups under `folder`, and return the folder that stands for ``/proc``.

    Args:
        folder: Where everything lies.
        member: What ``/proc/self/cgroup`` says.
        mounts: What is mounted, by the name of its folder: root and controllers, such as ``/docker/1 cpu,cpuacct``; version 2 has none.
        files: Contents by name, such as ``v2/own/memory.max``.
    """
    proc = folder / "proc"
    (proc / "self").mkdir(parents=True, exist_ok=True)
    (proc / "self" / "cgroup").write_text(member)
    lines = ["22 1 8:1 / / rw,relatime - ext4 /dev/root rw\n"]
    for name, told in mounts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        root, _, controllers = told.partition(" ")
        kind = "cgroup" if controllers else "cgroup2"
        point = str(folder / name).replace(" ", "\\040")
        lines.append(f"31 22 0:28 {root} {point} rw,nosuid shared:9 - {kind} {kind} rw,{controllers or 'nsdelegate'}\n")
    (proc / "self" / "mountinfo").write_text("".join(lines))
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    return proc
