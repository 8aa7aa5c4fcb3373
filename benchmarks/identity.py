"""What the two benchmarks of the identity job share: a folder with the job and its input, and the contestants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import arena as arenas
from benchmarks import inputs
from benchmarks.arena import Ran

_JOB = Path(__file__).parent / "identity_job"


@dataclass(frozen=True, slots=True)
class Arena(arenas.Arena):
    """A folder with the job file, and ``in`` with so many rows."""

    def pyarrow(self) -> Ran:
        return self.peer("bare_pyarrow")

    def ray(self, form: str) -> Ran:
        """Ray Data with batches as ``numpy`` or ``pyarrow``."""
        return self.peer("ray_data", form)


@contextmanager
def arena(rows: int, files: int) -> Iterator[Arena]:
    """Make the folder, and remove it afterwards."""
    with arenas.arena(_JOB, rows, lambda folder: inputs.write_rows(folder, rows, files)) as made:
        yield Arena(made.folder, made.rows)
