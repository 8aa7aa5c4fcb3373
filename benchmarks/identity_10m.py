"""Ten million rows through a model that costs nothing, Parquet to Parquet, one worker.

Ours is the whole command. The peers are timed on the inside, without their start: `bare pyarrow` without the interpreter, Ray Data without
``ray.init``. Against Ray Data whole commands are compared as well.
"""

from __future__ import annotations

from benchmarks.arena import race
from benchmarks.contest import faster
from benchmarks.identity import arena
from benchmarks.report import Result

_OURS = "antinfer"
_BARE = "bare pyarrow"
_NUMPY = "Ray Data, numpy batches"
_ARROW = "Ray Data, pyarrow batches"


def measure(quick: bool) -> list[Result]:
    """Return how many times the speed of a bare loop, and of Ray Data with either form of batches, a job has."""
    rows, rounds = (200_000, 1) if quick else (10_000_000, 3)
    with arena(rows, files=8) as field:
        contestants = {
            _OURS: field.antinfer,
            _BARE: field.pyarrow,
            _ARROW: lambda: field.ray("pyarrow"),
            _NUMPY: lambda: field.ray("numpy"),
        }
        ran = race(contestants, rounds)
    whole = {name: [run.whole for run in runs] for name, runs in ran.items()}
    work = {**{name: [run.inner for run in runs] for name, runs in ran.items()}, _OURS: whole[_OURS]}
    name = "identity_10m"
    return [
        Result(name, "rows through a job", tuple(rows / each for each in whole[_OURS]), "rows/s", details={"rows": rows}),
        faster(name, "job against bare pyarrow", work, (_OURS, _BARE), 0.4),
        faster(name, "job against Ray Data, numpy batches (its default)", work, (_OURS, _NUMPY), 4),
        faster(name, "job against Ray Data, pyarrow batches", work, (_OURS, _ARROW), None),
        faster(name, "job against Ray Data, numpy batches, whole commands", whole, (_OURS, _NUMPY), None),
        faster(name, "job against Ray Data, pyarrow batches, whole commands", whole, (_OURS, _ARROW), None),
    ]
