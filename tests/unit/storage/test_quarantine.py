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


@pytest.mark.parametrize(
    ("error", "stage", "known_as"),
    [
        ("ValueError: no: really", "decode", "ValueError"),
        ("PIL.UnidentifiedImageError: cannot read", "decode", "PIL.UnidentifiedImageError"),
        ("KeyError", "decode", "KeyError"),
        ("Segfault: the process of 'm' was killed", "m", "Segfault"),
        ("the file: it is gone", "decode", "Error"),
        ("", "decode", "Error"),
        ("this row ended its worker 3 times", "", "WorkerLost"),
    ],
)
def test_the_class_of_an_error(error: str, stage: str, known_as: str) -> None:
    assert QuarantinedRow(0, 0, stage, error).error_class == known_as


def test_rows_are_grouped_and_shown(tmp_path: Path) -> None:
    made = [QuarantinedRow(3, n, "decode", f"ValueError: row {n % 2}", "Traceback", f"in/{n}.jpg", n + 1) for n in range(4)]
    path = str(tmp_path / "rows")
    quarantine.write(path, [*made, QuarantinedRow(3, 9, "", "it ended its worker")], pa.table({"url": list("abcde")}))
    with pa.ipc.open_file(path) as reader:
        table = reader.read_all()
    groups = sorted(quarantine.group(table))
    assert groups == [
        (("ValueError", "decode"), "ValueError: row 0", 2),
        (("ValueError", "decode"), "ValueError: row 1", 2),
        (("WorkerLost", ""), "it ended its worker", 1),
    ]
    first, *_, last = quarantine.rows(table, 2)
    assert (first["file"], first["attempt"], first["round"], first["input"]) == ("in/0.jpg", 1, 2, {"url": "a"})
    assert (last["error_class"], last["traceback"], last["input"]) == ("WorkerLost", "", {"url": "e"})


def test_an_object_as_it_was_before_rows_had_files(tmp_path: Path) -> None:
    path = str(tmp_path / "rows")
    quarantine.write(path, [QuarantinedRow(3, 1, "decode", "ValueError: row 1")])
    with pa.ipc.open_file(path) as reader:
        table = reader.read_all().drop_columns(["file", "error_class", "attempt"])
    assert [(row["offset"], row["file"], row["error_class"], row["input"]) for row in quarantine.rows(table, 0)] == [
        (1, "", "ValueError", {})
    ]
    assert list(quarantine.group(table)) == [(("ValueError", "decode"), "ValueError: row 1", 1)]
