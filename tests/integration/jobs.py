"""Whole jobs for tests: a data set, user code, the processes that run it, and the proof that its output is right.

The reader at the end is plain pyarrow, and the values are computed here a second time, so nothing of ours vouches for itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from antinfer.core.records import parse_output_name
from antinfer.errors import MasterError
from antinfer.rpc.client import AdminClient
from antinfer.rpc.values import Status
from antinfer.spec.canonical import document_json
from antinfer.spec.load import build_job
from antinfer.spec.schema import JobSpec
from antinfer.spec.yamlfile import Lines
from antinfer.storage.audit import audit
from antinfer.storage.jobs import open_output

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
_MARK = "JOB_UNDER_TEST"
"""Variable that every process of a job inherits, so that none can hide by losing its parent."""

STEPS = '''
import time

import numpy as np


def key(batch):
    """Raises for a few rows, which belong into quarantine."""
    if (batch["id"] % 499 == 7).any():
        raise ValueError(f"cannot read row {batch['id'][batch['id'] % 499 == 7][0]}")
    return {"key": batch["id"]}


class Scorer:
    """A model that takes a while, and gives values that depend on the row alone."""

    def __init__(self, pause_s):
        self.pause_s = pause_s

    def __call__(self, batch):
        time.sleep(self.pause_s * len(batch["key"]))
        mixed = batch["key"].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return {"score": (mixed >> np.uint64(11)) / 2.0**53, "late": (mixed % np.uint64(3) == 0).astype(np.int64)}
'''

ACCUMULATORS: dict[str, Any] = {
    "quality": {"type": "auroc", "label": "late", "score": "score"},
    "loss": {"type": "cross_entropy", "label": "late", "score": "score"},
    "average": {"type": "mean", "value": "score"},
    "scores": {"type": "histogram", "value": "score", "bins": [0.0, 0.1, 0.5, 1.0]},
    "rows": {"type": "count"},
}


def make_spec(job: dict[str, Any], folder: Path) -> JobSpec:
    """Check a job as a job file in `folder` would be."""
    return build_job(job, Lines("job.yaml", {}), str(folder))


@dataclass(frozen=True)
class Scoring:
    """A job of many small shards that takes `rows * pause_s` seconds of one predictor, and what its output must hold."""

    folder: Path
    shards: int = 40
    shard_rows: int = 200
    pause_s: float = 0.0005

    @property
    def rows(self) -> int:
        return self.shards * self.shard_rows

    def make(self, **changes: Any) -> JobSpec:
        """Write input and user code; return the job."""
        data = self.folder / "in"
        data.mkdir(parents=True, exist_ok=True)
        per_file = self.shards // 4 * self.shard_rows
        for index in range(4):
            ids = range(index * per_file, (index + 1) * per_file)
            table = pa.table({"id": ids, "tags": [_tags(n) for n in ids]})
            pq.write_table(table, data / f"f{index}.parquet", row_group_size=self.shard_rows)
        (self.folder / "steps.py").write_text(STEPS)
        job: dict[str, Any] = {
            "source": {"type": "parquet", "path": str(data)},
            "pipeline": [{"map_batches": "steps:key"}, {"predict": "steps:Scorer", "args": {"pause_s": self.pause_s}}],
            "carryover": ["id", "tags"],
            "accumulators": ACCUMULATORS,
            "sink": {"path": str(self.folder / "out"), "row_ids": True},
            "quarantine": {"keep_columns": ["id"]},
            "shard": {"rows": self.shard_rows},
            **changes,
        }
        return make_spec(job, self.folder)

    def assert_right(self, output: Path) -> None:
        """Read the output with plain pyarrow: each input row once, with the values that belong to it."""
        table = ds.dataset(output, format="parquet").to_table()
        quarantined = read_quarantine(output)
        ids = table.column("id").to_numpy()
        bad = [n for n in range(self.rows) if n % 499 == 7]
        assert sorted(kept["id"] for kept in quarantined.column("input").to_pylist()) == bad
        assert np.array_equal(np.sort(ids), np.setdiff1d(np.arange(self.rows), bad))
        mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        assert np.array_equal(table.column("score").to_numpy(), (mixed >> np.uint64(11)) / 2.0**53)
        assert np.array_equal(table.column("late").to_numpy(), (mixed % np.uint64(3) == 0).astype(np.int64))
        assert table.column("tags").to_pylist() == [_tags(n) for n in ids.tolist()]
        position = table.column("_shard").to_numpy().astype(np.int64) * self.shard_rows + table.column("_offset").to_numpy()
        assert np.array_equal(position, ids)


def _tags(n: int) -> list[str | None] | None:
    return None if n % 5 == 0 else [f"t{n % 7}", None][: n % 3]


def read_quarantine(output: Path) -> pa.Table:
    """Read the quarantined rows without our own reader."""
    files = sorted((output / "_antinfer" / "quarantine").glob("*"))
    return pa.concat_tables([pa.ipc.open_file(file).read_all() for file in files], promote_options="permissive")


def read_report(output: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((output / "_antinfer" / "report").read_text())
    return report


def assert_proven(spec: JobSpec) -> None:
    """Our own audit, from the output place alone."""
    found = audit(open_output(spec))
    assert found.proven, found.faults


def wait_until(condition: Callable[[], object], what: str, *, seconds: float = PATIENCE_S, pause_s: float = 0.01) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(pause_s)


def command_line(
    *arguments: str, environment: dict[str, str] | None = None, seconds: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Run the ``antinfer`` command to its end."""
    code = "import sys; from antinfer.cli.app import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@dataclass
