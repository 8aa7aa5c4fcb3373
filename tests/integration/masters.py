"""Real master processes for tests."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from antinfer.spec.canonical import document_json, to_yaml
from antinfer.spec.load import build_job
from antinfer.spec.schema import JobSpec
from antinfer.spec.yamlfile import Lines

CODE = """
class Same:
    def __call__(self, batch):
        return batch
"""


def make_job(folder: Path, *, files: int = 4, rows: int = 500, **changes: object) -> JobSpec:
    """Write a small data set and its user code below `folder`; return the job that copies it."""
    data = folder / "in"
    data.mkdir(parents=True, exist_ok=True)
    for index in range(files):
        first = index * rows
        pq.write_table(pa.table({"n": range(first, first + rows)}), data / f"f{index:03d}.parquet", row_group_size=max(1, rows // 4))
    (folder / "steps.py").write_text(CODE)
    job = {
        "source": {"type": "parquet", "path": str(data)},
        "pipeline": [{"predict": "steps:Same"}],
        "sink": {"path": str(folder / "out")},
        "shard": {"rows": max(1, rows // 2)},
        **changes,
    }
    return build_job(job, Lines("job.yaml", {}), str(folder))


def read_back(spec: JobSpec) -> list[int]:
    """Return the column `n` of the whole output, by an independent reader."""
    if not list(Path(spec.sink.path).glob("*.parquet")):
        return []
    return sorted(ds.dataset(spec.sink.path, format="parquet").to_table().column("n").to_pylist())


class MasterProcess:
    """A master started from the shell."""

    def __init__(self, spec: JobSpec, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._document = folder / "document.json"
        self._document.write_text(document_json(spec))
        self._ready = folder / "ready"
        self._arguments = arguments
        self._log = folder / "master.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> str:
        """Start it; return its address once it listens (empty when it ended before)."""
        self._ready.unlink(missing_ok=True)
        files = ["--job", str(self._document), "--ready-file", str(self._ready)]
        command = [sys.executable, "-m", "antinfer.master", *files, "--check", "--verbose"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([*command, *self._arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while wait and not self._ready.exists():
            if self.process.poll() is not None:
                return ""
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)
        return self._ready.read_text().strip() if wait else ""

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def wait(self, timeout_s: float = 60) -> int:
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the master did not end:\n{self.log}") from None

    def use_job_file(self, spec: JobSpec) -> None:
        """Run the job from a job file instead of its document."""
        self._document = Path(spec.base_dir) / "job.yaml"
        self._document.write_text(to_yaml(spec))

    def assert_said(self, pattern: str) -> None:
        """The log holds `pattern`, and no traceback of ours."""
        assert re.search(pattern, self.log), self.log
        assert "Traceback" not in self.log, self.log

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""
