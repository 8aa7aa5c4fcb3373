"""Columns that user code returns as it got them keep their type, whatever the batch holds."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from antinfer.errors import UserCodeError
from antinfer.worker import batches, passing
from antinfer.worker.calls import Caller

CODE = """
import numpy as np
import pyarrow as pa

def whole(batch):
    return batch

def again(batch):
    return {"v": batch["v"]}

def frame(batch):
    return batch[["v"]].assign(n=1)

def in_parts(batch):
    for at in range(0, len(batch["v"]), 2):
        yield {"v": batch["v"][at : at + 2]}

def frame_in_parts(batch):
    for at in range(0, len(batch), 2):
        yield batch.iloc[at : at + 2]

class Later:
    def submit(self, batch):
        return batch
    def collect(self, ticket):
        return {"v": ticket["v"]}

class Front:
    def __call__(self, batch):
        raise AssertionError("not on the CPU")
    def submit(self, batch):
        return again(batch)

def fills(batch):
    v = batch["v"]
    v[np.isnan(v)] = 0
    return {"v": v}

def halves(batch):
    return {"v": batch["v"] / 2}

def swaps(batch):
    return {"v": batch["w"], "w": batch["v"]}

def cleared(batch):
    batch["v"][0] = np.datetime64("2020-01-01")
    return batch

def shortened(batch):
    batch["v"][0].append(("z", 9))
    return batch

def spread(row):
    yield {"v": row["v"]}
    yield {"v": row["v"]}
