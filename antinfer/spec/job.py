"""A complete job in Python: the spec, ready to be written down or run."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from antinfer.errors import UserCodeError
from antinfer.spec.canonical import canonical_json, to_yaml
from antinfer.spec.schema import JobSpec
from antinfer.spec.usercode import loading_user_code

# Named as text: these lie above this layer, and a job that is only written down should not pay for importing them.
_LAUNCHER = "antinfer.launchers.local.job"
_FORECAST = "antinfer.storage.forecast"


@dataclass(frozen=True)
class Job:
    """One data set through one pipeline into one output place."""

    spec: JobSpec

    def to_yaml(self) -> str:
        """Return the same job as a job file."""
        return to_yaml(self.spec)

    def to_json(self) -> str:
        """Return the canonical JSON: equal for equal jobs, without the store."""
        return canonical_json(self.spec)

    def run(self, workers: int | None = None, *, store_url: str = "", force: bool = False, progress: bool = True) -> dict[str, Any]:
        """Run the job on this machine until every row is done. A half-done output of the same job is resumed.

        Args:
            workers: Number of worker processes; None: as in the job, at least one.
            store_url: Redis or Valkey to use; empty: as in the job, else one of our own.
            force: Go on although the job or the code changed since the output was begun.
            progress: Write what happens to standard error.

        Returns:
            The report: totals, accumulators, timings.

        Raises:
            UserCodeError: This was reached while a worker imported the script (protect it by ``if __name__ == "__main__":``), or user code
                failed.
            Interrupted: Ctrl-C; the same call resumes.
            AntinferError: The job failed; the class says whose fault it was.
        """
        if loading_user_code():
            raise UserCodeError(
                "the job would start itself: run() was reached while a worker imported this script",
                hint='Put the call under: if __name__ == "__main__":',
            )
        launcher: Any = importlib.import_module(_LAUNCHER)
        report: dict[str, Any] = launcher.run_job(self.spec, workers, store_url=store_url, force=force, progress=progress)
        return report

    def plan(self) -> dict[str, Any]:
        """Look at the input and say what the job would do: files, bytes, rows, shards, parts to expect, columns. Writes nothing.

        Raises:
            SourceError: Nothing matches, or a file cannot be read.
            SchemaMismatchError: Files have different columns.
        """
        forecast: Any = importlib.import_module(_FORECAST)
        figures: dict[str, Any] = forecast.forecast(self.spec).to_json()
        return figures
