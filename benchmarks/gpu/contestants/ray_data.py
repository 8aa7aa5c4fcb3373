"""Ray Data: ``python -m benchmarks.gpu.contestants.ray_data IN OUT --tuned 0|1``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from typing import Any

import numpy as np

Batch = dict[str, Any]
_STORE_BYTES = 32 << 30


def decode(batch: Batch) -> Batch:
    from benchmarks.gpu import pictures

    return {"id": batch["id"], "url": batch["url"], "pixels": pictures.stacked(batch["jpeg"])}


class Classifier:
    """The actor."""

    def __init__(self, network: str, device: str, ticks: str) -> None:
        from benchmarks.gpu.contestants.model import Labels
        from benchmarks.gpu.ticks import Ticks

        self._labels = Labels(network, device)
        self._device = device
        self._ticks = Ticks(ticks)

    def __call__(self, batch: Batch) -> Batch:
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(batch["pixels"]))
        self._labels.submit(pixels if self._device == "cpu" else pixels.pin_memory(), None)
        _, (label, score) = self._labels.collect()
        self._ticks.add(len(label))
        return {"id": batch["id"], "url": batch["url"], "label": label, "score": score}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--ticks", default="")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--tuned", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    import ray

    gpus = int(options.device != "cpu")
    store = {"object_store_memory": min(_STORE_BYTES, int(0.8 * shutil.disk_usage("/dev/shm").free))} if options.tuned and gpus else {}
    cores = len(os.sched_getaffinity(0))
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", num_cpus=cores, num_gpus=gpus, **store)
    imported = time.perf_counter()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    pool: dict[str, Any] = {"size": 1}
    if options.tuned:
        # The model's batches are fetched while it computes, and what is kept for the other operators is smaller.
        context.actor_prefetcher_enabled = True
        context.op_resource_reservation_ratio = 0.25
        pool |= {"max_tasks_in_flight_per_actor": 8}
    rows = ray.data.read_parquet(options.source).map_batches(decode, batch_size=256, zero_copy_batch=True)
    rows = rows.map_batches(
        Classifier,
        fn_constructor_kwargs={"network": options.network, "device": options.device, "ticks": options.ticks},
        batch_size=256,
        zero_copy_batch=True,
        num_gpus=gpus,
        compute=ray.data.ActorPoolStrategy(**pool),
    )
    rows.write_parquet(options.target)
    ended = time.perf_counter()
    said = {"init_seconds": imported - started, "job_seconds": ended - imported, "stats": rows.stats()[-4000:]}
    ray.shutdown()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
