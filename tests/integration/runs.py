"""Small jobs run by the command, and their parts read back by readers that know nothing of us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from antinfer.spec.yamlfile import write_yaml
from tests.integration.jobs import assert_proven, command_line, make_spec


def read_parts(output: Path, sink: str) -> list[Any]:
    """Return the parts in the order of their names, by readers that know nothing of us: tables, or lists of rows for JSON Lines."""
    found: list[Any] = []
    for path in sorted(output.glob("part-*")):
        assert path.suffix == f".{sink}"
        if sink == "parquet":
            found.append(pq.read_table(path))
        elif sink == "arrow":
            found.append(pa.ipc.open_file(path).read_all())
        else:
            found.append([json.loads(line) for line in path.read_text().splitlines()])
    return found


def run_job(folder: Path, job: dict[str, Any], *arguments: str, steps: str) -> dict[str, Any]:
    """Run a job file in `folder` with the command; return its report once the audit has passed."""
    (folder / "steps.py").write_text(steps)
    (folder / "job.yaml").write_text(write_yaml(job))
    done = command_line("run", str(folder / "job.yaml"), "--json", *arguments)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert_proven(make_spec(job, folder))
    return report
