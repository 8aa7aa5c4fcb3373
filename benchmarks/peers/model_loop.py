"""A plain loop in one process: ``python -m benchmarks.peers.model_loop IN OUT FUNCTION MODEL BATCH [SORT_BY]``.

FUNCTION and MODEL are as in the job file, and so is BATCH. With SORT_BY the whole input is put through FUNCTION and sorted by the length of
that column first, as a user may who knows that it all fits into memory. Its seconds begin when the model is loaded.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Columns = dict[str, Any]


def run(source: Path, target: Path, function: str, model: str, batch_rows: int, sort_by: str) -> float:
    """Process the folder `source` into `target`; return seconds."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    prepare, predict = named(function), named(model)()
    started = time.perf_counter()
    target.mkdir()
    rows = _sorted(source, prepare, batch_rows, sort_by) if sort_by else _in_order(source, prepare, batch_rows)
    results = [_table(columns["id"], predict(columns)) for columns in rows]
    pq.write_table(pa.concat_tables(results), target / "part.parquet", compression="zstd", compression_level=1)
    return time.perf_counter() - started


def named(reference: str) -> Any:
    """Return what ``module:name`` names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def read(source: Path, batch_rows: int) -> Iterator[Columns]:
    """Yield the rows of all files of a folder as numpy columns."""
    for path in sorted(source.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(batch_rows):
            yield {name: column.to_numpy(zero_copy_only=False) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _in_order(source: Path, prepare: Any, batch_rows: int) -> Iterator[Columns]:
    for columns in read(source, batch_rows):
        yield {"id": columns["id"], **prepare(columns)}


def _sorted(source: Path, prepare: Any, batch_rows: int, sort_by: str) -> Iterator[Columns]:
    parts = list(_in_order(source, prepare, batch_rows))
    all_rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort([len(value) for value in all_rows[sort_by]], kind="stable")
    for start in range(0, len(order), batch_rows):
        yield {name: column[order[start : start + batch_rows]] for name, column in all_rows.items()}


def _table(ids: Any, result: Columns) -> pa.Table:
    return pa.table({"id": ids, **{name: list(values) if values.ndim > 1 else values for name, values in result.items()}})


if __name__ == "__main__":
    sort = sys.argv[6] if len(sys.argv) > 6 else ""
    print(run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]), sort))
