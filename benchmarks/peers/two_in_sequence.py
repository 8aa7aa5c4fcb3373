"""Two models one after the other in one process: ``python -m benchmarks.peers.two_in_sequence IN OUT PICTURES FACES``.

PICTURES and FACES are the batch sizes of the two: so many pictures are read, decoded and looked at, then all faces in them, in batches of
at most FACES. Its seconds begin when both models are loaded.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers.model_loop import Columns, named, read


def run(source: Path, target: Path, pictures: int, faces: int) -> float:
    """Process the folder `source` into `target`; return seconds."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    decode, crops, detect, embed = named("steps:decode"), named("steps:crops"), named("steps:Detector")(), named("steps:Embedder")()
    started = time.perf_counter()
    target.mkdir()
    results = []
    for columns in read(source, pictures):
        found = detect(decode(columns))
        cut = [crops(row) for row in _rows(found)]
        flat = [one["crop"] for some in cut for one in some]
        made = [embed({"crop": np.stack(flat[start : start + faces])})["embedding"] for start in range(0, len(flat), faces)]
        results.append(_table(columns["id"], [len(some) for some in cut], made))
    pq.write_table(pa.concat_tables(results), target / "part.parquet", compression="zstd", compression_level=1)
    return time.perf_counter() - started


def _rows(columns: Columns) -> list[Columns]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _table(ids: object, counts: list[int], made: list[np.ndarray]) -> pa.Table:
    """Return a row per picture, with the list of its embeddings."""
    values = pa.array(np.concatenate(made).ravel() if made else np.empty(0, np.float32))
    offsets = pa.array(np.concatenate(([0], np.cumsum(counts))).astype(np.int32))
    embeddings = pa.FixedSizeListArray.from_arrays(values, 1280)
    return pa.table({"id": ids, "embeddings": pa.ListArray.from_arrays(offsets, embeddings)})


if __name__ == "__main__":
    print(run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
