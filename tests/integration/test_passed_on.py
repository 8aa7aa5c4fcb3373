"""Columns that stages only pass on, in whole jobs: one batch holds a null, the others do not."""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.integration.runs import run_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS, BATCH, NULL_AT = 60, 10, 45
STEPS = """
def pass_on(batch):
    return {name: batch[name] for name in batch}

def pass_frame_on(batch):
    return batch.assign(label=batch["label"].astype("category"))

class Model:
    def __call__(self, batch):
        return {**batch, "score": batch["n"] * 0.5}

def twice(row):
    return [dict(row), dict(row)]
"""


def rows(with_null: Any) -> list[Any]:
    return [None if n == NULL_AT else with_null(n) for n in range(ROWS)]


def table() -> pa.Table:
    columns = {
        "n": pa.array(range(ROWS), pa.int64()),
        "count": pa.array(rows(int), pa.int32()),
        "price": pa.array(rows(lambda n: decimal.Decimal(n).scaleb(-1)), pa.decimal128(12, 2)),
        "at": pa.array(rows(lambda n: n * 1_000_000), pa.timestamp("us", "UTC")),
        "embedding": pa.array(rows(lambda n: [n, 1]), pa.list_(pa.int32(), 2)),
        "tags": pa.array(rows(lambda n: [("a", n)]), pa.map_(pa.string(), pa.int64())),
        "label": pa.array([f"l{n}" for n in range(ROWS)]),
    }
    return pa.table(columns)


def run(tmp_path: Path, given: pa.Table, steps: list[dict[str, Any]]) -> pa.Table:
    (tmp_path / "in").mkdir()
    pq.write_table(given, tmp_path / "in" / "0.parquet", row_group_size=BATCH)
    job = {
        "name": "passed on",
        "source": {"type": "parquet", "path": str(tmp_path / "in")},
        "pipeline": steps,
        "sink": {"path": str(tmp_path / "out")},
        "shard": {"rows": 2 * BATCH},
    }
    run_job(tmp_path, job, steps=STEPS)
    return ds.dataset(tmp_path / "out").to_table().sort_by("n")


@pytest.mark.parametrize("form", ["numpy", "pandas", "process"])
def test_what_is_passed_on_is_the_same_in_the_output(tmp_path: Path, form: str) -> None:
    step: dict[str, Any] = {"map_batches": "steps:pass_on", "batch_size": BATCH}
    if form == "pandas":
        step = {"map_batches": "steps:pass_frame_on", "batch_size": BATCH, "batch_format": "pandas"}
    if form == "process":
        step = {"predict": "steps:Model", "batch_size": BATCH}
    given = table()
    found = run(tmp_path, given, [step])
    for name in given.column_names:
        assert found[name].to_pylist() == given[name].to_pylist(), name
    for name in ("n", "count", "price", "at"):
        assert found.schema.field(name).type == given.schema.field(name).type
    if form == "pandas":
        assert pa.types.is_dictionary(found.schema.field("label").type)


def test_rows_that_fan_out_pass_whole_numbers_on(tmp_path: Path) -> None:
    given = table().select(["n", "count"])
    found = run(tmp_path, given, [{"flat_map": "steps:twice", "batch_size": BATCH}])
    assert found.schema.field("count").type == pa.int32()
    assert found["count"].to_pylist() == [count for count in given["count"].to_pylist() for _ in range(2)]
