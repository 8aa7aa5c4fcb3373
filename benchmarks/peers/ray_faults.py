"""Ray Data, set up to get over as much as it can: ``python -m benchmarks.peers.ray_faults IN OUT [OPTIONS]``.

Ray's defaults start dead actors again and repeat their tasks without limit; what else there is costs something and is asked for by option.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.data.checkpoint import CheckpointConfig
from steps import Score, parse


class Actor:
    """Hands the id on, which Ray Data, without carryover, would lose."""

    def __init__(self) -> None:
        self.score = Score()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"id": batch["id"], **self.score({"text": batch["text"]})}


class CatchingActor(Actor):
    """Leaves out the rows that raise, as a user writes it who does not want to lose their whole block."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        good = np.array([_is_good(text) for text in batch["text"]])
        return super().__call__({name: values[good] for name, values in batch.items()})


def run(options: argparse.Namespace) -> None:
    """Process the folder `source` into `target`."""
    # "local": never a cluster that a killed driver has left behind. Two cores more than actors, for the tasks that read and write.
    ray.init("local", num_cpus=options.actors + 2, include_dashboard=False, log_to_driver=False, logging_level="error")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # An actor that is killed while it starts would fail the job.
    context.max_consecutive_actor_init_deaths = -1
    context.max_errored_blocks = options.errored_blocks
    if options.checkpoint:
        context.checkpoint_config = CheckpointConfig(id_column="id", checkpoint_path=str(options.checkpoint.absolute()))
    rows = (
        ray.data.read_parquet(options.source)
        # Without this, small files become a single block, and a single actor works.
        .repartition(target_num_rows_per_block=options.block_rows)
        .map_batches(
            CatchingActor if options.catching else Actor,
            batch_size=options.batch_rows,
            compute=ray.data.ActorPoolStrategy(size=options.actors),
            max_restarts=-1,
            max_task_retries=options.task_retries,
        )
    )
    rows.write_parquet(options.target, compression="zstd", compression_level=1)


def _is_good(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.ray_faults")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--actors", type=int, required=True)
    parser.add_argument("--batch-rows", type=int, required=True)
    parser.add_argument("--block-rows", type=int, required=True, help="what an error drops, and what a killed actor has to do again")
    parser.add_argument("--task-retries", type=int, default=-1, help="how often a task is repeated whose actor died (for ever)")
    parser.add_argument("--errored-blocks", type=int, default=0, help="how many blocks may be dropped (none); -1: all")
    parser.add_argument("--checkpoint", type=Path, help="folder in which finished ids are kept")
    parser.add_argument("--catching", action="store_true", help="rows that raise are left out by the actor itself")
    return parser.parse_args()


if __name__ == "__main__":
    run(_options())
