"""Two models in one process, one after the other: ``python -m benchmarks.gpu.contestants.in_sequence IN OUT``.

Reads a row group, decodes it, finds the places, cuts them out, embeds all of them, in batches as large as the pipeline's, and writes.
``--threads`` gives its decoding a pool.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.gpu import networks, pictures
from benchmarks.gpu.crops import cut
from benchmarks.gpu.ticks import Ticks

BATCH = 256


class Job:
    """The loop."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._device = options.device
        self._detector = networks.on_device(networks.detector(options.detector), options.device)
        self._embedder = networks.on_device(networks.embedder(options.embedder), options.device)
        self._pool = ThreadPoolExecutor(options.threads) if options.threads > 1 else None

    @torch.inference_mode()
    def process(self, rows: dict[str, list[Any]]) -> pa.Table:
        """Return id, url and the vectors of each picture's places, as a list."""
        pixels = self._decoded(rows["jpeg"])
        corners, scores = (each.cpu().numpy() for each in self._detector(torch.from_numpy(pixels).to(self._device)))
        found = [cut({"pixels": pixels[n], "corners": corners[n], "scores": scores[n]}) for n in range(len(pixels))]
        crops = [place["crop"] for places in found for place in places]
        parts = [np.stack(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
        vectors = np.concatenate([self._embedder(torch.from_numpy(part).to(self._device)).cpu().numpy() for part in parts])
        lengths = np.cumsum([0, *map(len, found)], dtype=np.int32)
        items = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        return pa.table({"id": rows["id"], "url": rows["url"], "places": pa.ListArray.from_arrays(pa.array(lengths), items)})

    def _decoded(self, jpegs: list[bytes]) -> Any:
        if self._pool is None:
            return pictures.stacked(jpegs)
        return np.stack(list(self._pool.map(pictures.pixels, jpegs)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--ticks", default="")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--detector", default="small")
    parser.add_argument("--embedder", default="resnet18")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    started = time.perf_counter()
    job, ticks = Job(options), Ticks(options.ticks)
    options.target.mkdir(parents=True)
    writer: pq.ParquetWriter | None = None
    for path in sorted(options.source.glob("*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            table = job.process(file.read_row_group(group).to_pydict())
            writer = writer or pq.ParquetWriter(options.target / "part.parquet", table.schema, compression="zstd", compression_level=1)
            writer.write_table(table)
            ticks.add(table.num_rows)
    if writer is not None:
        writer.close()
    print(json.dumps({"job_seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
