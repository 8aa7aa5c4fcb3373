"""Data sets for the benchmarks, made from a fixed seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_NAMES = 100_003
_SEED = 7


def write_rows(folder: Path, rows: int, files: int) -> None:
    """Write `rows` rows over `files` Parquet files: an id, a name, a time, and the number `x` that a model wants."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(_SEED)
    names = pa.array([f"customer-{n:06d}" for n in range(_NAMES)])
    for index in range(files):
        ids = np.arange(index * rows // files, (index + 1) * rows // files)
        table = pa.table(
            {
                "id": ids,
                "name": names.take(pa.array(rng.integers(0, _NAMES, len(ids)))),
                "when": pa.array(1_700_000_000_000 + 1_000 * ids, pa.timestamp("ms")),
                "x": rng.random(len(ids)),
            }
        )
        pq.write_table(table, folder / f"rows-{index:03d}.parquet", row_group_size=256 * 1024)
