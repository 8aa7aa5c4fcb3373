"""A complete job in Python: the spec, ready to be written down or run."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from antinfer.errors import UserCodeError
from antinfer.spec.canonical import canonical_json, to_yaml
from antinfer.spec.schema import JobSpec
from antinfer.spec.usercode import loading_user_code

# Named as text: the launcher lies above this layer, and a job that is only written down should not pay for importing it.
_LAUNCHER = "antinfer.launchers.local"


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

    def run(self, workers: int | None = None, **options: Any) -> Any:
        """Run the job on this machine until every row is done, and return its report.

        A half-done output of the same job is resumed. `options` go to `antinfer.launchers.local.run_job`.

        Raises:
            UserCodeError: This was reached while a worker imported the script (protect it by ``if __name__ == "__main__":``), or user code
                failed.
            AntinferError: The job failed; the class says whose fault it was.
        """
        if loading_user_code():
            raise UserCodeError(
                "the job would start itself: run() was reached while a worker imported this script",
                hint='Put the call under: if __name__ == "__main__":',
            )
        return importlib.import_module(_LAUNCHER).run_job(self.spec, workers=workers, **options)

    def plan(self) -> Any:
        """Look at the input and return what the job would do: files, rows, shards, schema, parts to expect. Writes nothing."""
        return importlib.import_module(_LAUNCHER).plan_job(self.spec)
