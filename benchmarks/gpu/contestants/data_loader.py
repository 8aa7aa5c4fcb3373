"""A torch DataLoader tuned by hand: ``python -m benchmarks.gpu.contestants.data_loader IN OUT``.

Workers read row groups of a batch's size and decode them whole, so nothing is collated; the loader pins and reads ahead; the model is one
batch ahead of its results, which a thread writes.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from benchmarks.gpu import pictures
from benchmarks.gpu.contestants.model import Labels
from benchmarks.gpu.ticks import Ticks


class Pictures(IterableDataset[Any]):
    """Batches of a folder's files; worker number w of n takes every n-th."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("*.parquet"))

    def __iter__(self) -> Iterator[tuple[torch.Tensor, list[int], list[str]]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for path in self._paths[first::step]:
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, use_threads=False).to_pydict()
                yield torch.from_numpy(pictures.stacked(rows["jpeg"])), rows["id"], rows["url"]


class Writer(threading.Thread):
    """Writes what it is given into one file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        folder.mkdir(parents=True)
        self._path = folder / "part.parquet"
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.start()

    def put(self, columns: dict[str, Any] | None) -> None:
        """Write columns; None: that was all."""
        self._queue.put(columns)

    def run(self) -> None:
        writer: pq.ParquetWriter | None = None
        while (columns := self._queue.get()) is not None:
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(self._path, table.schema, compression="zstd", compression_level=1)
            writer.write_table(table)
        if writer is not None:
            writer.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--ticks", default="")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--compiled", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    on_gpu = options.device != "cpu"
    loader = DataLoader(Pictures(options.source), batch_size=None, num_workers=options.workers, pin_memory=on_gpu, prefetch_factor=4)
    # Workers are forked before the device is touched.
    batches = iter(loader)
    labels = Labels(options.network, options.device, compiled=bool(options.compiled))
    writer, ticks = Writer(options.target), Ticks(options.ticks)

    def collect() -> None:
        (ids, urls), (label, score) = labels.collect()
        writer.put({"id": ids, "url": urls, "label": label, "score": score})
        ticks.add(len(ids))

    for pixels, ids, urls in batches:
        labels.submit(pixels, (ids, urls))
        if len(labels) > 1:
            collect()
    while len(labels):
        collect()
    writer.put(None)
    writer.join()
    print(json.dumps({"job_seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
