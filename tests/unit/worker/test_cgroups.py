"""What control groups grant, read from trees of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from antinfer.worker.cgroups import ControlGroups
from tests.controlgroups import write_groups

MIB = 1 << 20
UNLIMITED = 9223372036854771712
FIRST = "5:memory:/a/b\n3:cpu,cpuacct:/a/b\n1:name=systemd:/\n"
FIRST_MOUNTS = {"systemd": "/ name=systemd", "memory": "/ memory", "cpu": "/ cpu,cpuacct"}


def memory_1(folder: str, limit: int, usage: int, inactive: int = 0) -> dict[str, str | int]:
    return {
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.usage_in_bytes": usage,
        f"{folder}/memory.stat": f"cache 1\ninactive_file 7\ntotal_inactive_file {inactive}",
    }


def memory_2(folder: str, limit: int | str, usage: int, inactive: int = 0) -> dict[str, str | int]:
    return {
        f"{folder}/memory.max": limit,
        f"{folder}/memory.current": usage,
        f"{folder}/memory.stat": f"anon 1\ninactive_file {inactive}\nactive_file 7",
    }


@pytest.mark.parametrize(("own", "around", "wanted"), [(3, 8, (3, 1)), (3, 2, (2, 2)), (3, 3, (3, 2))])
@pytest.mark.parametrize("version", [1, 2])
def test_the_least_limit_on_the_way_up_counts(tmp_path: Path, version: int, own: int, around: int, wanted: tuple[int, int]) -> None:
    """Of equal limits, the one around, where more is taken."""
    if version == 1:
        files = {
            **memory_1("memory/a/b", own * MIB, 4 * MIB, 3 * MIB),
            **memory_1("memory/a", around * MIB, 4 * MIB, 2 * MIB),
            **memory_1("memory", UNLIMITED, 99 * MIB),
        }
        groups = ControlGroups(write_groups(tmp_path, FIRST, FIRST_MOUNTS, files))
    else:
        files = {**memory_2("v2/a/b", own * MIB, 4 * MIB, 3 * MIB), **memory_2("v2/a", around * MIB, 4 * MIB, 2 * MIB)}
        groups = ControlGroups(write_groups(tmp_path, "0::/a/b\n", {"v2": "/"}, files))
    assert groups.memory() == (wanted[0] * MIB, wanted[1] * MIB)


@pytest.mark.parametrize("version", [1, 2])
def test_groups_without_limits_grant_everything(tmp_path: Path, version: int) -> None:
    if version == 1:
        files = {**memory_1("memory/a/b", UNLIMITED, MIB), "cpu/a/b/cpu.cfs_quota_us": -1, "cpu/a/b/cpu.cfs_period_us": 100_000}
        groups = ControlGroups(write_groups(tmp_path, FIRST, FIRST_MOUNTS, files))
    else:
        files = {**memory_2("v2/a/b", "max", MIB), "v2/a/b/cpu.max": "max 100000", "v2/a/b/cpu.stat": "usage_usec 1"}
        groups = ControlGroups(write_groups(tmp_path, "0::/a/b\n", {"v2": "/"}, files))
    assert (groups.memory(), groups.cpus(), groups.cpu_seconds()) == (None, None, None)


def test_the_least_quota_counts_and_so_does_what_its_group_computes(tmp_path: Path) -> None:
    files = {
        "v2/a/b/cpu.max": "400000 100000",
        "v2/a/b/cpu.stat": "usage_usec 1000000",
        "v2/a/cpu.max": "150000 100000",
        "v2/a/cpu.stat": "usage_usec 9000000\nuser_usec 1",
    }
    groups = ControlGroups(write_groups(tmp_path, "0::/a/b\n", {"v2": "/"}, files))
    assert (groups.cpus(), groups.cpu_seconds()) == (1.5, 9.0)
    # Limits may change, and are read each time.
    (tmp_path / "v2/a/b/cpu.max").write_text("50000 100000")
    assert (groups.cpus(), groups.cpu_seconds()) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("mounts", "member", "seconds"),
    [
        ({"cpu": "/ cpu,cpuacct"}, "3:cpu,cpuacct:/a/b\n", 2.5),
        ({"cpu": "/ cpu", "acct": "/ cpuacct"}, "3:cpu:/a/b\n2:cpuacct:/a/b\n", 4.0),
        ({"cpu": "/ cpu", "acct": "/ cpuacct"}, "3:cpu:/a/b\n2:cpuacct:/\n", None),
        ({"cpu": "/ cpu"}, "3:cpu:/a/b\n2:cpuacct:/a/b\n", None),
    ],
    ids=["together", "apart", "in another group", "not mounted"],
)
def test_version_1_may_count_seconds_elsewhere(tmp_path: Path, mounts: dict[str, str], member: str, seconds: float | None) -> None:
    files = {
        "cpu/a/b/cpu.cfs_quota_us": 150_000,
        "cpu/a/b/cpu.cfs_period_us": 100_000,
        "cpu/a/b/cpuacct.usage": 2_500_000_000,
        "acct/a/b/cpuacct.usage": 4_000_000_000,
        "acct/cpuacct.usage": 77_000_000_000,
    }
    groups = ControlGroups(write_groups(tmp_path, member, mounts, files))
    assert (groups.cpus(), groups.cpu_seconds()) == (1.5, seconds)


def test_a_hybrid_has_some_controllers_in_either_version(tmp_path: Path) -> None:
    files = {**memory_1("memory/job", 3 * MIB, MIB), "unified/slice/cpu.max": "200000 100000", **memory_2("unified/slice", MIB, 0)}
    mounts = {"memory": "/ memory", "unified": "/"}
    groups = ControlGroups(write_groups(tmp_path, "4:memory:/job\n1:name=systemd:/\n0::/slice\n", mounts, files))
    assert groups.memory() == (3 * MIB, MIB) and groups.cpus() == 2.0


@pytest.mark.parametrize("name", ["/", "/system.slice/docker-1.scope", "/../other"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_container_sees_its_own_group_at_the_top(tmp_path: Path, version: int, name: str) -> None:
    if version == 1:
        proc = write_groups(tmp_path, f"4:memory:{name}\n", {"here/memory": "/ memory"}, memory_1("here/memory", 3 * MIB, MIB))
    else:
        proc = write_groups(tmp_path, f"0::{name}\n", {"here/v2": "/"}, memory_2("here/v2", 3 * MIB, MIB))
    # Nothing beside what is mounted belongs to us.
    (tmp_path / "here" / "other").mkdir()
    assert ControlGroups(proc).memory() == (3 * MIB, MIB)


@pytest.mark.parametrize("name", ["/docker/1", "/docker/1/inner"])
def test_a_part_of_the_hierarchy_may_be_mounted(tmp_path: Path, name: str) -> None:
    files = {**memory_1("memory", 3 * MIB, 2 * MIB), **memory_1("memory/inner", 2 * MIB, MIB)}
    groups = ControlGroups(write_groups(tmp_path, f"4:memory:{name}\n", {"memory": "/docker/1 memory"}, files))
    assert groups.memory() == ((2 * MIB, MIB) if name.endswith("inner") else (3 * MIB, 2 * MIB))


def test_of_several_mounts_the_one_that_shows_our_group_is_taken(tmp_path: Path) -> None:
    files = {**memory_2("part", 9 * MIB, MIB), **memory_2("a whole/job", 3 * MIB, MIB)}
    groups = ControlGroups(write_groups(tmp_path, "0::/job\n", {"part": "/other", "a whole": "/"}, files))
    assert groups.memory() == (3 * MIB, MIB)


@pytest.mark.parametrize("member", ["", "0::/\n", FIRST])
def test_where_nothing_is_mounted_nothing_is_limited(tmp_path: Path, member: str) -> None:
    for proc in [write_groups(tmp_path, member, {}, {}), tmp_path / "no-proc"]:
        groups = ControlGroups(proc)
        assert (groups.memory(), groups.cpus(), groups.cpu_seconds(), groups.oom_counter()) == (None, None, None, None)


def test_kills_are_counted_by_our_group_or_the_next_around_it(tmp_path: Path) -> None:
    files = {"memory/a/b/memory.oom_control": "oom_kill 1", "memory/memory.oom_control": "oom_kill 9"}
    assert ControlGroups(write_groups(tmp_path, FIRST, FIRST_MOUNTS, files)).oom_counter() == tmp_path / "memory/a/b/memory.oom_control"
    files = {"v2/a/memory.events": "oom_kill 1", "v2/a/b/cpu.stat": "usage_usec 1"}
    assert ControlGroups(write_groups(tmp_path, "0::/a/b\n", {"v2": "/"}, files)).oom_counter() == tmp_path / "v2/a/memory.events"
