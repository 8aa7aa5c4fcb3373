"""Outputs on drivers of fsspec that are not known: what has to be said of them first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from antinfer.errors import JobFileError
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
