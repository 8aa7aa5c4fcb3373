from __future__ import annotations

import datetime
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from antinfer.errors import UserCodeError
from antinfer.worker import batches
from antinfer.worker.pipeline import arrays

NUMBERS = ["int8", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64", "bool"]


def back(columns: Any) -> pa.RecordBatch:
    return batches.from_result(columns, "predict 'p'", copy=False)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("offset", [0, 3])
def test_numbers_go_there_and_back(name: str, offset: int) -> None:
    array = (np.arange(21) % 2).astype(name)
    column = pa.array(array).slice(offset)
    found = batches.to_numpy(column)
    assert found.dtype == array.dtype and found.tolist() == array[offset:].tolist()
    again = back({"x": found})["x"]
    assert again.equals(column)


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 5), (1, 1)])
def test_tensors_keep_their_shape(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    batch = back({"t": array})
    assert isinstance(batch["t"].type, pa.FixedShapeTensorType)
    assert np.array_equal(batches.to_numpy(batch["t"]), array)
    assert np.array_equal(batches.to_numpy(batch.slice(1)["t"]), array[1:])


def test_fixed_size_lists_are_two_dimensional_and_nulls_make_floats() -> None:
    lists = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int16(), 2)).slice(1)
    assert batches.to_numpy(lists).tolist() == [[3, 4], [5, 6]]
    with_null = batches.to_numpy(pa.array([1, None, 3]))
    assert with_null.dtype == np.float64 and np.isnan(with_null[1])


def test_arrays_are_writable_and_do_not_reach_the_batch() -> None:
    memory = np.arange(4)
    batch = pa.RecordBatch.from_arrays([arrays.from_plain(memory)], names=["x"])
    given = batches.to_format(batch, "numpy")
    given["x"] += 100
    assert memory.tolist() == [0, 1, 2, 3]


def addresses(batch: pa.RecordBatch) -> list[int]:
    found = []
    for column in batch.columns:
        storage = column.storage if isinstance(column, pa.ExtensionArray) else column
        found.append((storage.flatten() if isinstance(storage, pa.FixedSizeListArray) else storage).buffers()[1].address)
    return found


def test_arrays_that_nobody_else_holds_are_not_copied() -> None:
    made: list[Any] = [{"x": np.arange(1000), "t": np.arange(1000.0).reshape(10, 100)[:]}]
    made[0]["t"] = np.arange(3000.0).reshape(1000, 3)
    before = [array.ctypes.data for array in made[0].values()]
    batch = batches.take_result(made, "w", copy=True)
    assert addresses(batch) == before


@pytest.mark.parametrize("kept", ["array", "view", "dict", "base", "foreign", "frame"])
def test_arrays_that_somebody_may_fill_again_are_copied(kept: str) -> None:
    array = np.arange(1000)
    holder: Any = None
    if kept == "array":
        made, holder = [{"x": array}], array
    elif kept == "view":
        made, holder = [{"x": array}], array[:5]
    elif kept == "dict":
        holder = {"x": array}
        made = [holder]
    elif kept == "base":
        made, holder = [{"x": array[:1000]}], array
    elif kept == "foreign":
        holder = bytearray(8000)
        made = [{"x": np.frombuffer(holder, dtype=np.int64)}]
    else:
        made = [pa.table({"x": array}).to_pandas()]
        holder = made[0]
    before = np.asarray(made[0]["x"]).ctypes.data
    del array
    batch = batches.take_result(made, "w", copy=True)
    assert addresses(batch) != [before] and holder is not None


def test_views_for_those_who_only_read() -> None:
    column = pa.array(np.arange(4.0))
    tensors = back({"t": np.zeros((4, 2), dtype=np.float32)})["t"]
    batch = pa.record_batch({"x": column, "t": tensors})
    views = batches.to_format(batch, "numpy", writable=False)
    assert views["x"].ctypes.data == column.buffers()[1].address and not views["x"].flags.writeable
    assert views["t"].shape == (4, 2) and not views["t"].flags.owndata


def test_a_copied_result_is_its_own() -> None:
    kept = np.arange(3)
    result = batches.from_result({"y": kept}, "w", copy=True)
    kept[:] = -1
    assert result["y"].to_pylist() == [0, 1, 2]


def test_strings_bytes_dates_lists_and_structs_survive() -> None:
    when = datetime.datetime(2020, 1, 2, 3, 4, 5)  # noqa: DTZ001 - numpy knows no zones
    columns = {
        "s": np.array(["a", None, "c"], dtype=object),
        "u": np.array(["x", "yy", "z"]),
        "b": [b"1", b"", None],
        "d": np.array([when, when, "NaT"], dtype="datetime64[us]"),
        "l": [[1], [], [2, 3]],
        "r": [np.arange(2), np.arange(0), np.arange(1)],
        "m": [{"k": 1}, {"k": None}, None],
    }
    batch = back(columns)
    assert batch["s"].to_pylist() == ["a", None, "c"]
    assert batch["u"].to_pylist() == ["x", "yy", "z"]
    assert batch["b"].to_pylist() == [b"1", b"", None]
    assert batch["d"].to_pylist() == [when, when, None]
    assert batch["l"].to_pylist() == [[1], [], [2, 3]]
    assert batch["r"].to_pylist() == [[0, 1], [], [0]]
    assert batch["m"].to_pylist() == [{"k": 1}, {"k": None}, None]


