"""A plan that is made in several goes, over an input that changes in between."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.errors import AntinferError, ChangedError
from antinfer.master.planner import Extension, Planner
from antinfer.spec.schema import JobSpec
from antinfer.storage.place import open_place
from tests.integration.jobs import make_spec

FILES = 5


class Planning:
    """One go at the plan of a job."""

    def __init__(self, folder: Path, *, force: bool = False) -> None:
        self.error: AntinferError | None = None
        self.rows = 0
        self._over = threading.Event()
        planner = Planner(spec_of(folder), open_place(str(folder / "out")), force=force)
        self._take(planner.load())
        planner.start(frozen=lambda schema: None, extend=self._take, fail=self._fail)
        assert self._over.wait(20)
        planner.stop()

    def _take(self, more: Extension) -> None:
        self.rows += sum(rows or 0 for rows in more.rows)
        if more.complete:
            self._over.set()

    def _fail(self, error: AntinferError) -> None:
        self.error = error
        self._over.set()


def spec_of(folder: Path) -> JobSpec:
    job = {"source": {"type": "parquet", "path": "in"}, "pipeline": [{"predict": "steps:Any"}], "sink": {"path": "out"}}
    return make_spec(job, folder)


def write(folder: Path, name: str, rows: int) -> None:
    pq.write_table(pa.table({"x": range(rows)}), folder / "in" / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "steps.py").write_text("class Any:\n    def __call__(self, batch):\n        return batch\n")
    for index in range(FILES):
        write(tmp_path, f"{index}.parquet", 10 + index)
    return tmp_path


def broken_off(folder: Path, bad: int) -> Path:
    """The same, and a plan that broke off over file `bad`: 1, 2, 4, ... files are planned at a time."""
    path = folder / "in" / f"{bad}.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    assert "in" in str(Planning(folder).error)
    path.write_bytes(whole)
    return folder


def test_what_was_mended_behind_the_last_chunk_is_planned_as_it_is(folder: Path) -> None:
    broken_off(folder, 4)
    write(folder, "4.parquet", 99)
    again = Planning(folder)
    assert again.error is None and again.rows == 10 + 11 + 12 + 13 + 99


@pytest.mark.parametrize("name", ["0.parquet", "2.parquet"])
def test_what_is_planned_must_be_as_it_was(folder: Path, name: str) -> None:
    broken_off(folder, 3)
    write(folder, name, 99)
    error = Planning(folder).error
    assert isinstance(error, ChangedError) and name in str(error) and "--force" not in error.hint


@pytest.mark.parametrize("change", ["gone", "new"])
def test_files_come_and_go_by_the_users_word_alone(folder: Path, change: str) -> None:
    broken_off(folder, 4)
    if change == "gone":
        (folder / "in" / "3.parquet").unlink()
    else:
        write(folder, "3a.parquet", 99)
    error = Planning(folder).error
    assert isinstance(error, ChangedError) and "--force" in error.hint
    assert Planning(folder, force=True).rows == 10 + 11 + 12 + 14 + (0 if change == "gone" else 13 + 99)


def test_a_plan_that_lacks_its_seal_alone_is_bound_to_its_input(folder: Path) -> None:
    assert Planning(folder).error is None
    (folder / "out" / "_antinfer" / "plan" / "complete").unlink()
    write(folder, "9.parquet", 99)
    assert isinstance(Planning(folder, force=True).error, ChangedError)
    (folder / "in" / "9.parquet").unlink()
    again = Planning(folder)
    assert again.error is None and again.rows == 10 + 11 + 12 + 13 + 14