class Process:
    """One process of a job, and what it said."""

    name: str
    popen: subprocess.Popen[bytes]
    log_path: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def is_alive(self) -> bool:
        return self.popen.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def wait(self, seconds: float = PATIENCE_S) -> int:
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end:\n{self.log[-8000:]}") from None

    def find(self, words: str) -> list[int]:
        """Return the living processes below this one whose command line holds `words`."""
        return [pid for pid in _every_process() if self.pid in _ancestors(pid) and words in _command(pid)]


@dataclass
class Cluster:
    """The processes of one job, each started from the shell, and the faults that befall them."""

    spec: JobSpec
    rows: int
    """Of the input."""
    folder: Path
    """For logs and sockets; its path is short, as sockets want it."""
    ttl_s: float = 3.0
    environment: dict[str, str] = field(default_factory=dict)
    names: Callable[[], list[str]] | None = None
    """Lists the output place; None: it is a local folder."""
    processes: list[Process] = field(default_factory=list)
    mark: str = field(default_factory=lambda: uuid4().hex)
    faults: list[str] = field(default_factory=list)

    # -- processes ---------------------------------------------------------------------------------------------------------------------
    def address(self, master: str = "master") -> str:
        return f"unix://{self.folder}/{master}.sock"

    def master(self, name: str = "master", *arguments: str, wait: bool = True) -> Process:
        """Start a master that goes by `name`; with `wait`, return when it listens."""
        document, ready = self.folder / "job.json", self.folder / f"{name}.ready"
        document.write_text(document_json(self.spec))
        ready.unlink(missing_ok=True)
        words = ["--job", str(document), "--listen", self.address(name), "--ready-file", str(ready), "--ttl", str(self.ttl_s)]
        process = self._start(name, ["-m", "antinfer.master", *words, "--check", "--verbose", *arguments])
        if wait:
            wait_until(lambda: ready.exists() or not process.is_alive, f"{name} listens")
            assert process.is_alive, process.log
        return process

    def worker(self, name: str, *masters: str) -> Process:
        """Start a worker for the masters of these names."""
        address = ",".join(map(self.address, masters or ("master",)))
        return self._start(name, ["-m", "antinfer.worker", "--master", address, "--name", name, "--verbose"])

    def run(self, job_file: Path, *arguments: str) -> Process:
        """Start the one command that does it all."""
        code = "import sys; from antinfer.cli.app import main; sys.exit(main())"
        return self._start("run", ["-c", code, "run", str(job_file), *arguments])

    def _start(self, name: str, words: Sequence[str]) -> Process:
        path = self.folder / f"{name}.log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment, _MARK: self.mark}
        with path.open("ab") as log:
            popen = subprocess.Popen([sys.executable, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        process = Process(name, popen, path)
        self.processes.append(process)
        return process

    # -- looking -----------------------------------------------------------------------------------------------------------------------
    def status(self, master: str = "master") -> Status | None:
        """Return what the master says; None while it does not answer."""
        try:
            with AdminClient(self.address(master)) as admin:
                return admin.status(timeout_s=5.0)
        except MasterError:
            return None

    def published(self) -> int:
        """Count the input rows behind the parts that are there, by their names."""
        names = [name for name in self._listed() if name.startswith("part-")]
        return sum(stop - start for _, start, stop, _ in map(parse_output_name, names))

    def _listed(self) -> list[str]:
        if self.names is not None:
            return self.names()
        output = Path(self.spec.sink.path)
        return os.listdir(output) if output.exists() else []

    def wait_for_rows(self, rows: int) -> None:
        """Wait until the results of so many rows are published."""
        try:
            wait_until(lambda: self.published() >= rows, f"{rows} rows published")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.published()}\n{self.logs()}") from None

    def fault(self, what: str, do: Callable[[], object]) -> None:
        """Let something bad happen, and be sure that it met a job with work left."""
        before = self.published()
        do()
        assert not self.is_done, f"the job was over before {what}"
        assert before < self.rows, f"all rows were done before {what}"
        self.faults.append(f"{what} at {before} rows")
        print(self.faults[-1])

    @property
    def is_done(self) -> bool:
        return "_SUCCESS" in self._listed()

    def living(self) -> list[str]:
        """Say which processes of the job run, wherever they hang."""
        return [f"{pid} {_command(pid)}" for pid in self._living()]

    def _living(self) -> list[int]:
        # The embedded store paints its title over its environment, but it works in a folder of the job.
        return [pid for pid in _every_process() if _is_marked(pid, self.mark) or Path(self.spec.base_dir) in _folder(pid).parents]

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-6000:]}" for path in sorted(self.folder.glob("*.log")))

    # -- the end -----------------------------------------------------------------------------------------------------------------------
    def finish(self, *ending: Process) -> None:
        """Wait until these processes end well and nothing of the job is left running; then audit."""
        for process in ending:
            status = process.wait()
            assert status == 0, f"{process.name} ended with {status}\n{self.logs()}"
        assert self.is_done, self.logs()
        wait_until(lambda: not self.living(), f"no process left of {self.living()}", seconds=20)
        for path in self.folder.glob("*.log"):
            assert "InvariantViolation" not in path.read_text(errors="replace"), self.logs()
        assert_proven(self.spec)

    def close(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        for process in self.processes:
            if process.is_alive:
                process.kill()
        while left := self._living():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.01)


def _every_process() -> list[int]:
    """Return the processes that run; zombies do not."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _stat(int(entry.name))[0] not in ("Z", "X")]


def _is_marked(pid: int, mark: str) -> bool:
    return f"{_MARK}={mark}".encode() in _read(pid, "environ").split(b"\0")


def _folder(pid: int) -> Path:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return Path("/")  # ended while we looked, or not ours


def _stat(pid: int) -> list[str]:
    return _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split() or ["X", "0"]


def _ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int(_stat(pid)[1])
        found.append(pid)
    return found


def _command(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""  # ended while we looked, or not ours