def test_pandas_and_arrow_both_ways() -> None:
    batch = pa.record_batch({"x": [1, 2], "s": ["a", "b"]})
    frame = batches.to_format(batch, "pandas")
    assert list(frame.columns) == ["x", "s"]
    assert back(frame).to_pydict() == batch.to_pydict()
    assert batches.to_format(batch, "arrow") is batch
    assert back(pa.Table.from_batches([batch, batch])).num_rows == 4
    assert back(pa.Table.from_batches([], batch.schema)).num_rows == 0


def test_torch_both_ways() -> None:
    torch = pytest.importorskip("torch")
    given = batches.to_format(pa.record_batch({"x": [1.0, 2.0]}), "torch")
    assert back({"y": given["x"] * torch.tensor(2.0)})["y"].to_pylist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (42, ["dict of columns", "int"]),
        (None, ["NoneType"]),
        ([1, 2], ["list"]),
        ({}, ["without columns"]),
        ({"a": 1.5}, ["'a'", "float"]),
        ({"a": "text"}, ["'a'", "str"]),
        ({1: [1]}, ["name is 1"]),
        ({"a": [1, 2], "b": [1]}, ["a: 2", "b: 1"]),
        ({"a": [1], "b": [object()]}, ["'b'", "cannot be written"]),
        ({"c": [1, "x"]}, ["'c'"]),
        ({"c": np.zeros((3, 0))}, ["'c'", "(3, 0)"]),
        ({"c": np.float64(3)}, ["'c'"]),
    ],
)
def test_what_cannot_be_read_is_named(result: object, words: list[str]) -> None:
    with pytest.raises(UserCodeError) as caught:
        back(result)
    for word in ["predict 'p'", *words]:
        assert word in str(caught.value)


def test_rows_one_by_one() -> None:
    batch = pa.record_batch({"x": [1, 2], "s": ["a", None]})
    assert batches.rows_of(batch) == [{"x": 1, "s": "a"}, {"x": 2, "s": None}]
    crops = [{"crop": np.full((2, 2), i, dtype=np.uint8), "n": np.int32(i)} for i in range(3)]
    made = batches.from_rows(crops, "flat_map 'crops'")
    assert batches.to_numpy(made["crop"]).shape == (3, 2, 2) and made["n"].type == pa.int32()
    for rows, word in [([{"a": 1}, {"b": 1}], "different columns"), ([{"a": 1}, 3], "int")]:
        with pytest.raises(UserCodeError, match=word):
            batches.from_rows(rows, "flat_map 'crops'")


def test_numbers_need_no_pandas() -> None:
    code = """
import sys, numpy as np, pyarrow as pa
from antinfer.worker import batches
batch = batches.from_result({"x": np.arange(3.0), "t": np.zeros((3, 2)), "b": np.array([True, False, True])}, "w", copy=False)
given = batches.to_format(batch.slice(1), "numpy")
print(given["t"].shape, given["b"].tolist(), "pandas" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ended.stdout == "(2, 2) [False, True] False\n", ended.stderr


def test_masked_values_are_nulls() -> None:
    masked = np.ma.MaskedArray([1, 2, 3], mask=[False, True, False])
    result = batches.from_result({"x": masked, "y": np.ma.MaskedArray([1.0, 2.0, 3.0])}, "f", copy=True)
    assert result.to_pydict() == {"x": [1, None, 3], "y": [1.0, 2.0, 3.0]}


def test_dates_are_copied_too() -> None:
    dates = np.array(["2024-01-01", "2024-01-02"], "datetime64[us]")
    result = batches.from_result({"d": dates}, "f", copy=True)
    dates[:] = np.datetime64("1999-01-01")
    assert [value.year for value in result["d"].to_pylist()] == [2024, 2024]


@pytest.mark.parametrize("value", [{1, 2}, frozenset([1])], ids=["set", "frozenset"])
def test_values_without_an_order_are_no_column(value: object) -> None:
    with pytest.raises(UserCodeError, match="'x' must be an array"):
        batches.from_result({"x": value}, "f", copy=False)


def test_a_tensor_that_numpy_does_not_know_is_named() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(UserCodeError, match=r"'x' holds values that cannot be written.*BFloat16"):
        batches.from_result({"x": torch.ones(2, dtype=torch.bfloat16)}, "f", copy=False)
