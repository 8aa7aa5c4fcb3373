"""Ray Data with one actor: ``python -m benchmarks.peers.ray_model IN OUT FUNCTION MODEL BATCH``; the arguments are as in `model_loop`.

Its seconds begin when the model is loaded: neither ``ray.init`` nor the actor's start is in them.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import ray

from benchmarks.peers.model_loop import named


class WithId:
    """Hands the id on, which Ray Data, without carryover, would lose."""

    def __init__(self, reference: str, *, is_model: bool) -> None:
        if is_model:
            import torch

            torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.call = named(reference)() if is_model else named(reference)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"id": batch["id"], **self.call(batch)}


def run(source: str, target: str, function: str, model: str, batch_rows: int) -> float:
    """Process the folder `source` into `target`; return seconds."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    prepare = WithId(function, is_model=False)
    rows = (
        ray.data.read_parquet(source)
        .map_batches(prepare.__call__, batch_size=batch_rows)
        .map_batches(
            WithId,
            fn_constructor_args=(model,),
            fn_constructor_kwargs={"is_model": True},
            batch_size=batch_rows,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
    )
    rows.write_parquet(target, compression="zstd", compression_level=1)
    return time.time() - float(Path("loaded").read_text())


if __name__ == "__main__":
    print(run(*sys.argv[1:5], int(sys.argv[5])))
