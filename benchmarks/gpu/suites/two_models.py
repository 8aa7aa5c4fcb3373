"""Two models with a fan-out between them, against the same two in one process, one after the other."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.gpu import ours
from benchmarks.gpu.arena import Arena, Run
from benchmarks.gpu.datasets import Recipe
from benchmarks.gpu.suites import ceilings
from benchmarks.gpu.suites.images import after_first, ratio, steady, whole

_NAME = "two_models"


def run(arena: Arena) -> None:
    """Run the job both ways, over many rows, and the loop over few: its rate does not depend on how many there are."""
    settings = arena.settings
    source, rows = ceilings.jpegs(arena), settings.rows(200_000, 1_024)
    few_rows = settings.rows(8_192, 512)
    few = arena.input(Recipe("jpeg", few_rows, 4))
    alone = in_sequence(arena, few, few_rows, 1)
    detector, embedder = settings.network("small"), settings.network("resnet18")
    sets: dict[str, object] = {"pipeline.1.args.detector": detector, "pipeline.3.args.embedder": embedder}
    if settings.decoders:
        sets["pipeline.0.concurrency"] = settings.decoders
    done = [
        ours.run(arena, f"two_models: antinfer, {what}", f"two_models/{job}.yaml", source, rows, sets, models=(1, 3))
        for what, job in (("pixels through the detector", "job"), ("pixels beside the detector", "beside"))
    ]
    pooled = in_sequence(arena, few, few_rows, settings.cores)
    best = max(filter(None, done), key=lambda run: run.steady or 0.0, default=None)
    arena.add(_NAME, "antinfer, steady", steady(best), "img/s", contestant=best.contestant if best else None)
    arena.add(_NAME, "in sequence, after the first batch", after_first(alone), "img/s")
    arena.add(_NAME, "antinfer against in sequence, starts not counted", ratio(steady(best), after_first(alone)), "x", 6.0)
    arena.add(_NAME, "antinfer against in sequence, starts counted", ratio(whole(best), whole(alone)), "x")
    name = f"antinfer against in sequence with {settings.cores} threads for decoding, starts not counted"
    arena.add(_NAME, name, ratio(steady(best), after_first(pooled)), "x")


def in_sequence(arena: Arena, source: Path, rows: int, threads: int) -> Run | None:
    """Run the loop with so many threads for decoding."""
    settings = arena.settings
    given = {
        "threads": threads,
        "device": settings.device,
        "detector": settings.network("small"),
        "embedder": settings.network("resnet18"),
    }
    command = [sys.executable, "-m", "benchmarks.gpu.contestants.in_sequence", str(source), "{out}", "--ticks", "{ticks}"]
    command += [part for key, value in given.items() for part in (f"--{key}", str(value))]
    return arena.run(f"two_models: in sequence, {threads} threads", command, rows=rows, settings=given)
