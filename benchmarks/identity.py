"""What the two benchmarks of the identity job share: a folder with the job and its input, and the contestants."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as ds

from benchmarks import inputs
from benchmarks.contest import usual_environment

_JOB = Path(__file__).parent / "identity_job"


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of one contestant."""

    whole: float
    """Seconds of the whole command, interpreter and all."""
    inner: float
    """Seconds that it says its work took; those of the whole command when it does not say."""


@dataclass(frozen=True, slots=True)
class Arena:
    """A folder with the job file, and ``in`` with so many rows."""

    folder: Path
    rows: int

    def antinfer(self) -> Ran:
        """``antinfer run job.yaml``, as a user types it."""
        return self._run([str(Path(sys.executable).parent / "antinfer"), "run", "job.yaml", "--workers", "1"])

    def pyarrow(self) -> Ran:
        return self._run([sys.executable, "-m", "benchmarks.peers.bare_pyarrow", "in", "out"])

    def ray(self, form: str) -> Ran:
        """Ray Data with batches as ``numpy`` or ``pyarrow``."""
        return self._run([sys.executable, "-m", "benchmarks.peers.ray_data", str(self.folder / "in"), str(self.folder / "out"), form])

    def _run(self, command: list[str]) -> Ran:
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        # Ray would write a token into the home directory, and report its use.
        environment = usual_environment(PYTHONPATH=str(Path.cwd()), RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
        started = time.perf_counter()
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        whole = time.perf_counter() - started
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        # A contestant that is quick because it loses rows wins nothing.
        written = ds.dataset(out, format="parquet").count_rows()
        if written != self.rows:
            raise RuntimeError(f"{' '.join(command)} wrote {written} of {self.rows} rows")
        return Ran(whole, _said(done.stdout) or whole)


def _said(output: str) -> float | None:
    last = output.strip().rpartition("\n")[2]
    try:
        return float(last)
    except ValueError:
        return None


@contextmanager
def arena(rows: int, files: int) -> Iterator[Arena]:
    """Make the folder, and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="antinfer-bench-"))
    try:
        for file in _JOB.iterdir():
            if file.is_file():
                shutil.copy(file, folder)
        inputs.write_rows(folder / "in", rows, files)
        yield Arena(folder, rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
