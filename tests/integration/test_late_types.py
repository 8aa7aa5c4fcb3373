"""Columns without a value in whole parts, in real runs: plain readers have to get the whole output."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.integration.runs import run_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FILES, ROWS = 4, 10
STEPS = """
import time
import numpy as np


def label(batch, first, pause):
    labels = [f"l{n}" if n // 10 % 2 == first else None for n in batch["n"]]
    time.sleep(0.5 if (labels[0] is not None) == (pause == "labels") else 0.0)
    return {"n": batch["n"], "label": np.array(labels, dtype=object)}
"""


@pytest.mark.parametrize("first", [0, 1], ids=["labels first", "nulls first"])
@pytest.mark.parametrize("pause", ["labels", "nulls"])
def test_plain_readers_read_an_output_with_parts_of_nulls(tmp_path: Path, first: int, pause: str) -> None:
    """Half of the parts have no label; they are done before the others, or after, by two workers."""
    (tmp_path / "in").mkdir()
    for file in range(FILES):
        pq.write_table(pa.table({"n": range(file * ROWS, (file + 1) * ROWS)}), tmp_path / "in" / f"{file}.parquet")
    job = {
        "name": "late types",
        "source": {"type": "parquet", "path": str(tmp_path / "in")},
        "pipeline": [{"map_batches": "steps:label", "batch_size": ROWS, "args": {"first": first, "pause": pause}}],
        "sink": {"path": str(tmp_path / "out")},
        "shard": {"rows": ROWS},
        "workers": {"min": 2, "max": 2},
    }
    run_job(tmp_path, job, steps=STEPS)
    table = ds.dataset(tmp_path / "out").to_table().sort_by("n")
    assert table.schema.types == [pa.int64(), pa.string()]
    assert table.to_pylist() == [{"n": n, "label": f"l{n}" if n // ROWS % 2 == first else None} for n in range(FILES * ROWS)]
    schemas = {pq.read_schema(path).remove_metadata() for path in (tmp_path / "out").glob("part-*")}
    assert len(schemas) == 1, "every part has the types"
