"""Each built-in accumulator against an independent computation on the same rows."""

from __future__ import annotations

import json
import math
import statistics
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.errors import JobFileError
from antinfer.metrics import AccumulatorSet


def no_own(name: str) -> object:
    raise AssertionError(f"{name} should not be looked up")


def computed(config: dict[str, Any], **columns: Any) -> dict[str, Any]:
    metrics = AccumulatorSet.from_config({"m": config}, no_own)
    metrics.update({name: values if isinstance(values, np.ndarray) else np.array(values) for name, values in columns.items()})
    (result,) = metrics.results().values()
    json.dumps(result, allow_nan=False)
    return result


def true_auroc(scores: list[float], labels: list[int]) -> Fraction:
    positives = [score for score, label in zip(scores, labels, strict=True) if label]
    negatives = [score for score, label in zip(scores, labels, strict=True) if not label]
    wins = sum(Fraction(1) if p > n else Fraction(p == n, 2) for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


class TestCount:
    def test_counts_rows_without_any_column(self) -> None:
        metrics = AccumulatorSet.from_config({"m": {"type": "count"}}, no_own)
        metrics.update({}, rows=7)
        metrics.update({"x": np.arange(3)})
        assert metrics.results() == {"m": {"type": "count", "count": 10, "rows": 10, "nulls": 0}}

    def test_counts_rows_in_which_a_column_is_not_null(self) -> None:
        result = computed({"type": "count", "value": "x"}, x=np.array(["a", None, "b"], dtype=object))
        assert (result["count"], result["nulls"]) == (2, 1)


class TestMean:
    @given(st.lists(st.floats(-1e150, 1e150) | st.integers(-5, 5).map(float), min_size=2, max_size=40))
    def test_every_figure_is_the_exact_one_rounded_once(self, values: list[float]) -> None:
        result = computed({"type": "mean", "value": "x", "ddof": 1}, x=values)
        exact = [Fraction(value) for value in values]
        assert result["mean"] == float(sum(exact) / len(exact))
        assert result["sum"] == math.fsum(values)
        assert (result["min"], result["max"]) == (min(values), max(values))
        assert result["variance"] == float(statistics.variance(exact))
        assert result["std"] == pytest.approx(math.sqrt(statistics.variance(exact)), rel=1e-15)
        assert computed({"type": "mean", "value": "x"}, x=values)["variance"] == float(statistics.pvariance(exact))

    def test_nan_and_infinities_are_counted_and_left_out(self) -> None:
        result = computed({"type": "mean", "value": "x"}, x=[1.0, math.nan, math.inf, -math.inf, 3.0])
        assert (result["count"], result["mean"], result["nan"], result["infinite"], result["rows"]) == (2, 2.0, 1, 2, 5)

    def test_nothing_is_undefined_not_an_error(self) -> None:
        result = computed({"type": "mean", "value": "x", "ddof": 1}, x=np.zeros(0))
        assert [result[key] for key in ("mean", "min", "max", "variance", "std")] == [None] * 5
        assert computed({"type": "mean", "value": "x", "ddof": 1}, x=[3.0])["variance"] is None

    def test_figures_beyond_float64_are_none(self) -> None:
        result = computed({"type": "mean", "value": "x"}, x=[1.7e308, -1.7e308, 1.7e308, 1.7e308])
        assert (result["sum"], result["mean"], result["variance"]) == (None, 0.85e308, None)
        assert result["std"] == pytest.approx(1.7e308 * math.sqrt(0.75))

    def test_zero_has_no_sign_that_order_could_choose(self) -> None:
        assert [str(computed({"type": "mean", "value": "x"}, x=x)["min"]) for x in ([0.0, -0.0], [-0.0, 0.0], [-0.0])] == ["0.0"] * 3

    def test_wide_integers_keep_every_digit(self) -> None:
        result = computed({"type": "mean", "value": "x"}, x=[2**62 + 1, 2**62 + 3])
        assert (result["min"], result["max"], result["variance"]) == (2**62 + 1, 2**62 + 3, 1.0)

    @pytest.mark.parametrize(
        "values",
        [np.array(["a"]), np.array(["a"], dtype=object), np.array(["2020-01-01"], dtype="datetime64[D]"), np.zeros((1, 2)), np.array([1j])],
        ids=["U", "object", "datetime", "matrix", "complex"],
    )
    def test_a_column_without_numbers_is_named(self, values: np.ndarray) -> None:
        with pytest.raises(JobFileError, match=r"accumulators\.m\.value: column 'x' holds"):
            computed({"type": "mean", "value": "x"}, x=values)


class TestHistogram:
    def test_edges_belong_to_the_bin_above_but_the_last(self) -> None:
        values = [-1.0, 0.0, 0.5, 1.0, 2.0, 4.9, 5.0, 10.0, 10.1, math.inf, -math.inf, math.nan]
        result = computed({"type": "histogram", "value": "x", "bins": [0, 1, 2, 5, 10]}, x=values)
        assert result["counts"] == [2, 1, 2, 2]
        assert (result["underflow"], result["overflow"], result["nan"]) == (2, 2, 1)

    @given(st.lists(st.floats(-3, 3), max_size=50), st.integers(1, 100))
    def test_bins_of_one_width_agree_with_numpy(self, values: list[float], bins: int) -> None:
        result = computed({"type": "histogram", "value": "x", "bins": bins, "range": [-2, 2]}, x=np.array(values))
        expected, _ = np.histogram([value for value in values if -2 <= value <= 2], bins=np.array(result["edges"]))
        assert result["counts"] == expected.tolist()
        assert (result["edges"][0], result["edges"][-1], len(result["edges"])) == (-2.0, 2.0, bins + 1)
        assert result["underflow"] + result["overflow"] + sum(result["counts"]) == len(values)


class TestAuroc:
    @given(st.lists(st.tuples(st.floats(-0.2, 1.2) | st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 1)), max_size=40), st.integers(2, 50))
    def test_the_true_area_lies_within_the_bound(self, rows: list[tuple[float, int]], bins: int) -> None:
        scores, labels = [score for score, _ in rows], [label for _, label in rows]
        result = computed(
            {"type": "auroc", "score": "s", "label": "y", "bins": bins}, s=np.array(scores), y=np.array(labels, dtype=np.int8)
        )
        if len(set(labels)) < 2:
            assert result["auroc"] is None
            assert result["error_bound"] is None
            return
        gap = abs(Fraction(result["auroc"]) - true_auroc(scores, labels))
        assert gap <= Fraction(result["error_bound"]) + Fraction(1, 2**52)
        if result["error_bound"] == 0:
            assert result["auroc"] == float(true_auroc(scores, labels))

    def test_the_bound_is_reached(self) -> None:
        rows = {"s": [0.1, 0.2], "y": [0, 1]}
        assert true_auroc(rows["s"], [0, 1]) == 1
        result = computed({"type": "auroc", "score": "s", "label": "y", "bins": 2}, **rows)
        assert (result["auroc"], result["error_bound"]) == (0.5, 0.5)
        result = computed({"type": "auroc", "score": "s", "label": "y", "bins": 10}, **rows)
        assert (result["auroc"], result["error_bound"]) == (1.0, 0.0)

    def test_odd_rows_are_counted_apart(self) -> None:
        result = computed({"type": "auroc", "score": "s", "label": "y"}, s=[0.5, math.nan, 2.0, -math.inf, 0.7], y=[2, 1, 1, 0, math.nan])
        assert [result[key] for key in ("unknown_label", "nan", "outside", "positives", "negatives", "auroc")] == [2, 1, 2, 1, 1, 1.0]

    def test_text_labels_need_the_positive_one(self) -> None:
        rows = {"s": [0.2, 0.9, 0.8], "y": np.array(["dog", "cat", "cow"])}
        assert computed({"type": "auroc", "score": "s", "label": "y", "positive": "cat"}, **rows)["auroc"] == 1.0
        with pytest.raises(JobFileError, match=r"accumulators\.m\.label: column 'y' holds text") as error:
            computed({"type": "auroc", "score": "s", "label": "y"}, **rows)
        assert "positive" in error.value.hint
        with pytest.raises(JobFileError, match="positive: 1"):
            computed({"type": "auroc", "score": "s", "label": "y", "positive": 1}, **rows)

    def test_billions_of_rows_do_not_overflow(self) -> None:
        from antinfer.metrics.auroc import _area

        many = np.array([4_000_000_000, 4_000_000_000])
        assert _area(many, many) == (0.5, 0.25)


