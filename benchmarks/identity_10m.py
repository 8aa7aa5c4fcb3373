"""Ten million rows through a model that costs nothing, Parquet to Parquet, one worker.

Ours is the whole command. The peers are timed on the inside, without their start: `bare pyarrow` without the interpreter, Ray Data without
``ray.init``.
"""

from __future__ import annotations

from benchmarks.contest import by_turns, faster
from benchmarks.identity import arena
from benchmarks.report import Result


def measure(quick: bool) -> list[Result]:
    """Return how many times the speed of a bare loop, and of Ray Data with either form of batches, a job has."""
    rows, rounds = (200_000, 1) if quick else (10_000_000, 3)
    with arena(rows, files=8) as field:
        seconds = by_turns(
            {
                "antinfer": lambda: field.antinfer().whole,
                "bare pyarrow": lambda: field.pyarrow().inner,
                "Ray Data, pyarrow batches": lambda: field.ray("pyarrow").inner,
                "Ray Data, numpy batches": lambda: field.ray("numpy").inner,
            },
            rounds,
        )
    name = "identity_10m"
    rate = tuple(rows / each for each in seconds["antinfer"])
    return [
        Result(name, "rows through a job", rate, "rows/s", details={"rows": rows}),
        faster(name, "job against bare pyarrow", seconds, ("antinfer", "bare pyarrow"), 0.4),
        faster(name, "job against Ray Data, numpy batches (its default)", seconds, ("antinfer", "Ray Data, numpy batches"), 4),
        faster(name, "job against Ray Data, pyarrow batches", seconds, ("antinfer", "Ray Data, pyarrow batches"), None),
    ]
