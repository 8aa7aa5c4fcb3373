from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from antinfer.errors import UserCodeError
from antinfer.worker import batches
from antinfer.worker.calls import Caller
from antinfer.worker.pipeline.stagecalls import StageCall

pandas = pytest.importorskip("pandas")

CODE = """
def sort(batch):
    return batch.sort_values("x")

def restore(batch):
    return batch.sort_values("x").sort_index()

def one_by_one(batch):
    for at in range(0, len(batch), 2):
        yield batch.iloc[at : at + 2]

def pairs_turned(batch):
    for at in range(0, len(batch), 2):
        yield batch.iloc[at : at + 2][::-1]
"""


def given(*values: int) -> Any:
    """A batch as user code gets it."""
    return batches.to_format(pa.record_batch({"x": list(values)}), "pandas")


def read(result: Any) -> list[Any]:
    made: list[Any] = batches.from_result(result, "map_batches 'm'", copy=False)["x"].to_pylist()
    return made


@pytest.mark.parametrize(
    "reorder",
    [
        lambda frame: frame.sort_values("x"),
        lambda frame: frame[::-1],
        lambda frame: frame.sample(frac=1, random_state=1),
        lambda frame: pandas.concat([frame[frame["x"] > 5], frame[frame["x"] <= 5]]),
        lambda frame: {"x": frame["x"].sort_values()},
        lambda frame: pandas.DataFrame({"x": [1, 2, 3, 4]}, index=np.array([1, 0, 3, 2], dtype=np.uint8)),
    ],
    ids=["sorted", "turned", "shuffled", "put together", "column", "own frame"],
)
def test_rows_in_another_order_are_refused(reorder: Any) -> None:
    with pytest.raises(UserCodeError, match=r"map_batches 'm': .*rows in another order: its index is \d in row \d") as caught:
        read(reorder(given(7, 3, 9, 1)))
    assert "sort_index()" in caught.value.hint and "reset_index(drop=True)" in caught.value.hint


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (lambda frame: frame.assign(x=frame["x"] + 1), [8, 4, 10, 2]),
        (lambda frame: frame.sort_values("x").sort_index(), [7, 3, 9, 1]),
        (lambda frame: frame.sort_values("x").reset_index(drop=True), [1, 3, 7, 9]),
        (lambda frame: frame.sort_values("x", ignore_index=True), [1, 3, 7, 9]),
        # What is no order of the rows as they came: a selection, rows that are there twice, an index that means something.
        (lambda frame: frame.loc[[3, 1]], [1, 3]),
        (lambda frame: frame.loc[[2, 0, 0, 1]], [9, 7, 7, 3]),
        (lambda frame: frame.assign(id=[3, 2, 1, 0]).set_index("id"), [7, 3, 9, 1]),
        (lambda frame: frame.set_axis([13, 12, 11, 10]), [7, 3, 9, 1]),
        (lambda frame: frame.set_axis([1.0, 0.0, 2.0, 3.0]), [7, 3, 9, 1]),
        (lambda frame: frame.set_axis(list("dcba")), [7, 3, 9, 1]),
        (lambda frame: frame.set_axis(pandas.MultiIndex.from_tuples([(1, 1), (1, 0), (0, 1), (0, 0)])), [7, 3, 9, 1]),
        (lambda frame: frame.iloc[:0], []),
    ],
)
def test_other_frames_are_taken(keep: Any, expected: list[int]) -> None:
    assert read(keep(given(7, 3, 9, 1))) == expected


def caller(folder: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> Caller:
    name = f"reordered_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(CODE)
    monkeypatch.syspath_prepend(folder)
    return Caller(StageCall("m", "map_batches", f"{name}:{function}", str(folder), batch_format="pandas"), copy=True)


@pytest.mark.parametrize(("function", "is_fine"), [("sort", False), ("restore", True), ("one_by_one", True), ("pairs_turned", False)])
def test_stages_keep_their_rows_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, is_fine: bool) -> None:
    """Of a batch that is a slice of another: its frame counts from 0 all the same."""
    batch = pa.record_batch({"x": [0, 0, 5, 8, 3, 4, 1]}).slice(2)
    call = caller(tmp_path, monkeypatch, function)
    if is_fine:
        assert call.run(batch).batch.to_pydict() == batch.to_pydict()  # type: ignore[union-attr]
        return
    with pytest.raises(UserCodeError, match="another order"):
        call.run(batch)
