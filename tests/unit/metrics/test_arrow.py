from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from antinfer.errors import JobFileError
from antinfer.metrics import AccumulatorSet
from antinfer.metrics.arrow import to_arrays


def converted(values: list[Any], kind: pa.DataType) -> np.ndarray:
    return to_arrays(pa.record_batch([pa.array(values, kind)], names=["x"]), ["x"])["x"]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int64(), [1, 2**62 + 1]),
        (pa.uint8(), [0, 255]),
        (pa.float16(), [np.float16(0.5), np.float16(2)]),
        (pa.float32(), [0.5, 2.0]),
        (pa.float64(), [0.1, float("inf")]),
        (pa.bool_(), [True, False]),
        (pa.string(), ["a", "ü"]),
        (pa.large_string(), ["a", ""]),
        (pa.string_view(), ["a", "b"]),
        (pa.dictionary(pa.int8(), pa.string()), ["a", "b"]),
        (pa.dictionary(pa.int8(), pa.float64()), [1.5, 2.5]),
        (pa.list_(pa.float32(), 2), [[1, 2], [3, 4]]),
        (pa.list_(pa.float64()), [[1, 2], [3, 4]]),
        (pa.large_list(pa.int16()), [[1, 2], [3, 4]]),
        (pa.list_(pa.list_(pa.int8(), 2)), [[[1, 2]], [[3, 4]]]),
    ],
    ids=str,
)
def test_values_survive_with_and_without_nulls(kind: pa.DataType, values: list[Any]) -> None:
    plain = converted(values, kind)
    assert plain.tolist() == values
    assert not isinstance(plain, np.ma.MaskedArray)
    with_nulls = converted([None, values[0], None, values[1]], kind)
    assert isinstance(with_nulls, np.ma.MaskedArray)
    assert with_nulls.dtype == plain.dtype
    assert np.ma.getdata(with_nulls)[[1, 3]].tolist() == values
    assert np.ma.getmaskarray(with_nulls).reshape(4, -1).all(axis=1).tolist() == [True, False, True, False]
    assert np.ma.getmaskarray(converted([None, None], kind)).all()
    assert len(converted([], kind)) == 0


def test_tensors_keep_their_shape() -> None:
    kind = pa.fixed_shape_tensor(pa.float32(), (2, 3))
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12, dtype=np.float32).reshape(2, 2, 3))
    batch = pa.record_batch([tensors], names=["x"])
    assert to_arrays(batch, ["x"])["x"].shape == (2, 2, 3)
    assert to_arrays(batch.slice(1), ["x"])["x"].tolist() == [[[6, 7, 8], [9, 10, 11]]]
    assert to_arrays(batch.slice(2), ["x"])["x"].shape == (0, 2, 3)
    masked = pa.ExtensionArray.from_storage(kind, pa.array([None, list(range(6))], kind.storage_type))
    found = to_arrays(pa.record_batch([masked], names=["x"]), ["x"])["x"]
    assert found.shape == (2, 2, 3)
    assert np.ma.getmaskarray(found)[:, 0, 0].tolist() == [True, False]


def test_slices_are_seen_as_slices() -> None:
    batch = pa.record_batch({"x": pa.array([1, None, 3, 4]), "v": pa.array([[1.0], None, [3.0], [4.0]], pa.list_(pa.float64(), 1))}).slice(
        1, 2
    )
    arrays = to_arrays(batch, ["x", "v"])
    assert np.ma.getdata(arrays["x"])[1] == 3
    assert np.ma.getdata(arrays["v"])[1].tolist() == [3.0]
    assert np.ma.getmaskarray(arrays["x"]).tolist() == [True, False]


def test_a_missing_element_of_a_vector_is_nan() -> None:
    assert np.isnan(converted([[1.0, None]], pa.list_(pa.float32()))[0, 1])


def test_other_types_are_what_pyarrow_makes_of_them() -> None:
    assert converted([datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)], pa.timestamp("us")).dtype == "datetime64[us]"
    assert np.ma.getmaskarray(converted([None], pa.null())).all()


def test_lists_of_different_lengths_are_an_error() -> None:
    with pytest.raises(JobFileError, match=r"column 'x' holds lists of different lengths \(1 to 2\)"):
        converted([[1.0], [1.0, 2.0]], pa.list_(pa.float64()))


def test_missing_and_doubled_columns_are_errors() -> None:
    batch = pa.record_batch([pa.array([1]), pa.array([2]), pa.array([3])], names=["score", "twice", "twice"])
    with pytest.raises(JobFileError, match="no output column 'scor'") as error:
        to_arrays(batch, ["scor"])
    assert "'score'" in error.value.hint
    with pytest.raises(JobFileError, match="2 output columns called 'twice'"):
        to_arrays(batch, ["twice"])


def test_a_set_takes_arrow_batches_and_knows_their_rows_without_columns() -> None:
    config = {"n": {"type": "count"}, "m": {"type": "mean", "value": "x"}, "l": {"type": "cross_entropy", "score": "p", "label": "y"}}
    metrics = AccumulatorSet.from_config(config, __import__)
    vectors = pa.array([[0.5, 0.5], None, [0.25, 0.75]], pa.list_(pa.float32(), 2))
    metrics.update_arrow(pa.record_batch({"x": pa.array([1, None, 4]), "p": vectors, "y": pa.array([0, 0, 1], pa.int32())}))
    results = metrics.results()
    assert (results["n"]["count"], results["m"]["mean"], results["m"]["nulls"], results["l"]["nulls"]) == (3, 2.5, 1, 1)
    assert results["l"]["cross_entropy"] == pytest.approx(-np.log(0.5 * 0.75) / 2)
    bare = AccumulatorSet.from_config({"n": {"type": "count"}}, __import__)
    bare.update_arrow(pa.record_batch({"z": pa.array([1, 2])}))
    assert bare.results()["n"]["count"] == 2
