"""What a flat_map makes of a batch is bounded in bytes: a call ends early, and the rest of its rows is for the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from antinfer.worker import batches, calls
from antinfer.worker.calls import Caller
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.pipeline.unify import TooLargeError

SEEN: list[int] = []


def frames(row: dict[str, Any]) -> list[dict[str, Any]]:
    SEEN.append(int(row["x"]))
    if row["x"] % 10 == 7:
        raise ValueError("no frames")
    return [{"of": row["x"], "jpeg": bytes(1000)} for _ in range(row["x"] % 4)]


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    SEEN.clear()
    monkeypatch.setattr(calls, "_MOST_BYTES", 12_000)


def caller() -> Caller:
    return Caller(StageCall("s", "flat_map", f"{__name__}:frames", ""), copy=True)


def test_a_call_ends_once_its_children_hold_enough() -> None:
    outcome = caller().run(pa.record_batch({"x": np.arange(100)}))
    # Rows 0 to 6 have nine children, row 7 is a bad one, row 9 the first that ends it.
    assert outcome.ran == 10 and list(range(10)) == SEEN
    assert outcome.rows is not None and outcome.rows.tolist() == [1, 2, 2, 3, 3, 3, 5, 6, 6, 9]
    assert outcome.bad is not None and [row for row, _ in outcome.bad] == [7]


def test_every_row_is_run_once_and_its_children_are_those_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, one, made, bad, at = pa.record_batch({"x": np.arange(100)}), caller(), [], [], 0
    while at < 100:
        outcome = one.run(batch.slice(at))
        assert outcome.batch is not None and outcome.batch.nbytes < 15_000
        made += outcome.batch["of"].to_pylist()
        bad += [at + row for row, _ in outcome.bad or ()]
        at += 100 if outcome.ran is None else outcome.ran
    assert list(range(100)) == SEEN
    monkeypatch.setattr(calls, "_MOST_BYTES", 1 << 30)
    whole = caller().run(batch)
    assert whole.ran is None and whole.batch is not None and whole.batch["of"].to_pylist() == made
    assert [row for row, _ in whole.bad or ()] == bad


def test_a_row_whose_children_fit_into_no_array_is_a_bad_row(monkeypatch: pytest.MonkeyPatch) -> None:
    read = batches.from_rows

    def from_rows(rows: Sequence[Any], where: str) -> pa.RecordBatch:
        if any(row["of"] == 9 for row in rows):
            raise TooLargeError("jpeg", where=where)
        return read(rows, where)

    monkeypatch.setattr(batches, "from_rows", from_rows)
    outcome = caller().run(pa.record_batch({"x": np.arange(100)}))
    assert outcome.ran == 10 and outcome.rows is not None and outcome.rows.tolist() == [1, 2, 2, 3, 3, 3, 5, 6, 6]
    assert outcome.bad is not None and [row for row, _ in outcome.bad] == [7, 9]
    assert "column 'jpeg' holds more than 2 GiB" in outcome.bad[1][1].error


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (np.zeros((3, 5), np.float32), 60),
        (bytes(7), 7),
        ("abc", 3),
        ("äöü", 6),
        (None, 8),
        (True, 8),
        (np.int8(1), 1),
        ([1.5, 2.5], 16),
        ({"a": bytes(3), "b": ["xy", None]}, 13),
        (np.array([bytes(2), np.zeros(2)], dtype=object), 18),
        (np.array(bytes(4), dtype=object), 4),
    ],
    ids=repr,
)
def test_what_a_value_holds(value: object, size: int) -> None:
    assert calls._bytes_of(value) == size
