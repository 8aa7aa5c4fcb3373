"""Where contestants run: each a command of its own, watched from outside, its output counted, its failure written down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc
import pyarrow.dataset as ds

from benchmarks.contest import usual_environment
from benchmarks.gpu import datasets, ticks
from benchmarks.gpu.datasets import Recipe
from benchmarks.gpu.sampler import Sampler
from benchmarks.report import Result

ROOT: Final = Path(__file__).resolve().parents[2]
JOBS: Final = Path(__file__).parent / "jobs"
_LAST_WORDS: Final = 3_000
_GRACE: Final = 10.0
_LEAST: Final = 8.0
"""Seconds of the budget below which no contestant is started."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the suites of one command share."""

    device: str
    """``cuda`` or ``cpu``."""
    quick: bool
    """Tiny models and few rows: shows that everything runs; the numbers mean nothing."""
    scale: float
    """Factor on the number of rows of every suite."""
    rounds: int
    cores: int
    decoders: int | None = None
    """Threads that decode in our jobs; None: as many as antinfer finds right."""

    def rows(self, full: int, quick: int) -> int:
        """Return how many rows to take where a whole run takes `full`; a multiple of the row groups."""
        return max(1, round((quick if self.quick else full * self.scale) / datasets.ROW_GROUP)) * datasets.ROW_GROUP

    def network(self, name: str) -> str:
        return "tiny" if self.quick else name

    @property
    def compiled(self) -> bool:
        """Whether what wants a compiled model gets one; on a CPU the compiler alone would take longer than everything else."""
        return self.device != "cpu"


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a contestant came to."""

    contestant: str
    settings: dict[str, Any]
    seconds: float
    """Of the whole command, interpreter and all."""
    rows: int
    """In its output; 0 for one that writes none."""
    error: str = ""
    said: dict[str, Any] = field(default_factory=dict)
    """The JSON object that it printed."""
    rates: ticks.Rates | None = None
    first_seconds: float | None = None
    """From the start of the command to its first results."""
    series: list[int] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    """Devices and cores over the steady part."""
    whole_usage: dict[str, Any] = field(default_factory=dict)

    @property
    def whole_rate(self) -> float:
        return self.rows / self.seconds

    @property
    def steady(self) -> float | None:
        return self.rates.steady if self.rates else None

    @property
    def after_first(self) -> float | None:
        return self.rates.after_first if self.rates else None

    def to_json(self) -> dict[str, Any]:
        rates = {"whole_rate": self.whole_rate} if self.rows else {}
        if self.rates:
            rates |= {"after_first_rate": self.rates.after_first, "steady_rate": self.rates.steady, "tuned_rate": self.rates.tuned}  # type: ignore[dict-item]
        return {
            "contestant": self.contestant,
            "settings": self.settings,
            "ok": not self.error,
            "error": self.error,
            "seconds": round(self.seconds, 3),
            "rows": self.rows,
            "first_seconds": self.first_seconds,
            **rates,
            "rows_each_half_second": self.series,
            "steady_usage": self.usage,
            "whole_usage": self.whole_usage,
            "said": self.said,
        }


class Arena:
    """The folder with inputs and outputs, the budget of time, and all that was measured."""

    def __init__(self, data: Path, settings: Settings) -> None:
        self.settings = settings
        self.runs: list[Run] = []
        self.results: list[Result] = []
        self.inputs: dict[str, dict[str, Any]] = {}
        self._data = data
        self._deadline = float("inf")
        data.mkdir(parents=True, exist_ok=True)

    def allow(self, seconds: float) -> None:
        """Set the budget of what follows."""
        self._deadline = time.monotonic() + seconds

    def left(self) -> float:
        return self._deadline - time.monotonic()

    def input(self, recipe: Recipe) -> Path:
        """Return the folder of a data set, made now unless it is there."""
        place, known = datasets.prepare(recipe, self._data)
        if recipe.name not in self.inputs:
            print(f"  {recipe.name}: {known['bytes'] / 1e9:.2f} GB, made in {known['seconds']:.1f} s", flush=True)
        self.inputs[recipe.name] = known
        return place

    def run(
        self,
        contestant: str,
        command: Sequence[str],
        *,
        rows: int = 0,
        limit: float = 300.0,
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Run | None:
        """Run a command, in which ``{out}`` is the folder of its output and ``{ticks}`` that of its ticks.

        Its last line, or all it prints, is a JSON object. With `rows`, that many rows with different ids must be in its output.

        Returns:
            The run; None when it failed or the budget did not allow it, which is written down too.
        """
        name = contestant if self.settings.rounds == 1 else f"{contestant} #{1 + sum(run.contestant == contestant for run in self.runs)}"
        if self.left() < _LEAST:
            self._note(Run(contestant, dict(settings or {}), 0.0, 0, "not run: the budget of time is spent"), name)
            return None
        work = Path(tempfile.mkdtemp(prefix="run-", dir=self._data))
        try:
            (work / "ticks").mkdir()
            given = [part.replace("{out}", str(work / "out")).replace("{ticks}", str(work / "ticks")) for part in command]
            run = self._watched(contestant, given, work, rows, min(limit, self.left()), dict(settings or {}), dict(environment or {}))
        finally:
            shutil.rmtree(work, ignore_errors=True)
        self._note(run, name)
        return None if run.error else run

    def ceiling(self, what: str, **arguments: Any) -> dict[str, Any] | None:
        """Return what one ceiling of this machine came to; measured now unless it was measured before, by this command or another."""
        known = self._data / "ceilings.json"
        all_known: dict[str, dict[str, Any]] = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
        key = json.dumps([what, self.settings.device, self.settings.quick, arguments], sort_keys=True)
        if key not in all_known:
            command = [sys.executable, "-m", "benchmarks.gpu.contestants.ceilings", what, "--device", self.settings.device]
            command += [part for name, value in arguments.items() for part in (f"--{name.replace('_', '-')}", str(value))]
            run = self.run(f"ceiling: {what}", command, settings=arguments, limit=150.0)
            if run is None:
                return None
            all_known[key] = run.said
            known.write_text(json.dumps(all_known), encoding="utf-8")
        return all_known[key]

    def add(self, benchmark: str, what: str, value: float | None, unit: str, target: float | None = None, **details: Any) -> None:
        """Add a number to the table; None is one that could not be measured."""
        if value is not None:
            self.results.append(Result(benchmark, what, (value,), unit, target, details=details))

    def _note(self, run: Run, name: str) -> None:
        self.runs.append(run)
        if run.error:
            print(f"  {name}: FAILED: {run.error}", flush=True)
            return
        figures = [f"{run.seconds:.1f} s"]
        if run.rows:
            figures.append(f"whole {run.whole_rate:,.0f}/s")
        if run.rates:
            figures += [f"{what} {rate:,.0f}/s" for what, rate in (("after first", run.after_first), ("steady", run.steady)) if rate]
            figures.append(f"first at {run.first_seconds:.1f} s")
        if run.usage:
            figures.append(f"GPUs {run.usage['gpu_busy']} cores {run.usage['cores_busy']}")
        figures += [f"{key} {value:,.0f}" for key, value in run.said.items() if key.endswith("rate") and isinstance(value, (int, float))]
        print(f"  {name}: {', '.join(figures)}", flush=True)

    def _watched(
        self, contestant: str, command: list[str], work: Path, rows: int, limit: float, settings: dict[str, Any], more: dict[str, str]
    ) -> Run:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        quiet = {"PYTHONPATH": path, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        started = time.monotonic()
        with Sampler() as sampler:
            code, output, errors = _finish(command, work, usual_environment(**quiet | more), limit)
            seconds = time.monotonic() - started
        found = ticks.read(work / "ticks")
        rates = ticks.rates(found)
        said = _said(output)
        error, written = "", 0
        if code is None:
            error = f"took longer than {limit:.0f} s\n{_last(output, errors)}"
        elif code != 0:
            error = f"ended with {code}\n{_last(output, errors)}"
        elif said is None:
            error = f"printed no JSON\n{_last(output, errors)}"
        elif rows:
            written, error = _count(work / "out", rows)
        return Run(
            contestant,
            settings,
            seconds,
            written,
            error,
            said or {},
            rates,
            rates.first - started if rates else None,
            ticks.series(found),
            sampler.summary(rates.window if rates else None),
            sampler.summary(None),
        )


def _finish(command: list[str], work: Path, environment: dict[str, str], limit: float) -> tuple[int | None, str, str]:
    """Run to the end; return the exit code, None after `limit` seconds, and what was printed."""
    with open(work / "stdout", "w+", encoding="utf-8") as output, open(work / "stderr", "w+", encoding="utf-8") as errors:
        process = subprocess.Popen(command, cwd=work, env=environment, stdout=output, stderr=errors, start_new_session=True)
        code: int | None
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    said, complained = ((work / name).read_text(encoding="utf-8", errors="replace") for name in ("stdout", "stderr"))
    return code, said, complained


def _end(process: subprocess.Popen[bytes]) -> None:
    for which in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, which)
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                continue


def _said(output: str) -> dict[str, Any] | None:
    for text in (output.strip().rpartition("\n")[2], output):
        try:
            said = json.loads(text)
        except ValueError:
            continue
        if isinstance(said, dict):
            return said
    return None


def _last(output: str, errors: str) -> str:
    return "\n".join(filter(None, (output[-_LAST_WORDS // 3 :].strip(), errors[-_LAST_WORDS:].strip())))


def _count(out: Path, rows: int) -> tuple[int, str]:
    # A contestant that is quick because it loses rows wins nothing.
    ids = ds.dataset(out, format="parquet").to_table(columns=["id"])["id"]
    times = pc.value_counts(ids).field("counts")
    # A file with several names gives its rows as often.
    extremes = pc.min_max(times).as_py()
    if len(ids) != rows or extremes["min"] != extremes["max"]:
        return len(ids), f"wrote {len(ids)} of {rows} rows, {len(times)} different ids, each {extremes['min']} to {extremes['max']} times"
    return len(ids), ""
