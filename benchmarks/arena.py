"""Where whole jobs compete: a folder with the job and its input; each contestant is a command of its own, and its output is counted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.dataset as ds

from benchmarks.contest import by_turns, faster, usual_environment
from benchmarks.report import Result

_ROOT = Path(__file__).resolve().parents[1]
_LOADED = "loaded*"
"""Files that the models of a job write the time into at which they are ready to work."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of one contestant."""

    whole: float
    """Seconds of the whole command, interpreter and all."""
    inner: float
    """Seconds without its start: what it says its work took; else those since its models were loaded; else those of the whole command."""


@dataclass(frozen=True, slots=True)
class Arena:
    """A folder with the job file, and ``in`` with so many rows."""

    folder: Path
    rows: int

    def antinfer(self, job: str = "job.yaml") -> Ran:
        """``antinfer run``, as a user types it."""
        return self.run([str(Path(sys.executable).parent / "antinfer"), "run", job, "--workers", "1"])

    def peer(self, name: str, *arguments: str) -> Ran:
        """One of `benchmarks.peers`, which reads ``in`` and writes ``out``."""
        return self.run([sys.executable, "-m", f"benchmarks.peers.{name}", str(self.folder / "in"), str(self.folder / "out"), *arguments])

    def run(self, command: list[str]) -> Ran:
        """Run a command. Raises RuntimeError when it fails or writes another number of rows."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        for note in self.folder.glob(_LOADED):
            note.unlink()
        # Ray would write a token into the home directory, and report its use.
        quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
        environment = usual_environment(PYTHONPATH=f"{_ROOT}:{self.folder}", **quiet)
        started = time.time()
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        ended = time.time()
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        # A contestant that is quick because it loses rows wins nothing.
        written = ds.dataset(out, format="parquet").count_rows()
        if written != self.rows:
            raise RuntimeError(f"{' '.join(command)} wrote {written} of {self.rows} rows")
        loaded = max((float(note.read_text()) for note in self.folder.glob(_LOADED)), default=started)
        return Ran(ended - started, _said(done.stdout) or ended - loaded)


def _said(output: str) -> float | None:
    last = output.strip().rpartition("\n")[2]
    try:
        return float(last)
    except ValueError:
        return None


@contextmanager
def arena(job: Path, rows: int, write: Callable[[Path], None]) -> Iterator[Arena]:
    """Make a folder with the files of `job` and the input that `write` writes, and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="antinfer-bench-"))
    try:
        for file in job.iterdir():
            if file.is_file():
                shutil.copy(file, folder)
        write(folder / "in")
        yield Arena(folder, rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def race(contestants: Mapping[str, Callable[[], Ran]], rounds: int) -> dict[str, list[Ran]]:
    """Let the contestants run by turns, as `by_turns`; return the runs of each."""
    ran: dict[str, list[Ran]] = {name: [] for name in contestants}

    def once(name: str) -> float:
        ran[name].append(contestants[name]())
        return ran[name][-1].whole

    by_turns({name: partial(once, name) for name in contestants}, rounds)
    return ran


def compare(benchmark: str, ran: Mapping[str, Sequence[Ran]], rows: int, ours: Sequence[str]) -> list[Result]:
    """Return all rates without start-up, and how each of `ours` compares with every other contestant, start-up counted and not."""
    whole, inner = ({name: [getattr(run, kind) for run in runs] for name, runs in ran.items()} for kind in ("whole", "inner"))
    results = [
        Result(benchmark, f"{name}, start-up not counted", tuple(rows / each for each in seconds), "rows/s", details={"rows": rows})
        for name, seconds in inner.items()
    ]
    for own in ours:
        for peer in (name for name in ran if name not in ours):
            results.append(faster(benchmark, f"{own} against {peer}, start-up counted", whole, (own, peer), None))
            results.append(faster(benchmark, f"{own} against {peer}, start-up not counted", inner, (own, peer), None))
    return results