"""
ZONED = pa.timestamp("us", "Europe/Berlin")
KINDS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "int8": (pa.int8(), [1, 2, 3, 4]),
    "int64": (pa.int64(), [2**60 + 1, 2, 3, 4]),
    "uint64": (pa.uint64(), [2**64 - 1, 2, 3, 4]),
    "bool": (pa.bool_(), [True, False, True, False]),
    "float16": (pa.float16(), [1.5, 2.5, 0.0, 4.0]),
    "float32": (pa.float32(), [1.5, 2.5, 0.0, 4.0]),
    "decimal": (pa.decimal128(12, 2), [decimal.Decimal(text) for text in ("1.00", "10.25", "100.00", "1.50")]),
    "zoned": (ZONED, [datetime.datetime(2020, 1, day, tzinfo=datetime.UTC) for day in range(1, 5)]),
    "dictionary": (pa.dictionary(pa.int32(), pa.int64()), [1, 2, 2, 1]),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1)], [], [("b", 2), ("c", 3)], [("d", None)]]),
    "list": (pa.list_(pa.int64()), [[1], [2, 3], [], [4]]),
    "holes": (pa.list_(pa.int64()), [[1], [None, 3], [], [4]]),
    "decimals": (pa.struct([("d", pa.decimal128(9, 2))]), [{"d": decimal.Decimal(at)} for at in range(4)]),
    "dates": (pa.date32(), [datetime.date(2020, 1, day) for day in range(1, 5)]),
    "texts": (pa.string(), ["a", "", "b", "c"]),
}


def v(values: list[Any], kind: pa.DataType) -> pa.RecordBatch:
    return pa.record_batch({"v": pa.array(values, kind)})


def made(caller: Caller, batch: pa.RecordBatch) -> pa.Array:
    found = caller.run(batch).batch
    assert found is not None
    return found["v"]


WAYS = [("whole", "numpy"), ("again", "numpy"), ("in_parts", "numpy"), ("Later", "numpy")]
WAYS += [("whole", "pandas"), ("frame", "pandas"), ("frame_in_parts", "pandas")]


@pytest.mark.parametrize(("target", "form"), WAYS)
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("copy", [True, False])
def test_a_column_that_is_passed_on_is_the_same_wherever_its_nulls_are(stage: Any, name: str, target: str, form: str, copy: bool) -> None:
    kind, values = KINDS[name]
    caller = Caller(stage(target, batch_format=form), copy=copy)
    for given in (values, [None, *values[1:]], [*values[:3], None], [None] * 4, values[:1], values):
        # Cut out of a longer one, as batches are.
        batch = v([values[0], *given], kind).slice(1)
        found = made(caller, batch)
        assert found.to_pylist() == batch["v"].to_pylist()
    # Text is large in what pandas returns.
    assert found.type == kind or kind == pa.string()


@pytest.mark.parametrize(("target", "form"), WAYS)
@pytest.mark.parametrize("shape", [None, (2,), (2, 1)])
def test_arrays_of_one_shape_agree_wherever_their_nulls_are(stage: Any, target: str, form: str, shape: tuple[int, ...] | None) -> None:
    caller = Caller(stage(target, batch_format=form), copy=True)
    kind = pa.list_(pa.int32(), 2)
    types = set()
    for given in ([[1, 2], [3, 4]], [[1, 2], None], [None, None], [[1, None], [3, 4]], [[1, 2], [3, 4]]):
        column = pa.array(given, kind)
        if shape is not None:
            column = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int32(), shape), column)
        found = made(caller, pa.record_batch({"v": column}))
        types.add(str(found.type))
        assert (found.storage if isinstance(found, pa.ExtensionArray) else found).to_pylist() == given
    assert len(types) == 1


def test_arrays_with_holes_in_them_are_floats_for_user_code_and_nulls_again() -> None:
    column = pa.array([[1, None], [3, 4]], pa.list_(pa.int32(), 2))
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int32(), (2,)), column)
    for given in (column, tensors):
        assert np.array_equal(batches.to_numpy(given), [[1, np.nan], [3, 4]], equal_nan=True)


@pytest.mark.parametrize("form", ["numpy", "pandas"])
def test_rows_of_null_arrays_keep_the_type_of_the_others(form: str) -> None:
    rows = batches.to_format(v([[1, 2], None], pa.list_(pa.int32(), 2)), form)["v"]
    assert rows[0].dtype == np.int32 and rows[0].tolist() == [1, 2] and rows[1] is None


def test_no_copy_is_made_of_what_is_passed_on(stage: Any) -> None:
    batch = v([1, None, 3], pa.int64())
    found = made(Caller(stage("again"), copy=True), batch)
    assert found.buffers()[1].address == batch["v"].buffers()[1].address


def test_a_stage_in_front_passes_columns_on_as_well(stage: Any) -> None:
    caller = Caller(stage("again"), copy=False, front=stage("Front"))
    batch = v([1, None, 3], pa.int64())
    found = caller.run(batch, fused=True).batch
    assert found is not None and found["v"].equals(batch["v"])


def test_what_was_changed_in_place_takes_the_type_of_its_column(stage: Any) -> None:
    caller = Caller(stage("fills"), copy=True)
    for given in ([1, 2, 3], [1, None, 3], [None, None, 5]):
        found = made(caller, v(given, pa.int16()))
        assert found.type == pa.int16() and found.to_pylist() == [each or 0 for each in given]
    dates = made(Caller(stage("cleared"), copy=True), v(KINDS["zoned"][1], ZONED))
    assert dates.type == ZONED and dates[0].as_py() == datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    kind, values = KINDS["map"]
    assert made(Caller(stage("shortened"), copy=True), v(values, kind)).to_pylist()[0] == [("a", 1), ("z", 9)]


def test_what_is_computed_is_what_it_is_even_where_it_equals_what_was_given(stage: Any) -> None:
    caller = Caller(stage("halves"), copy=True)
    for given in ([1, 2, 3], [0, None], [None, None]):
        assert made(caller, v(given, pa.int64())).type == pa.float64()


def test_a_column_under_the_name_of_another_is_not_that_one(stage: Any) -> None:
    batch = pa.record_batch({"v": pa.array([1, None]), "w": pa.array([2, None])})
    found = Caller(stage("swaps"), copy=True).run(batch).batch
    assert found is not None and found["v"].type == pa.float64() and found["v"][0].as_py() == 2


def test_the_error_names_the_null_as_the_likely_cause(stage: Any) -> None:
    caller = Caller(stage("swaps"), copy=True)
    ones = pa.array([1, 2])
    caller.run(pa.record_batch({"v": ones, "w": ones}))
    with pytest.raises(UserCodeError, match=r"double in one batch and int64 in another") as caught:
        caller.run(pa.record_batch({"v": ones, "w": pa.array([None, 2])}))
    for word in ("null", "batch_format: arrow", "fill", "int64 came first"):
        assert word in caught.value.hint


def test_categories_have_one_type_however_many_there_are() -> None:
    pandas = pytest.importorskip("pandas")
    for count in (2, 300, 70_000):
        values = pandas.Categorical(range(count))
        for result in (pandas.DataFrame({"c": values}), {"c": values}, {"c": pandas.Series(values)}):
            found = batches.from_result(result, "f", copy=False)["c"]
            assert found.type == pa.dictionary(pa.int32(), pa.int64()) and found.to_pylist() == list(range(count))
    nothing = batches.from_result(pandas.DataFrame({"c": pandas.Categorical([None, None])}), "f", copy=False)["c"]
    assert nothing.type == pa.null() and len(nothing) == 2


def test_rows_hold_whole_numbers_whatever_their_neighbours_are(stage: Any) -> None:
    first, second = batches.rows_of(v([7, None], pa.int16()))
    assert isinstance(first["v"], np.int16) and np.isnan(second["v"])
    caller = Caller(stage("spread", kind="flat_map"), copy=True)
    for given in ([1, 2], [None, 2], [1, None]):
        found = made(caller, v(given, pa.int16()))
        assert found.type == pa.int16() and found.to_pylist() == [each for each in given for _ in range(2)]
    assert made(caller, v([None], pa.int16())).type == pa.null()
    # What is computed from a null is a float, as it is in an array.
    computed = batches.from_rows([{"v": row["v"] * 2} for row in (first, second)], "f")["v"]
    assert computed.type == pa.float64()
    assert batches.from_rows([second, {"v": 0.5}], "f")["v"].type == pa.float64()
    with pytest.raises(UserCodeError, match="'v'"):
        batches.from_rows([second, {"v": 2**70}], "f")


@pytest.mark.parametrize("batch_format", ["numpy", "pandas"])
def test_large_numbers_that_nobody_has_touched_are_whole_where_nulls_are_filled_in_place(batch_format: str) -> None:
    large = 2**60 + 1
    batch = pa.record_batch({"x": pa.array([1, None, large, None], pa.int64())})
    given = passing.Given()
    made = batches.to_format(batch, batch_format)
    given.note(batch, batch_format, made)
    if batch_format == "pandas":
        made.loc[made["x"].isna(), "x"] = -1
    else:
        made["x"][np.isnan(made["x"])] = -1
    column = batches.from_result(made, "here", copy=True, given=given).column("x")
    assert column.type == pa.int64() and column.to_pylist() == [1, -1, large, -1]


@pytest.mark.parametrize("batch_format", ["numpy", "pandas"])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value]], ids=["struct", "list of structs"])
def test_structs_of_whole_numbers_with_nulls_come_back_as_they_were(batch_format: str, wrap: Any) -> None:
    rows = [wrap({"a": 2**60 + 1}), wrap({"a": None})]
    batch = pa.record_batch({"x": pa.array(rows)})
    given = passing.Given()
    made = batches.to_format(batch, batch_format)
    given.note(batch, batch_format, made)
    assert batches.from_result(made, "here", copy=True, given=given).column("x").equals(batch.column("x"))
