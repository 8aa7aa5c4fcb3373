"""The output place on a local path: the conformance checks, and what only a file system can do wrong."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from antinfer.core.ids import LeaseId, StagedName, staged_name
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.errors import InternalError, JobFileError, OutputError
from antinfer.storage import failures, layout
from antinfer.storage.place import OutputPlace, open_place
from antinfer.storage.posix import PosixPlace
from antinfer.testing.checks import OUTPUT_PLACE_CHECKS, SUFFIX, stage_commit
from tests import permissions


@pytest.mark.parametrize("check", OUTPUT_PLACE_CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Callable[[Callable[[], OutputPlace]], None], tmp_path: Path):
    check(lambda: open_place(str(tmp_path / "out")))


def test_one_place_has_one_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "real dir").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real dir")
    monkeypatch.chdir(tmp_path)
    names = ["real dir", "link/", f"{tmp_path}/link/../link", f"file://{tmp_path}/real%20dir"]
    assert {open_place(name).uri for name in names} == {str(tmp_path / "real dir")}


@pytest.mark.parametrize(
    ("uri", "options", "said"),
    [
        ("nonsense://host/path", {}, "scheme 'nonsense' is not known"),
        ("abfs://container@account/path", {}, "published atomically to abfs://"),
        ("sftp://host", {}, "no folder"),
        ("gs://", {}, "names no bucket"),
        ("gs://bucket", {"region": "x"}, "unknown storage option 'region'"),
        ("hdfs://host:1", {}, "no folder"),
        ("file://elsewhere/path", {}, "another host"),
        ("/tmp/x", {"region": "r"}, "takes no storage options"),
        ("s3:///x", {}, "no bucket"),
        ("s3://bucket", {"regoin": "x"}, "unknown storage option 'regoin'"),
    ],
    ids=["unknown", "azure", "sftp", "gs", "gs-option", "hdfs", "host", "options", "bucket", "typo"],
)
def test_bad_uris_are_errors_of_the_job_file(uri: str, options: dict[str, str], said: str):
    with pytest.raises(JobFileError, match=said):
        open_place(uri, options)


def test_reading_creates_nothing(tmp_path: Path):
    place = open_place(str(tmp_path / "out"))
    assert (place.highest_epoch(), place.list_parts(), place.list_staging(), place.read(layout.JOB)) == (None, [], [], None)
    assert list(tmp_path.iterdir()) == []


def test_a_second_commit_does_not_replace_a_part(tmp_path: Path):
    place = open_place(str(tmp_path))
    first, second = stage_commit(place), stage_commit(place)
    place.publish(first, SUFFIX)
    before = place.read(layout.final_names(first, SUFFIX)[0])
    with pytest.raises(InternalError, match="exists already"):
        place.publish(second, SUFFIX)
    assert place.read(layout.final_names(first, SUFFIX)[0]) == before


def test_a_source_on_another_file_system_is_copied(tmp_path: Path):
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    folder = Path(tempfile.mkdtemp(dir=memory))
    try:
        source = folder / "x"
        source.write_bytes(b"rows")
        place = open_place(str(tmp_path / "out"))
        staged = staged_name(LeaseId(1, 1), 0, 0, 1, "ab")
        record = CommitRecord(0, 0, 1, staged, (place.stage(staged, "part", "unused", str(source)),), rows_out=1)
        place.publish(record, "jsonl")
        assert place.read(layout.final_names(record, "jsonl")[0]) == b"rows"
        assert not source.exists()
    finally:
        shutil.rmtree(folder)


def test_a_full_disk_is_named(tmp_path: Path):
    """A real full disk: a tiny file system in memory, where this user may mount one."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(mount)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("may not mount")
    try:
        place = open_place(str(mount / "out"))
        with pytest.raises(OutputError, match="no space left") as caught:
            place.write(layout.JOB, b"x" * 200_000)
        assert "resumes" in caught.value.hint
        assert place.read(layout.JOB) is None
        assert os.listdir(place.local_spool()) == []
        place.close()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_file_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="a file"):
        open_place(str(tmp_path / "out")).check_writable()
    with pytest.raises(OutputError, match="a file"):
        open_place(str(tmp_path / "out" / "deeper")).check_writable()


def test_no_permission_is_named(tmp_path: Path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    code = f"from antinfer.storage.place import open_place; open_place({str(tmp_path / 'out')!r}).check_writable()"
    ended = subprocess.run(permissions.bound([sys.executable, "-c", code]), capture_output=True, text=True, check=False)
    assert "OutputError" in ended.stderr and "permission denied" in ended.stderr


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.EACCES, "permission denied"), (errno.EROFS, "read-only"), (errno.EDQUOT, "quota"), (errno.EBADMSG, "Bad message")],
)
def test_causes_are_named(number: int, said: str):
    error = failures.output_error(OSError(number, os.strerror(number), "/out/x"), "/out", "staging")
    assert said in str(error)
    assert "/out/x" in str(error)


def test_what_is_not_ours_in_staging_is_swept(tmp_path: Path):
    place = open_place(str(tmp_path))
    place.write(f"{layout.folder(layout.STAGING)}/rubbish", b"")
    place.write(f"{layout.folder(layout.STAGING)}/not-a-lease.part", b"")
    place.sweep(1, ())
    assert place.list_objects(layout.STAGING) == []


def test_an_object_that_is_gone_names_the_commit(tmp_path: Path):
    record = CommitRecord(0, 0, 1, StagedName("1-1.0.0-1.aa"), (StagedObject("part"),), rows_out=1)
    with pytest.raises(InternalError, match=r"1-1\.0\.0-1\.aa is committed"):
        open_place(str(tmp_path)).publish(record, SUFFIX)


_SPOOLER = """
import sys
from antinfer.storage.place import open_place
place = open_place(sys.argv[1])
print(place.local_spool(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def spooler(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that has a spool folder in the place and holds it."""
    child = subprocess.Popen([sys.executable, "-c", _SPOOLER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    yield child, Path(child.stdout.readline().strip())
    child.kill()
    child.communicate()


def test_spool_of_a_live_process_stays_and_of_a_killed_one_goes(tmp_path: Path, spooler: tuple[subprocess.Popen[str], Path]):
    child, folder = spooler
    (folder / "half-written").write_text("x")
    place = open_place(str(tmp_path))
    mine = Path(place.local_spool())
    assert folder.is_dir() and mine.is_dir() and mine != folder
    child.kill()
    child.wait()
    open_place(str(tmp_path)).local_spool()
    assert not folder.exists()
    assert mine.is_dir()
    place.close()
    assert list(mine.parent.iterdir()) == []


def test_closing_a_place_that_refuses_to_be_changed_leaves_the_spool_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = PosixPlace(str(tmp_path))
    folder = Path(place.local_spool())
    (folder / "part").write_bytes(b"rows")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "refused")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        place.close()
    assert folder.is_dir()
    PosixPlace(str(tmp_path)).local_spool()
    assert not folder.exists(), "its process counts as dead"
