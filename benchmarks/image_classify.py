"""EfficientNet-Lite0 over JPEGs on the CPU, Parquet to Parquet, against Ray Data and a plain loop with the same decoder and model.

All of them have batches of 16 pictures and as many threads for the model as there are cores. Decoder and model want the same cores, so that
running them at once can win what the plain loop leaves idle while it decodes on one core, and no more.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import inputs
from benchmarks.arena import arena, compare, race
from benchmarks.report import Result

_NAME = "image_classify"
_JOB = Path(__file__).parent / "image_classify_job"
_STEPS = ("steps:decode", "steps:Classifier", "16")


def measure(quick: bool) -> list[Result]:
    """Return how many times the speed of each peer a job has, start-up counted and not."""
    rows, rounds = (48, 1) if quick else (1_440, 3)
    with arena(_JOB, rows, lambda folder: inputs.write_photographs(folder, rows)) as field:
        ran = race(
            {
                "antinfer": field.antinfer,
                "plain loop": lambda: field.peer("model_loop", *_STEPS),
                "Ray Data": lambda: field.peer("ray_model", *_STEPS),
            },
            rounds,
        )
    return compare(_NAME, ran, rows, ("antinfer",))