class TestCrossEntropy:
    @given(st.lists(st.tuples(st.floats(1e-12, 1 - 1e-12), st.booleans()), min_size=1, max_size=30))
    def test_two_classes(self, rows: list[tuple[float, bool]]) -> None:
        result = computed({"type": "cross_entropy", "score": "s", "label": "y"}, s=[s for s, _ in rows], y=[y for _, y in rows])
        expected = math.fsum(-math.log(s) if y else -math.log1p(-s) for s, y in rows) / len(rows)
        assert result["cross_entropy"] == pytest.approx(expected, rel=1e-14)
        assert result["count"] == len(rows)

    def test_clipping_bounds_the_loss_of_a_row_and_is_counted(self) -> None:
        result = computed({"type": "cross_entropy", "score": "s", "label": "y"}, s=[0.0, 1.0, 0.5], y=[1, 0, 1])
        assert result["cross_entropy"] == pytest.approx((2 * -math.log(1e-15) - math.log(0.5)) / 3, rel=1e-2)
        assert (result["clipped"], result["clip"]) == (2, 1e-15)
        assert computed({"type": "cross_entropy", "score": "s", "label": "y", "clip": 0.25}, s=[0.0], y=[1])["cross_entropy"] == -math.log(
            0.25
        )

    @pytest.mark.parametrize("form", ["matrix", "columns", "object"])
    def test_many_classes(self, form: str) -> None:
        scores, labels = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]), [0, 2, 7]
        config = {"type": "cross_entropy", "score": ["a", "b", "c"] if form == "columns" else "s", "label": "y"}
        columns: dict[str, Any] = dict(zip("abc", scores.T, strict=True)) if form == "columns" else {"s": scores}
        if form == "object":
            columns["s"] = np.empty(3, dtype=object)
            columns["s"][:] = list(scores)
        result = computed(config, **columns, y=labels)
        assert result["cross_entropy"] == pytest.approx(-(math.log(0.7) + math.log(0.8)) / 2)
        assert (result["count"], result["unknown_label"]) == (2, 1)

    def test_many_classes_with_names(self) -> None:
        config = {"type": "cross_entropy", "score": "s", "label": "y", "labels": ["cat", "dog"]}
        result = computed(config, s=np.array([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4]]), y=np.array(["dog", "cat", "cow"], dtype=object))
        assert result["cross_entropy"] == pytest.approx(-(math.log(0.1) + math.log(0.5)) / 2)
        assert result["unknown_label"] == 1
        with pytest.raises(JobFileError, match="holds 3 probabilities a row, `labels` has 2"):
            computed(config, s=np.ones((1, 3)), y=["cat"])
        with pytest.raises(JobFileError, match="class numbers are needed"):
            computed({"type": "cross_entropy", "score": "s", "label": "y"}, s=np.ones((1, 3)), y=["cat"])

    def test_nan_counts_only_where_it_is_the_probability_that_is_asked_for(self) -> None:
        scores = np.array([[math.nan, 0.5], [math.nan, 0.5], [0.5, math.nan]])
        result = computed({"type": "cross_entropy", "score": "s", "label": "y"}, s=scores, y=[0, 1, 5])
        assert (result["nan"], result["count"], result["unknown_label"]) == (1, 1, 1)

    def test_an_unknown_label_is_not_counted_as_nan_too(self) -> None:
        result = computed({"type": "cross_entropy", "score": "s", "label": "y"}, s=[math.nan, math.nan, 0.5], y=[7, 1, 0])
        assert (result["nan"], result["unknown_label"], result["count"]) == (1, 1, 1)

    def test_clipping_with_many_classes(self) -> None:
        result = computed(
            {"type": "cross_entropy", "score": "s", "label": "y"}, s=np.array([[0.0, 2.0], [0.0, 2.0], [0.5, 0.5]]), y=[0, 1, 0]
        )
        assert result["clipped"] == 2
        assert result["cross_entropy"] == pytest.approx((-math.log(1e-15) - math.log(0.5)) / 3)

    def test_labels_that_are_no_whole_numbers_are_unknown(self) -> None:
        result = computed({"type": "cross_entropy", "score": "s", "label": "y"}, s=np.full((4, 2), 0.5), y=[0.5, math.nan, -1.0, 1.0])
        assert (result["unknown_label"], result["count"]) == (3, 1)


