"""A model for pictures and a model for the faces in them, on the CPU, against the same two in sequence in one process.

The batch sizes are 16 pictures and 32 faces. In sequence, the faces of 16 pictures make batches of their own, the last one of which is not
full; in a pipeline they wait for those of other pictures. The usual way, one picture at a time, is there too: its faces are a batch. On a
GPU, which one process leaves idle while it decodes and cuts, and on which small batches cost as much as large ones, all of this weighs more
than on two cores that are busy either way.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import inputs
from benchmarks.arena import arena, compare, race
from benchmarks.report import Result

_NAME = "two_models"
_JOB = Path(__file__).parent / "two_models_job"


def measure(quick: bool) -> list[Result]:
    """Return how many times the speed of each peer a job has, start-up counted and not."""
    rows, rounds = (24, 1) if quick else (720, 3)
    with arena(_JOB, rows, lambda folder: inputs.write_photographs(folder, rows)) as field:
        ran = race(
            {
                "antinfer": field.antinfer,
                "in sequence": lambda: field.peer("two_in_sequence", "16", "32"),
                "in sequence, one picture at a time": lambda: field.peer("two_in_sequence", "1", "32"),
            },
            rounds,
        )
    return compare(_NAME, ran, rows, ("antinfer",))
