"""The real command line on small real jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests import permissions

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = 1_000
"""Rows of `JobFolder`, half of them in each of two files."""

STEPS = """
import os
import time

import numpy as np


class Model:
    def __call__(self, batch):
        return {"y": batch["x"] * 2}


class Slow:
    def __call__(self, batch):
        time.sleep(0.05)
        return {"y": batch["x"] * 2}


class Gated:
    # Lets 100 rows of each half pass, and the others once there is a file `go` beside this one.

    def __call__(self, batch):
        while batch["id"][-1] % 500 >= 100 and not os.path.exists(os.path.join(os.path.dirname(__file__), "go")):
            time.sleep(0.02)
        return {"y": batch["x"] * 2}


class LosesRow:
    def __call__(self, batch):
        return {"y": batch["x"][:-1]}


class ReturnsArray:
    def __call__(self, batch):
        return batch["x"]


class ChangesType:
    def __call__(self, batch):
        return {"y": batch["x"].astype("f8" if batch["id"][0] < 500 else "i4")}


class ReturnsObjects:
    def __call__(self, batch):
        return {"y": np.array([object() for _ in batch["x"]], dtype=object)}


class Raises:
    def __call__(self, batch):
        return self.deeper(batch)

    def deeper(self, batch):
        raise RuntimeError("the weights are upside down")


class CannotBeBuilt:
    def __init__(self):
        raise RuntimeError("no weights here")
"""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> dict:
        return json.loads(self.out)

    def check_failure(self, code: int, *said: str) -> None:
        """Assert the exit status, what the error says, and that none of our own frames bothers the user."""
        assert self.code == code, self
        last = self.err[self.err.index("antinfer: ") :] if "antinfer: " in self.err else ""
        for words in said:
            assert words in last, f"{words!r} is not in: {self.err}"
        assert "/antinfer/" not in frames(self.err) and "/master/" not in frames(self.err) and "/worker/" not in frames(self.err), self.err
        # Traces that a library prints of its own have no frame of ours.
        assert "[master] Traceback" not in self.err, self.err


def frames(text: str) -> str:
    """Return the lines of `text` that are frames of tracebacks."""
    return "\n".join(line for line in text.splitlines() if 'File "' in line)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "antinfer", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **more}


def antinfer(*arguments: str | Path, cwd: Path | None = None, timeout: float = 90.0) -> Finished:
    """Run a command to its end."""
    return _run(command(*arguments), cwd, timeout)


def antinfer_bound(*arguments: str | Path, timeout: float = 90.0) -> Finished:
    """Run a command that file permissions bind, whoever runs the tests."""
    return _run(permissions.bound(command(*arguments)), None, timeout)


def _run(words: list[str], cwd: Path | None, timeout: float) -> Finished:
    ended = subprocess.run(words, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout, check=False)
    return Finished(ended.returncode, ended.stdout, ended.stderr)


def start(*arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start a command; the caller ends it."""
    # A group of its own, so that a signal meant for it cannot reach the tests.
    return subprocess.Popen(
        command(*arguments), cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str], timeout: float = 60.0) -> Finished:
    out, err = process.communicate(timeout=timeout)
    return Finished(process.returncode, out, err)


def kill(process: subprocess.Popen[str]) -> None:
    """End a command that a test may have left running."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.communicate()


class JobFolder:
    """A job over two Parquet files of 500 rows (id, x), in a folder of its own."""

    def __init__(self, folder: Path, predict: str = "steps:Model", *, source: str = "{type: parquet, path: data/}", **extra: str) -> None:
        """
        Args:
            folder: created.
            predict: user code of the one stage.
            source: the job file's source, as YAML.
            extra: further keys of the job file, as YAML; ``sink`` among them.
        """
        self.folder = folder
        self.job = folder / "job.yaml"
        self.steps = folder / "steps.py"
        self.data = folder / "data"
        self.output = folder / "output"
        self.data.mkdir(parents=True)
        self.steps.write_text(STEPS)
        keys = {"carryover": "[id]", "sink": "{type: parquet, path: output}", **extra}
        lines = [f"source: {source}", f"pipeline: [{{predict: '{predict}', batch_size: 100}}]", *(f"{key}: {keys[key]}" for key in keys)]
        self.job.write_text("\n".join(lines) + "\n")
        for part in range(2):
            self.write(f"{part}.parquet", range(part * ROWS // 2, (part + 1) * ROWS // 2))

    def write(self, name: str, ids: range, group: int | None = None) -> Path:
        """Write a file of rows with these ids."""
        table = pa.table({"id": pa.array(ids, pa.int64()), "x": pa.array([0.5 * i for i in ids], pa.float64())})
        pq.write_table(table, self.data / name, row_group_size=group)
        return self.data / name

    def edit(self, old: str, new: str, file: Path | None = None) -> None:
        """Replace text in the job file, or in another one."""
        file = file or self.job
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def ids(self) -> list[int]:
        """Return the ids in the output, read by plain pyarrow."""
        import pyarrow.dataset as ds

        return sorted(ds.dataset(self.output, format="parquet").to_table().column("id").to_pylist())

    def committed(self) -> int:
        """Return the number of published parts so far."""
        return len(list(self.output.glob("part-*")))


def wait_until(true, timeout: float = 60.0, why: str = "") -> None:
    """Poll until `true()`."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, why or "waited too long"
        time.sleep(0.02)


def descendants(pid: int) -> set[int]:
    """Return the processes that descend from `pid`."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            found.add(child)
            todo.append(child)
    return found


def alive(pids: set[int]) -> set[int]:
    """Return those of `pids` that still run; zombies do not."""
    left = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            left.add(pid)
    return left


def run(job: JobFolder, *arguments: str | Path) -> Finished:
    """Run a job to its end."""
    return antinfer("run", job.folder, *arguments)


def check_mended(job: JobFolder) -> None:
    """The user has mended what was wrong: the same command now does the whole job, in the same place."""
    ended = run(job)
    assert ended.code == 0, ended
    assert job.ids() == list(range(ROWS))
    assert antinfer("verify", job.output).code == 0


def interrupt_half_way(job: JobFolder) -> None:
    """Run a job of slow steps until it has published something, then press Ctrl-C."""
    process = start("run", job.folder)
    try:
        wait_until(lambda: job.committed() or process.poll() is not None, why="nothing was published")
        process.send_signal(2)
        assert finish(process).code == 130
    finally:
        kill(process)
