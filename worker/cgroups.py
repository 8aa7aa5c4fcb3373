"""The control groups of this process, of version 1 and 2: what a container, systemd or a batch system grants it of memory and cores.

A group may be bounded by the groups around it as well, so all of them count, up to the top of what is mounted here. In a container that top
is often the container's own group, under whatever path the kernel knows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

_PROC: Final = Path("/proc")
_UNLIMITED: Final = 1 << 60
"""Version 1 has no word for "no limit": it tells the largest number of whole pages."""
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class _Files:
    """What one version calls its files."""

    limit: str
    usage: str
    inactive: str
    """Key in ``memory.stat`` of what is cached of files and goes when somebody needs the room, groups inside included."""
    ooms: str


_FILES: Final = {
    1: _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control"),
    2: _Files("memory.max", "memory.current", "inactive_file", "memory.events"),
}


@dataclass(frozen=True, slots=True)
class _Group:
    """Our group of one controller."""

    version: int
    top: Path
    """Where the hierarchy is mounted."""
    path: PurePosixPath
    """From there."""

    def around(self) -> Iterator[PurePosixPath]:
        """Yield the paths of this group and of those around it, outermost first."""
        yield from reversed((self.path, *self.path.parents))


class ControlGroups:
    """The groups that this process was in when the object was made. Limits may change, and are read each time."""

    def __init__(self, proc: Path = _PROC) -> None:
        """`proc`: where the kernel tells which groups they are."""
        self._memory = _find("memory", proc)
        self._cpu = _find("cpu", proc)
        self._accounts = _find("cpuacct", proc)

    def memory(self) -> tuple[int, int] | None:
        """Return the least limit of memory and what is taken of it, in bytes; None without a limit."""
        if self._memory is None:
            return None
        files, found = _FILES[self._memory.version], []
        for path in self._memory.around():
            folder = self._memory.top / path
            limit, usage = _number(folder / files.limit), _number(folder / files.usage)
            if limit is not None and limit < _UNLIMITED and usage is not None:
                found.append((limit, max(0, usage - (_value(folder / "memory.stat", files.inactive) or 0))))
        # Of equal ones the outermost, in which most is taken.
        return min(found, key=lambda each: each[0], default=None)

    def cpus(self) -> float | None:
        """Return the cores that the least quota is worth; None without one."""
        quota = self._quota()
        return None if quota is None else quota[0]

    def cpu_seconds(self) -> float | None:
        """Return the seconds computed by the group with the least quota; None without one, or where they are not counted."""
        quota = self._quota()
        if quota is None or self._cpu is None:
            return None
        _, path = quota
        if self._cpu.version == 2:
            used = _value(self._cpu.top / path / "cpu.stat", "usage_usec")
            return None if used is None else used / 1e6
        # Another hierarchy may do the counting, in which we need not be in the same group.
        if self._accounts is None or not self._accounts.path.is_relative_to(path):
            return None
        used = _number(self._accounts.top / path / "cpuacct.usage")
        return None if used is None else used / 1e9

    def oom_counter(self) -> Path | None:
        """Return the file that counts kills for want of memory in our group, or in the next one around it that counts them."""
        if self._memory is None:
            return None
        name = _FILES[self._memory.version].ooms
        files = [self._memory.top / path / name for path in self._memory.around()]
        return next((file for file in reversed(files) if file.exists()), None)

    def _quota(self) -> tuple[float, PurePosixPath] | None:
        """Return the least quota, in cores, and the path of the group that has it."""
        if self._cpu is None:
            return None
        found = []
        for path in self._cpu.around():
            folder = self._cpu.top / path
            if self._cpu.version == 2:
                words = _text(folder / "cpu.max").split()
            else:
                words = [*_text(folder / "cpu.cfs_quota_us").split(), *_text(folder / "cpu.cfs_period_us").split()]
            # Without a quota it says "max", or -1.
            if len(words) == 2 and all(word.isdigit() for word in words):
                found.append((int(words[0]) / int(words[1]), path))
        return min(found, key=lambda each: each[0], default=None)


def _find(controller: str, proc: Path) -> _Group | None:
    """Return our group of `controller`; version 2 has all those in one hierarchy that version 1 does not have."""
    names: dict[str, str] = {}
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        names.update(dict.fromkeys(controllers.split(","), name))
    mounts = [_mount(line) for line in _text(proc / "self" / "mountinfo").splitlines() if " - cgroup" in line]
    first = [mount for mount in mounts if mount.kind == "cgroup" and controller in mount.options]
    if controller in names and first:
        return _located(1, first, names[controller])
    second = [mount for mount in mounts if mount.kind == "cgroup2"]
    # In version 2 there is no name for it in the line, which stands for all controllers.
    return _located(2, second, names[""]) if "" in names and second else None


@dataclass(frozen=True, slots=True)
class _Mount:
    kind: str
    options: list[str]
    root: PurePosixPath
    """What of the hierarchy is mounted."""
    point: Path


def _mount(line: str) -> _Mount:
    where, _, what = line.partition(" - ")
    root, point = (_ESCAPED.sub(lambda found: chr(int(found[1], 8)), field) for field in where.split()[3:5])
    kind, *_, options = what.split()
    return _Mount(kind, options.split(","), PurePosixPath(root), Path(point))


def _located(version: int, mounts: list[_Mount], name: str) -> _Group:
    """Return where the group `name` is seen; the top of a mount where it is nowhere, since it is that of a container then."""
    path = PurePosixPath(name)
    for mount in mounts:
        inside = path.relative_to(mount.root) if path.is_relative_to(mount.root) else None
        if inside is not None and ".." not in inside.parts and (mount.point / inside).is_dir():
            return _Group(version, mount.point, inside)
    return _Group(version, mounts[0].point, PurePosixPath())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        # Another kernel, or a group that is gone: what is not told does not count.
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _value(path: Path, key: str) -> int | None:
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return None
