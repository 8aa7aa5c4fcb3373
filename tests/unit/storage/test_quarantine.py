"""Quarantine objects."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from antinfer.errors import InternalError, OutputError
from antinfer.storage import quarantine
from antinfer.storage.place import OutputPlace, open_place
from antinfer.storage.quarantine import QuarantinedRow

ROWS = [QuarantinedRow(3, 5, "decode", "ValueError: bad", "Traceback\n..."), QuarantinedRow(3, 9, "", "killed its process 3 times")]


@pytest.fixture
def place(tmp_path: Path) -> OutputPlace:
    return open_place(str(tmp_path))


def test_rows_come_back_with_their_kept_columns(place: OutputPlace, tmp_path: Path):
    """A kept column may have any name and type, also those of our own columns."""
    kept = pa.table({"offset": ["a", None], "blob": [b"\x00", b"\xff"], "nested": [[1, 2], None]})
    size = quarantine.write(str(tmp_path / "q"), ROWS, kept)
    assert size == os.path.getsize(tmp_path / "q")
    table = quarantine.read(place, "q")
    assert table.column("input").to_pylist() == kept.to_pylist()
    columns = ["shard", "offset", "stage", "error", "traceback"]
    assert [QuarantinedRow(**row) for row in table.select(columns).to_pylist()] == ROWS
    assert quarantine.read_offsets(place, "q").tolist() == [5, 9]


def test_kept_columns_may_come_in_chunks(place: OutputPlace, tmp_path: Path):
    kept = pa.concat_tables([pa.table({"x": [1]}), pa.table({"x": [2]})])
    quarantine.write(str(tmp_path / "q"), ROWS, kept)
    assert quarantine.read(place, "q").column("input").to_pylist() == [{"x": 1}, {"x": 2}]


def test_one_error_of_many_rows_is_stored_once(place: OutputPlace, tmp_path: Path):
    traceback = "".join(f"line {n}\n" for n in range(2000))
    quarantine.write(str(tmp_path / "q"), [QuarantinedRow(0, n, "s", "e", traceback) for n in range(10_000)])
    assert os.path.getsize(tmp_path / "q") < 10 * len(traceback)
    assert quarantine.read(place, "q").num_rows == 10_000


def test_mismatches_and_damage_are_errors(place: OutputPlace, tmp_path: Path):
    with pytest.raises(InternalError):
        quarantine.write(str(tmp_path / "q"), ROWS, pa.table({"x": [1]}))
    (tmp_path / "q").write_bytes(b"no")
    with pytest.raises(OutputError, match="q is damaged"):
        quarantine.read(place, "q")
    with pytest.raises(FileNotFoundError):
        quarantine.read(place, "nothing")
    with pytest.raises(OutputError):
        quarantine.write(str(tmp_path / "no folder" / "q"), ROWS)
