from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.errors import UserCodeError
from antinfer.storage.sinks import json_text
from antinfer.worker import batches
from antinfer.worker.pipeline import ragged, unify
from antinfer.worker.pipeline.pieces import take
from antinfer.worker.schemas import SchemaGate

SHAPES = [(3, 4, 3), (5, 4, 3), (1, 1, 3), (0, 7, 3), (2, 2, 3)]


def crops(*shapes: tuple[int, ...], dtype: str = "uint8") -> list[Any]:
    return [(np.arange(np.prod(shape)) % (3 + at) % 2).astype(dtype).reshape(shape) for at, shape in enumerate(shapes)]


def objects(rows: list[Any]) -> Any:
    made = np.empty(len(rows), dtype=object)
    for at, row in enumerate(rows):
        made[at] = row
    return made


def column(rows: Any) -> pa.Array:
    return batches.from_result({"crop": rows}, "map_batches 'detect'", copy=False)["crop"]


def same(found: Any, rows: list[Any]) -> bool:
    return len(found) == len(rows) and all(
        (one is None and other is None) or (one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other))
        for one, other in zip(found, rows, strict=True)
    )


@pytest.mark.parametrize("form", [list, tuple, objects])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int64", "bool"])
def test_arrays_of_different_shapes_go_there_and_back(form: Any, dtype: str) -> None:
    rows = [None, *crops(*SHAPES, dtype=dtype), None]
    made = column(form(rows))
    made.validate(full=True)
    assert same(batches.to_numpy(made), rows)
    for start, stop in [(1, 3), (0, 1), (4, 7), (2, 2)]:
        assert same(batches.to_numpy(made.slice(start, stop - start)), rows[start:stop])
    kept = take(pa.record_batch({"crop": made}), np.array([5, 0, 2]))
    assert kept is not None and same(batches.to_numpy(kept["crop"]), [rows[5], None, rows[2]])


def test_a_batch_of_one_shape_is_one_array() -> None:
    rows = crops((2, 3), (2, 3), (4, 3))
    made = column(objects(rows))
    given = batches.to_format(pa.record_batch({"crop": made.slice(0, 2)}), "numpy")["crop"]
    assert given.shape == (2, 2, 3) and given.flags.writeable
    assert batches.to_numpy(made).dtype == object
    assert [row["crop"].shape for row in batches.rows_of(pa.record_batch({"crop": made}))] == [(2, 3), (2, 3), (4, 3)]


def test_user_code_may_write_into_its_arrays() -> None:
    rows = crops((2, 3), (4, 3))
    batch = pa.record_batch({"crop": column(rows)})
    for crop in batches.to_format(batch, "numpy")["crop"]:
        crop[:] = 9
    assert same(batches.to_numpy(batch["crop"]), rows)


def test_plain_readers_see_a_struct(tmp_path: Path) -> None:
    rows = [*crops((2, 3), (1, 2)), None, *crops((0, 5))]
    table = pa.table({"crop": column(rows)})
    pq.write_table(table, tmp_path / "x.parquet")
    read = pq.read_table(tmp_path / "x.parquet")
    assert read.schema.field("crop").type == pa.struct([("data", pa.large_list(pa.uint8())), ("shape", pa.list_(pa.int32(), 2))])
    assert read["crop"][0].as_py() == {"data": rows[0].reshape(-1).tolist(), "shape": [2, 3]}
    assert read["crop"].null_count == 1
    # What one job writes, another reads.
    assert same(batches.to_numpy(read["crop"].combine_chunks()), rows)
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    assert pa.ipc.open_file(file.getvalue()).read_all() == table
    lines = bytes(json_text.lines(table.to_batches()[0], nan_is_error=True)).splitlines()
    assert json.loads(lines[1]) == {"crop": {"data": rows[1].reshape(-1).tolist(), "shape": [1, 2]}}
    assert json.loads(lines[2]) == {"crop": None}


