"""A million rows, whole commands from the shell: everything from the interpreter's start to the last process gone."""

from __future__ import annotations

from benchmarks.contest import by_turns, faster
from benchmarks.identity import arena
from benchmarks.report import Result


def measure(quick: bool) -> list[Result]:
    """Return how many times the speed of a whole Ray script a whole command has."""
    rows, rounds = (50_000, 1) if quick else (1_000_000, 3)
    with arena(rows, files=4) as field:
        seconds = by_turns(
            {
                "antinfer": lambda: field.antinfer().whole,
                "Ray script, pyarrow batches": lambda: field.ray("pyarrow").whole,
                "Ray script, numpy batches": lambda: field.ray("numpy").whole,
            },
            rounds,
        )
    name = "identity_1m_command"
    return [
        Result(name, "antinfer run", tuple(seconds["antinfer"]), "s", details={"rows": rows}),
        faster(name, "command against Ray script, numpy batches (its default)", seconds, ("antinfer", "Ray script, numpy batches"), 4),
        faster(name, "command against Ray script, pyarrow batches", seconds, ("antinfer", "Ray script, pyarrow batches"), None),
    ]
