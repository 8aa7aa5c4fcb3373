"""How soon a job gets going: `import antinfer`, the first row read, and a whole job of ten thousand rows.

The first row is seen from inside: the job's first step, a function behind the reader, writes down the time at which it is first called.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import inputs
from benchmarks.contest import by_turns, run_timed, usual_environment
from benchmarks.report import Result

_JOB = Path(__file__).parent / "small_job"
_IMPORT = "import time; started = time.perf_counter(); import antinfer; print(time.perf_counter() - started)"
_ROWS = 10_000
_NAME = "startup"


def measure(quick: bool) -> list[Result]:
    """Return the seconds of the three, and of a bare interpreter for scale."""
    rounds = 1 if quick else 5
    first_row: list[float] = []
    with tempfile.TemporaryDirectory(prefix="antinfer-bench-") as name:
        folder = Path(name)
        for file in ("job.yaml", "steps.py"):
            shutil.copy(_JOB / file, folder)
        inputs.write_rows(folder / "in", _ROWS, files=2)
        _run_job(folder)  # what is on disk and compiled once is no start-up
        seconds = by_turns(
            {
                "import": _import,
                "job": lambda: _job(folder, first_row),
                "interpreter": lambda: run_timed([sys.executable, "-c", "import pyarrow, grpc"], folder),
            },
            rounds,
        )
    scale = {"seconds of an interpreter that imports pyarrow and grpc": seconds["interpreter"]}
    return [
        Result(_NAME, "import antinfer", tuple(seconds["import"]), "s", 0.25, at_least=False),
        Result(_NAME, "antinfer run to the first row read", tuple(first_row), "s", 1.5, at_least=False, details=scale),
        Result(_NAME, f"antinfer run, {_ROWS:,} rows", tuple(seconds["job"]), "s", 2, at_least=False, details=scale),
    ]


def _import() -> float:
    command = [sys.executable, "-c", _IMPORT]
    return float(subprocess.run(command, env=usual_environment(), capture_output=True, text=True, check=True).stdout)


def _run_job(folder: Path) -> float:
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "first_row").unlink(missing_ok=True)
    return run_timed([str(Path(sys.executable).parent / "antinfer"), "run", "job.yaml", "--workers", "1"], folder)


def _job(folder: Path, first_row: list[float]) -> float:
    started = time.time()
    seconds = _run_job(folder)
    first_row.append(float((folder / "first_row").read_text()) - started)
    return seconds