def test_a_struct_whose_shapes_do_not_fit_its_data_stays_what_it_is() -> None:
    kind = column(crops((2, 3), (1, 2))).type
    for value in [{"data": [1, 2], "shape": [2, 2]}, {"data": [1], "shape": [-1, -1]}, {"data": [None], "shape": [1, 1]}]:
        assert set(batches.to_numpy(pa.array([value], kind))[0]) == {"data", "shape"}


@pytest.mark.parametrize(
    ("rows", "words", "hint"),
    [
        (
            [*crops((2, 3)), np.zeros((2, 3, 1), np.uint8)],
            ["2-dimensional array in row 0", "3-dimensional one in row 1"],
            "array[..., None]",
        ),
        ([*crops((3,)), *crops((2, 3))], ["1-dimensional array in row 0", "2-dimensional one in row 1"], "array[..., None]"),
        ([None, *crops((2, 3)), *crops((2, 4), dtype="float32")], ["uint8 in row 1", "float32 in row 2"], ".astype"),
        ([*crops((2, 3)), *crops((2, 3), dtype="float32")], ["uint8 in row 0", "float32 in row 1"], ".astype"),
        ([*crops((2, 3)), [[1, 2]]], ["array in row 0", "list in row 1"], "np.asarray"),
        ([np.array([["a"]]), np.array([["b", "c"]])], ["arrays of <U1"], "numbers or booleans"),
        (np.array(crops((2, 3), (2, 3)), dtype=object), ["object array of shape (2, 2, 3)"], "np.empty(rows, dtype=object)"),
    ],
)
def test_what_is_no_column_of_arrays_is_told_with_the_way_out(rows: Any, words: list[str], hint: str) -> None:
    with pytest.raises(UserCodeError) as caught:
        column(rows)
    for word in ["map_batches 'detect': column 'crop' ", *words]:
        assert word in str(caught.value)
    assert hint in caught.value.hint


def test_batches_of_one_shape_each_meet_in_one_column() -> None:
    first, second, mixed = crops((3, 4), (3, 4)), crops((5, 4)), crops((1, 1), (2, 2))
    gate = SchemaGate("map_batches 'detect'")
    fitted = [gate.fit(pa.record_batch({"crop": column(rows)})) for rows in (first, second, mixed, first)]
    assert isinstance(fitted[0].schema.field("crop").type, pa.FixedShapeTensorType)
    assert all(ragged.is_ragged(batch.schema.field("crop").type) for batch in fitted[1:])
    for batches_ in (fitted, fitted[::-1]):
        expected = [*first, *second, *mixed, *first] if batches_ is fitted else [*first, *mixed, *second, *first]
        assert same(batches.to_numpy(unify.concat(batches_)["crop"]), expected)


@pytest.mark.parametrize(("first", "second"), [([(3,)], [(5,)]), ([(3,)], [(2,), (4,)]), ([(2,), (4,)], [(3,)])])
def test_lists_of_one_length_each_meet_too(first: Any, second: Any) -> None:
    gate = SchemaGate("flat_map 'words'")
    fitted = [gate.fit(pa.record_batch({"crop": column(crops(*shapes))})) for shapes in (first, second)]
    assert unify.concat(fitted)["crop"].to_pylist() == [row.tolist() for row in (*crops(*first), *crops(*second))]


@pytest.mark.parametrize("start", [0, 1])
def test_tensors_with_nulls_keep_their_shapes(start: int) -> None:
    tensors = column(np.arange(12, dtype=np.float32).reshape(2, 2, 3))
    holes = unify.pick(tensors, np.array([1, -1, 0]))
    expected = [batches.to_numpy(tensors)[1], None, batches.to_numpy(tensors)[0]]
    assert same(batches.to_numpy(holes.slice(start)), expected[start:])
    wide = unify.fit(holes.slice(start), column(crops((1, 2), (2, 1), dtype="float32")).type)
    wide.validate(full=True)
    assert same(batches.to_numpy(wide), expected[start:])


