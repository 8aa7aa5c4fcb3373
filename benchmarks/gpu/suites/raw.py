"""Nothing to decode: pixels to labels, as fast as the model goes; several predictors on a GPU, and several GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.gpu import ours, ticks
from benchmarks.gpu.arena import Arena, Run
from benchmarks.gpu.datasets import Recipe
from benchmarks.gpu.suites import ceilings
from benchmarks.gpu.suites.images import ratio, steady

_SMALL_BATCH = 8


def run(arena: Arena) -> None:
    """Run the compiled and the eager model over Parquet, and the compiled one over Arrow."""
    source, rows = _pixels(arena, 8)
    compiled = _ours(arena, "raw: antinfer, compiled", source, rows, compiled=True)
    eager = _ours(arena, "raw: antinfer, eager", source, rows, compiled=False)
    mapped, mapped_rows = _pixels(arena, 8, "arrow")
    arrow = _ours(arena, "raw: antinfer, compiled, Arrow files", mapped, mapped_rows, compiled=True, job="raw/arrow.yaml", model=0)
    for name, done, compiles, target in (
        ("Parquet, compiled", compiled, True, 0.95),
        ("Parquet, eager", eager, False, None),
        ("Arrow, compiled", arrow, True, None),
    ):
        arena.add("raw", f"{name}, steady", steady(done), "img/s")
        alone = ceilings.rate(ceilings.model(arena, compiled=compiles))
        arena.add("raw", f"{name}, against the model alone", ratio(steady(done), alone), "x", target, alone=alone)
        if done is not None and done.usage.get("gpu_busy"):
            arena.add("raw", f"{name}, share of time in which the GPU is busy", done.usage["gpu_busy"][0], "", 0.95 if target else None)


def small_model(arena: Arena) -> None:
    """Run a small model on small batches with one to four predictors on a GPU, and as many as the tuner likes."""
    rates: dict[str, float] = {}
    counts: tuple[Any, ...] = (1, 2, 3, 4, "[1, 4]")
    for count in counts:
        name = f"{count} predictors" if isinstance(count, int) else "as many as the tuner likes"
        # The tuner needs a while to find its number; it is the rate behind that which counts.
        source, rows = _pixels(arena, 3 if isinstance(count, int) else 9)
        sets = {"pipeline.1.concurrency": count, "pipeline.1.batch_size": _SMALL_BATCH, "pipeline.1.num_gpus": 0.25}
        done = _ours(arena, f"small_model: {name}", source, rows, compiled=False, network="resnet18", sets=sets)
        if done is not None and done.rates and done.rates.tuned:
            rates[name] = done.rates.tuned
            arena.add(
                "small_model", f"{name}, from {ticks.TUNED[0]:.0%} of the rows on", rates[name], "img/s", stages=done.said.get("stages")
            )
    alone = ceilings.rate(ceilings.model(arena, compiled=False, network="resnet18", batch=_SMALL_BATCH))
    arena.add("small_model", "the model alone in one process", alone, "img/s")
    arena.add("small_model", "two predictors against one", ratio(rates.get("2 predictors"), rates.get("1 predictors")), "x", 1.1)
    best = max((rate for name, rate in rates.items() if name.endswith("predictors")), default=None)
    arena.add("small_model", "the tuner against the best fixed number", ratio(rates.get("as many as the tuner likes"), best), "x", 0.9)


def two_gpus(arena: Arena) -> None:
    """Run the same job on one GPU and on two."""
    source, rows = _pixels(arena, 12)
    for compiled in (True, False):
        what = "compiled" if compiled else "eager"
        one, two = (
            _ours(
                arena,
                f"two_gpus: {count}, {what}",
                source,
                rows,
                compiled=compiled,
                environment={"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(count)))},
                sets={"pipeline.1.concurrency": count},
            )
            for count in (1, 2)
        )
        arena.add("two_gpus", f"one GPU, {what}, steady", steady(one), "img/s")
        arena.add("two_gpus", f"two GPUs, {what}, steady", steady(two), "img/s")
        arena.add("two_gpus", f"two GPUs against one, {what}", ratio(steady(two), steady(one)), "x", 1.9 if compiled else None)


def _pixels(arena: Arena, links: int, form: str = "parquet") -> tuple[Path, int]:
    """Return the folder of a set of pixels, and its rows, each file read `links` times."""
    quick = arena.settings.quick
    recipe = Recipe("pixels", arena.settings.rows(32_768, 512), 4 if quick else 64, 2 if quick else links, form=form)
    return arena.input(recipe), recipe.total_rows


def _ours(
    arena: Arena,
    name: str,
    source: Path,
    rows: int,
    *,
    compiled: bool,
    job: str = "raw/job.yaml",
    model: int = 1,
    network: str = "resnet50",
    environment: dict[str, str] | None = None,
    sets: dict[str, Any] | None = None,
) -> Run | None:
    usual: dict[str, Any] = {
        f"pipeline.{model}.args.network": arena.settings.network(network),
        f"pipeline.{model}.args.compiled": str(compiled and arena.settings.compiled).lower(),
    }
    return ours.run(arena, name, job, source, rows, usual | (sets or {}), models=(model,), ticking=model, environment=environment)
