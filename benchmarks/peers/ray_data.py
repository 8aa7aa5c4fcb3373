"""Ray Data with one actor: ``python -m benchmarks.peers.ray_data IN OUT numpy|pyarrow``. Its seconds do not include ``ray.init``.

Ray Data has no carryover: the actor is given every column and hands every column on.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import ray


class Numpy:
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["y"] = batch.pop("x")
        return batch


class Arrow:
    def __call__(self, batch: Any) -> Any:
        return batch.rename_columns(["y" if name == "x" else name for name in batch.schema.names])


def run(source: str, target: str, form: str) -> float:
    """Process the folder `source` into `target`; return the seconds between the running cluster and the written output."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    started = time.perf_counter()
    rows = ray.data.read_parquet(source).map_batches(
        Numpy if form == "numpy" else Arrow,
        batch_size=16_384,
        batch_format=form,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    rows.write_parquet(target, compression="zstd", compression_level=1)
    return time.perf_counter() - started


if __name__ == "__main__":
    print(run(*sys.argv[1:]))