class TestConfusionMatrix:
    @pytest.mark.parametrize(
        ("labels", "predictions", "expected"),
        [
            (["b", "a", "b"], ["a", "a", "b"], {"labels": ["a", "b"], "matrix": [[1, 0], [1, 1]]}),
            ([True, False, True], [1, 0, 0], {"labels": [0, 1], "matrix": [[1, 0], [1, 1]]}),
            ([1.0, 2.5, 1.0], [1, 1, 100_000], {"labels": [1, 2.5, 100_000], "matrix": [[1, 0, 1], [1, 0, 0], [0, 0, 0]]}),
            ([-1, -1], ["x", "-1"], {"labels": [-1, "-1", "x"], "matrix": [[0, 1, 1], [0, 0, 0], [0, 0, 0]]}),
        ],
        ids=["text", "bool and int", "float", "mixed"],
    )
    def test_discovered_labels(self, labels: list[Any], predictions: list[Any], expected: dict[str, Any]) -> None:
        result = computed({"type": "confusion_matrix", "label": "y", "prediction": "p"}, y=labels, p=predictions)
        # As JSON, in which true, 1 and 1.0 are three different things.
        assert json.dumps({key: result[key] for key in expected}) == json.dumps(expected)

    @given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=60))
    def test_table_and_dict_agree(self, rows: list[tuple[int, int]]) -> None:
        labels, predictions = [y for y, _ in rows], [p for _, p in rows]
        config = {"type": "confusion_matrix", "label": "y", "prediction": "p", "max_labels": 1000}
        ints = computed(config, y=np.array(labels, dtype=np.int64), p=np.array(predictions, dtype=np.uint16))
        floats = computed(config, y=np.array(labels, dtype=np.float64), p=np.array(predictions, dtype=np.float32))
        assert ints == floats
        assert ints["correct"] == sum(y == p for y, p in rows)
        assert ints["accuracy"] == (ints["correct"] / len(rows) if rows else None)

    def test_fixed_labels_keep_their_order_and_count_others(self) -> None:
        config = {"type": "confusion_matrix", "label": "y", "prediction": "p", "labels": ["b", "a"]}
        result = computed(config, y=["a", "b", "c", "a"], p=["a", "a", "a", "z"])
        assert (result["labels"], result["matrix"], result["other"], result["count"]) == (["b", "a"], [[0, 1], [0, 1]], 2, 2)

    def test_booleans_are_0_and_1_whatever_they_meet(self) -> None:
        config = {"type": "confusion_matrix", "label": "y", "prediction": "p"}
        found = computed(config, y=[True, False], p=[1.0, 2.5])
        assert json.dumps([found["labels"], found["matrix"]]) == "[[0, 1, 2.5], [[0, 0, 1], [0, 1, 0], [0, 0, 0]]]"
        fixed = computed({**config, "labels": [True, False]}, y=[True, False], p=[1.0, 2.5])
        assert json.dumps([fixed["labels"], fixed["matrix"], fixed["other"]]) == "[[1, 0], [[1, 0], [0, 0]], 1]"

    def test_too_many_labels_leave_accuracy(self) -> None:
        config = {"type": "confusion_matrix", "label": "y", "prediction": "p", "max_labels": 5}
        result = computed(config, y=np.arange(6), p=np.array([0, 1, 2, 0, 0, 0]))
        assert (result["labels"], result["matrix"], result["count"], result["accuracy"]) == (None, None, 6, 0.5)

    def test_values_that_are_not_finite_are_counted_apart(self) -> None:
        result = computed({"type": "confusion_matrix", "label": "y", "prediction": "p"}, y=[math.nan, 1.0, 1.0], p=[1.0, math.inf, 1.0])
        assert (result["not_finite"], result["count"]) == (2, 1)
