"""MiniLM embeddings of paragraphs on the CPU, Parquet to Parquet, against Ray Data and a plain loop with the same model.

All of them have batches of 32 texts and as many threads for the model as there are cores. A batch is as long as its longest text: whoever
puts texts of like length together computes less. The plain loop is there twice: in the order of the input, and sorted in memory.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import inputs
from benchmarks.arena import arena, compare, race
from benchmarks.report import Result

_NAME = "text_embed"
_JOB = Path(__file__).parent / "text_embed_job"
_STEPS = ("steps:tokenize", "steps:Embedder", "32")


def measure(quick: bool) -> list[Result]:
    """Return how many times the speed of each peer a job has, start-up counted and not."""
    rows, rounds = (64, 1) if quick else (1_900, 3)
    with arena(_JOB, rows, lambda folder: inputs.write_texts(folder, rows)) as field:
        ran = race(
            {
                "antinfer, bucket_by": field.antinfer,
                "antinfer": lambda: field.antinfer("unsorted.yaml"),
                "plain loop": lambda: field.peer("model_loop", *_STEPS),
                "plain loop, sorted in memory": lambda: field.peer("model_loop", *_STEPS, "tokens"),
                "Ray Data": lambda: field.peer("ray_model", *_STEPS),
            },
            rounds,
        )
    return compare(_NAME, ran, rows, ("antinfer, bucket_by", "antinfer"))
