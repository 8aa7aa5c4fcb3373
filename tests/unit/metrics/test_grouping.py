"""However rows are cut into batches and ranges, and in whatever order and grouping these are merged, the results are the same bytes."""

from __future__ import annotations

import itertools
import json
import math
import random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from antinfer.metrics import AccumulatorSet

JOB: dict[str, Any] = {
    "n": {"type": "count"},
    "text": {"type": "count", "value": "name"},
    "mean": {"type": "mean", "value": "value"},
    "wide": {"type": "mean", "value": "wide", "ddof": 1},
    "histogram": {"type": "histogram", "value": "value", "bins": 70, "range": [-1, 1]},
    "area": {"type": "auroc", "score": "score", "label": "label", "bins": 100},
    "loss": {"type": "cross_entropy", "score": "score", "label": "label"},
    "classes": {"type": "cross_entropy", "score": ["score", "other"], "label": "label"},
    "matrix": {"type": "confusion_matrix", "label": "label", "prediction": "wide", "max_labels": 6},
    "names": {"type": "confusion_matrix", "label": "name", "prediction": "label"},
}

numbers = st.floats() | st.sampled_from([0.0, -0.0, 0.5, 1e-320])
row = st.tuples(
    numbers,
    st.none() | st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1),
    numbers | st.floats(0, 1),
    st.integers(0, 2),
    st.sampled_from(["a", "b", None]),
)
Row = tuple[float, int | None, float, int, str | None]


def batch(rows: list[Row]) -> dict[str, np.ndarray]:
    values, wides, scores, labels, names = ([row[index] for row in rows] for index in range(5))
    score = np.array(scores, dtype=np.float64)
    return {
        "value": np.array(values, dtype=np.float64),
        "wide": np.ma.MaskedArray(np.array([wide or 0 for wide in wides], dtype=np.int64), mask=[wide is None for wide in wides]),
        "score": score,
        "other": 1 - np.where(np.isfinite(score), score, 0.0),
        "label": np.array(labels, dtype=np.int8),
        "name": np.array(names, dtype=object),
    }


def merged(states: list[str], shuffle: random.Random) -> str:
    """Merge in random order and grouping: any two sets become one until one is left."""
    empty = AccumulatorSet.from_config(JOB, __import__)
    while len(states) > 1:
        shuffle.shuffle(states)
        pair = empty.fresh()
        pair.merge(states.pop())
        pair.merge(states.pop())
        states.append(pair.take_state())
    empty.merge(states[0])
    return json.dumps(empty.results(), allow_nan=False)


@settings(max_examples=60)
@given(st.lists(row, max_size=40), st.lists(st.integers(0, 40), max_size=6), st.randoms(use_true_random=False))
def test_results_do_not_depend_on_cuts_or_order(rows: list[Row], cuts: list[int], shuffle: random.Random) -> None:
    whole = AccumulatorSet.from_config(JOB, __import__)
    whole.update(batch(rows))
    expected = json.dumps(whole.results(), allow_nan=False)
    assert json.loads(expected)["n"]["count"] == len(rows)

    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    borders = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    states, part = [], whole.fresh()
    for start, stop in itertools.pairwise(borders):
        part.update(batch(shuffled[start:stop]))
        if shuffle.random() < 0.6:
            states.append(part.take_state())
    states.append(part.take_state())
    assert merged(states, shuffle) == expected
    assert merged([whole.take_state()], shuffle) == expected


def test_many_rows_over_many_ranges(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = 100_000
    columns = {
        "value": generator.standard_normal(size) * 10.0 ** generator.integers(-20, 20, size),
        "wide": generator.integers(0, 5, size),
        "score": generator.random(size, dtype=np.float32),
        "other": generator.random(size),
        "label": generator.integers(0, 2, size),
        "name": generator.choice(np.array(["a", "b"], dtype=object), size),
    }
    whole = AccumulatorSet.from_config(JOB, __import__)
    whole.update(columns)
    order = generator.permutation(size)
    states = []
    for rows in np.array_split(order, 37):
        part = whole.fresh()
        for piece in np.array_split(rows, 3):
            part.update({name: values[piece] for name, values in columns.items()})
        states.append(part.take_state())
    results = whole.results()
    assert results["mean"]["sum"] == math.fsum(columns["value"])
    assert merged(states, random.Random(seed)) == json.dumps(results, allow_nan=False)