def test_types_are_common_only_to_arrays_of_one_kind() -> None:
    def kind(*shapes: tuple[int, ...], dtype: str = "uint8") -> pa.DataType:
        return column(crops(*shapes, dtype=dtype)).type

    wide = kind((2, 3), (3, 2))
    assert unify.common(kind((2, 3)), kind((3, 2))) == unify.common(wide, kind((2, 3))) == unify.common(kind((2, 3)), wide) == wide
    assert unify.common(kind((2, 3)), wide, widens=False) is None and unify.common(wide, kind((2, 3)), widens=False) == wide
    assert unify.common(pa.list_(kind((2, 3))), pa.list_(wide)) == pa.list_(wide)
    assert unify.common(pa.list_(kind((2, 3))), pa.list_(wide), widens=False) is None
    assert unify.common(pa.null(), wide) == unify.common(wide, pa.null()) == wide
    for other in [kind((2, 3, 1)), kind((2, 3), dtype="float32"), kind((3,)), pa.list_(pa.uint8()), pa.uint8()]:
        assert unify.common(kind((2, 3)), other) is None and unify.common(other, wide) is None
    turned = pa.fixed_shape_tensor(pa.uint8(), (2, 3), permutation=[1, 0])
    assert unify.common(turned, kind((2, 3))) is None and unify.common(turned, turned) == turned


@pytest.mark.parametrize(
    ("second", "words", "hint"),
    [
        (
            [(5, 4)],
            ["arrays of shape (5, 4) of uint8 in one batch", "arrays of shape (3, 4) of uint8 in another"],
            "np.empty(rows, dtype=object)",
        ),
        ([(5, 4), (2, 2)], ["arrays of any shape with 2 dimensions of uint8"], "np.empty(rows, dtype=object)"),
        ([(3, 4, 1)], ["arrays of shape (3, 4, 1)"], ".reshape"),
    ],
)
def test_written_columns_do_not_change_from_one_shape_to_many(second: Any, words: list[str], hint: str) -> None:
    gate = SchemaGate("the output", widens=False)
    gate.fit(pa.record_batch({"crop": column(crops((3, 4)))}))
    with pytest.raises(UserCodeError) as caught:
        gate.fit(pa.record_batch({"crop": column(crops(*second))}))
    for word in ["the output: column 'crop'", *words]:
        assert word in str(caught.value)
    assert hint in caught.value.hint
    # The way out.
    gate = SchemaGate("the output", widens=False)
    schemas = {gate.fit(pa.record_batch({"crop": column(objects(crops(*shapes)))})).schema for shapes in ([(3, 4)], [(5, 4), (2, 2)])}
    assert len(schemas) == 1
    assert gate.fit(pa.record_batch({"crop": column(crops((3, 4)))})).schema in schemas


def test_data_frames_hold_arrays() -> None:
    pandas = pytest.importorskip("pandas")
    rows = crops((2, 3), (4, 3))
    batch = pa.record_batch({"n": [1, 2], "crop": column(rows), "even": column(np.zeros((2, 3, 2)))})
    frame = batches.to_format(batch, "pandas")
    assert same(frame["crop"], rows) and frame["even"][1].shape == (3, 2)
    back = batches.from_result(frame, "f", copy=True)
    assert back.schema.names == ["n", "crop", "even"] and same(batches.to_numpy(back["crop"]), rows)
    assert batches.to_numpy(back["even"]).shape == (2, 3, 2)
    assert frame["crop"][0] is not None, "the user's own frame is not changed"
    assert same(batches.to_numpy(column(pandas.Series(objects(rows)))), rows)
    with pytest.raises(UserCodeError, match="column 'crop' holds a 2-dimensional array"):
        batches.from_result(pandas.DataFrame({"crop": [rows[0], rows[0][None]]}), "f", copy=False)
