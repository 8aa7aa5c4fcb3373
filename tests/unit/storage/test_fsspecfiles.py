"""Outputs on drivers of fsspec that are not known: what has to be said of them first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from antinfer.errors import JobFileError, OutputError
from antinfer.storage import layout
from antinfer.storage.place import OutputPlace, open_place
from antinfer.testing.checks import OUTPUT_PLACE_CHECKS, SUFFIX, stage_commit


class _Disk(LocalFileSystem):
    """A driver of somebody's own, whose move is a rename."""

    protocol: ClassVar[str] = "disk"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("disk://")


fsspec.register_implementation("disk", _Disk, clobber=True)


@pytest.fixture
def make_place(tmp_path: Path) -> Callable[[], OutputPlace]:
    return lambda: open_place(f"disk://{tmp_path}/out", {"atomic_move": True})


@pytest.mark.parametrize("check", OUTPUT_PLACE_CHECKS, ids=lambda check: check.__name__)
def test_one_whose_move_is_said_to_be_a_step_conforms(
    check: Callable[[Callable[[], OutputPlace]], None], make_place: Callable[[], OutputPlace]
) -> None:
    check(make_place)


def test_one_of_which_nothing_is_said_is_read_only(tmp_path: Path, make_place: Callable[[], OutputPlace]) -> None:
    record = stage_commit(make_place())
    make_place().publish(record, SUFFIX)
    place = open_place(f"disk://{tmp_path}/out")
    assert [part.name for part in place.list_parts()] == layout.final_names(record, SUFFIX)
    with pytest.raises(JobFileError, match=r"published atomically to disk://") as failed:
        place.check_writable()
    assert "atomic_move: true" in failed.value.hint


@pytest.mark.parametrize("options", [{}, {"atomic_move": True}], ids=["nothing said", "said"])
def test_one_that_moves_by_copying_is_read_only(options: dict[str, bool]) -> None:
    with pytest.raises(JobFileError, match=r"published atomically to memory://") as failed:
        open_place("memory://somewhere/out", options).check_writable()
    assert "moves by copying" in failed.value.hint


class _Idle(_Disk):
    """One whose ``mkdir`` does nothing where a folder is, as those of object stores do."""

    protocol: ClassVar[str] = "idle"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("idle://")

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: object) -> None:
        Path(path).mkdir(exist_ok=True)


class _Timid(_Disk):
    """One whose ``mv`` does nothing where a file is, as that of WebHDFS does."""

    protocol: ClassVar[str] = "timid"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("timid://")

    def mv(self, path1: str, path2: str, **kwargs: object) -> None:
        if not Path(path2).exists():
            super().mv(path1, path2, **kwargs)


class _Slow(_Disk):
    """One that gives up uploads which its server goes on with."""

    protocol: ClassVar[str] = "slow"
    given_up: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("slow://")

    def put_file(self, lpath: str, rpath: str, callback: object = None, **kwargs: object) -> None:
        if not self.given_up:
            self.given_up.append(rpath)
            raise TimeoutError
        super().put_file(lpath, rpath, **kwargs)


for _kind in (_Idle, _Timid, _Slow):
    fsspec.register_implementation(_kind.protocol, _kind, clobber=True)


@pytest.mark.parametrize(("scheme", "said"), [("idle", "its mkdir takes a folder"), ("timid", "its mv does not replace")])
def test_what_is_said_of_a_driver_is_tried(tmp_path: Path, scheme: str, said: str) -> None:
    place = open_place(f"{scheme}://{tmp_path}/out", {"atomic_move": True})
    with pytest.raises(JobFileError, match=said):
        place.claim_epoch(1, "first")
    assert [path for path in (tmp_path / "out/_antinfer").rglob("*") if path.is_file()] == []


def test_an_upload_that_the_server_carries_out_late_meets_nobody(tmp_path: Path) -> None:
    place = open_place(f"slow://{tmp_path}/out", {"atomic_move": True})
    place.write(layout.JOB, b"")
    with pytest.raises(OutputError, match="does not answer"):
        stage_commit(place, kinds=("part",))
    record = stage_commit(place, kinds=("part",))
    staged = tmp_path / "out" / layout.staged_path(record.staged, "part")
    whole = staged.read_bytes()
    (late,) = _Slow.given_up
    Path(late).write_bytes(b"")
    assert staged.read_bytes() == whole
    place.sweep(before=2, keep=(record.staged,))
    assert not Path(late).exists()
    place.publish(record, SUFFIX)
    assert place.read(layout.final_names(record, SUFFIX)[0]) == whole
