"""Rows in quarantine are run again after a fix, into the same output, each exactly once: whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from antinfer.errors import ChangedError, UsageError
from antinfer.master import retrying
from antinfer.master.jobfile import JobMark
from antinfer.spec.yamlfile import write_yaml
from antinfer.storage.audit import audit
from antinfer.storage.place import open_place
from antinfer.testing.chaos.points import PointFolder
from antinfer.testing.chaos.processes import wait_until
from tests.integration.jobs import ROOT, command_line, make_spec
from tests.integration.objectstores import client_of, environment_of, object_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = 400
BAD = [3, 4, 5, 60, 99, 100, 250, 399]

STEPS = """
import os

BAD = set({bad})


class Model:
    def __call__(self, batch):
        bad = [int(n) for n in batch["id"] if int(n) in BAD]
        if 60 in bad and len(bad) == 1:
            {crash}
        if bad:
            raise ValueError(f"cannot read row {{bad[0]}}")
        return {{"twice": batch["id"] * 2}}
"""


def steps(bad: list[int], *, crashes: bool = False) -> str:
    return STEPS.format(bad=bad, crash="os.abort()" if crashes else "pass")


class Stand:
    """A finished job with rows in quarantine, in a folder of its own."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.output = folder / "out"
        self.environment: dict[str, str] = {}
        (folder / "in").mkdir(parents=True)
        for index in range(2):
            ids = range(index * ROWS // 2, (index + 1) * ROWS // 2)
            pq.write_table(pa.table({"id": ids, "text": [f"row {n}" for n in ids]}), folder / "in" / f"{index}.parquet", row_group_size=100)
        self.job: dict[str, Any] = {
            "source": {"type": "parquet", "path": str(folder / "in")},
            "pipeline": [{"predict": "steps:Model", "batch_size": 16}],
            "carryover": ["id", "text"],
            "accumulators": {"rows": {"type": "count"}, "mean": {"type": "mean", "value": "twice"}},
            "sink": {"path": str(self.output), "row_ids": True},
            "quarantine": {"max_fraction": 0.5, "keep_columns": ["text"]},
            "shard": {"rows": 100},
            "workers": {"max": 1},
            **changes,
        }
        self.write(BAD)

    def write(self, bad: list[int], *, crashes: bool = False) -> None:
        (self.folder / "steps.py").write_text(steps(bad, crashes=crashes))
        (self.folder / "job.yaml").write_text(write_yaml(self.job))

    def antinfer(self, *words: str, code: int = 0) -> Any:
        done = command_line(*words, "--json", environment=self.environment)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr

    def run(self) -> Any:
        return self.antinfer("run", str(self.folder / "job.yaml"))

    def retry(self, *words: str) -> Any:
        return self.antinfer("quarantine", "retry", self.job["sink"]["path"], *words)

    def listed(self) -> Any:
        return self.antinfer("quarantine", "ls", self.job["sink"]["path"], "--limit", "1000")

    def assert_holds(self, bad: list[int]) -> None:
        """Every row once, by a reader that knows nothing of us; and our own audit."""
        report = audit(open_place(str(self.output)))
        assert report.proven and report.totals.rows_quarantined == len(bad), report
        table = ds.dataset(self.output, format="parquet").to_table()
        ids = sorted(set(range(ROWS)) - set(bad))
        assert sorted(table.column("id").to_pylist()) == ids
        assert table.column("twice").to_pylist() == [2 * n for n in table.column("id").to_pylist()]
        assert table.column("text").to_pylist() == [f"row {n}" for n in table.column("id").to_pylist()]
        found = json.loads((self.output / "_antinfer" / "report").read_text())["accumulators"]
        assert (found["rows"]["count"], found["mean"]["sum"]) == (len(ids), 2 * sum(ids))


def parts(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.glob("part-*")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Stand:
    """Made once; tests work on it through `stand`, because an output belongs to its path."""
    stand = Stand(tmp_path_factory.mktemp("quarantine"))
    stand.run()
    stand.output.rename(stand.folder / "kept")
    return stand


@pytest.fixture
def stand(finished: Stand) -> Iterator[Stand]:
    shutil.copytree(finished.folder / "kept", finished.output)
    finished.write(BAD)
    finished.environment = {}
    yield finished
    shutil.rmtree(finished.output)


def test_a_fix_and_what_is_left_to_fix(stand: Stand) -> None:
    before = parts(stand.output)
    listed = stand.listed()
    assert listed["rows"] == len(BAD) == len(listed["shown"])
    assert [(group["error_class"], group["stage"], group["rows"]) for group in listed["groups"]] == [("ValueError", "Model", len(BAD))]
    assert [row["input"] for row in listed["shown"]] == [{"text": f"row {n}"} for n in BAD]
    assert [(row["shard"], row["offset"], Path(row["file"]).name) for row in listed["shown"]] == [
        (n // 100, n % 100, f"{n // 200}.parquet") for n in BAD
    ]
    assert all("cannot read row" in row["traceback"] for row in listed["shown"])
    # Half of a fix, which brings a worse fault.
    left = [60, 99, 250]
    stand.write(left, crashes=True)
    report = stand.retry()
    assert (report["retry_rounds"], report["rows_retried"], report["rows_quarantined"], report["rows_out"]) == (1, 8, 3, 397)
    stand.assert_holds(left)
    listed = stand.listed()
    assert {(row["error_class"], row["input"]["text"], row["round"]) for row in listed["shown"]} == {
        ("Abort", "row 60", 1),
        ("ValueError", "row 99", 1),
        ("ValueError", "row 250", 1),
    }
    # The whole fix, in a job file of today that has another stage.
    stand.job["pipeline"] = [{"map_batches": "steps:same"}, *stand.job["pipeline"]]
    stand.write([])
    with open(stand.folder / "steps.py", "a") as file:
        file.write("\n\ndef same(batch):\n    return batch\n")
    try:
        assert stand.retry("--job", str(stand.folder / "job.yaml"))["rows_quarantined"] == 0
    finally:
        del stand.job["pipeline"][0]
    stand.assert_holds([])
    assert before.items() <= parts(stand.output).items(), "results that were there have changed"
    assert all("-r" in name for name in parts(stand.output).keys() - before.keys())
    # Nothing is left: nothing happens.
    names = sorted(os.listdir(stand.output))
    assert stand.retry("--job", str(stand.folder / "job.yaml"))["retry_rounds"] == 2
    assert sorted(os.listdir(stand.output)) == names


POINTS = ("round.opened",)
MORE = (
    *("round.open", "round.marked", "epoch.claimed", "commit.received", "commit.durable", "commit.answered", "publish.begin"),
    *("publish.object", "publish.done", "flush.done", "audit.begin", "seal.begin", "seal.manifest", "seal.report", "seal.success"),
)


@pytest.mark.parametrize("point", [*POINTS, *(pytest.param(point, marks=pytest.mark.soak) for point in MORE)])
def test_a_master_dies_in_a_retry(stand: Stand, tmp_path: Path, point: str) -> None:
    """The command starts it again; it goes on with the round that it began, and begins no other."""
    points = PointFolder(tmp_path / "points")
    points.arm(point, "kill")
    stand.environment = points.environment
    stand.write([250])
    report = stand.retry()
    assert [proof.point for proof in points.proofs()] == [point]
    assert (report["retry_rounds"], report["rows_retried"]) == (1, len(BAD))
    stand.assert_holds([250])


@pytest.mark.parametrize("goes_on", ["retry", pytest.param("resume", marks=pytest.mark.soak)])
def test_everything_dies_in_a_retry(stand: Stand, tmp_path: Path, goes_on: str) -> None:
    """Killed with all its processes when some rows are done; meanwhile the output does not say that it is finished."""
    points = PointFolder(tmp_path / "points")
    points.arm("publish.done", "hang")
    stand.write([250])
    words = [sys.executable, "-m", "antinfer", "quarantine", "retry", str(stand.output), "--set", "task.rows=20"]
    with open(tmp_path / "log", "wb") as log:
        command = subprocess.Popen(
            words, env={**os.environ, "PYTHONPATH": str(ROOT), **points.environment}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: bool(points.proofs()), "some rows are done")
    finally:
        os.killpg(command.pid, signal.SIGKILL)
        command.wait()
    assert not (stand.output / "_SUCCESS").exists()
    report = audit(open_place(str(stand.output)))
    assert report.ok and not report.finished and report.retrying == 1
    assert report.totals.rows_in == report.totals.rows_out + report.totals.rows_quarantined == ROWS
    report = stand.retry() if goes_on == "retry" else stand.antinfer("resume", str(stand.output))
    assert (report["retry_rounds"], report["rows_retried"]) == (1, len(BAD))
    stand.assert_holds([250])


def test_a_retry_is_refused_where_it_would_mix_jobs(stand: Stand) -> None:
    """Another input or sink is no fix."""
    place, number = open_place(str(stand.output)), 1
    for change, said in (
        ({"accumulators": {"rows": {"type": "count"}}}, "accumulators.mean.type"),
        ({"carryover": ["id"]}, "carryover was"),
        ({"quarantine": {"keep_columns": ["id"]}}, "quarantine.keep_columns"),
        ({"source": {**stand.job["source"], "columns": ["id", "text"]}}, "source.columns"),
    ):
        with pytest.raises(ChangedError, match=said):
            retrying.is_due(place, JobMark.of(make_spec({**stand.job, **change}, stand.folder), place.uri), number)
    today = JobMark.of(make_spec(stand.job, stand.folder), place.uri)
    assert retrying.is_due(place, today, number)
    with pytest.raises(UsageError, match="not finished"):
        retrying.is_due(place, today, number + 1)
    extra = stand.folder / "in" / "9.parquet"
    pq.write_table(pa.table({"id": [1], "text": ["x"]}), extra)
    try:
        assert "9.parquet" in stand.antinfer("quarantine", "retry", str(stand.output), code=1)
    finally:
        extra.unlink()
    stand.assert_holds(BAD)


def test_text_whose_size_nobody_knew_through_every_kind_of_stage(tmp_path: Path) -> None:
    """Shards sized at first open, batches at fixed places, fan-out and gathering, and results that cannot carry their record."""
    stand = Stand(
        tmp_path / "job",
        source={"type": "jsonl", "path": str(tmp_path / "lines.jsonl")},
        pipeline=[
            {"predict": "steps:Model", "batch_size": 16},
            {"filter": "steps:some"},
            {"flat_map": "steps:pair"},
            {"map_batches": "steps:key", "batch_size": 8},
            {"gather": {"into": "pairs"}},
        ],
        accumulators={},
        carryover=["id"],
        reproducible=True,
        shard={},
        sink={"type": "jsonl", "path": str(tmp_path / "out"), "row_ids": True},
    )
    (tmp_path / "lines.jsonl").write_text("".join(f'{{"id": {n}, "text": "row {n}"}}\n' for n in range(ROWS)))
    more = """

def some(batch):
    return batch["twice"] % 3 != 0


def pair(row):
    return [{"half": row["twice"] // 2}, {"half": row["twice"] // 2}]


def key(batch):
    return {"half": batch["half"]}
"""
    wanted = [n for n in range(ROWS) if 2 * n % 3]
    for bad in (BAD, [99, 250]):
        (stand.folder / "steps.py").write_text(steps(bad) + more)
        report = stand.run() if bad == BAD else stand.retry()
        assert report["rows_quarantined"] == len(bad)
        found = [json.loads(line) for path in (tmp_path / "out").glob("part-*.jsonl") for line in path.read_text().splitlines()]
        assert sorted(row["id"] for row in found) == [n for n in wanted if n not in bad]
        assert all([each["half"] for each in row["pairs"]] == [row["id"]] * 2 for row in found)
        assert audit(open_place(str(tmp_path / "out"))).proven


@pytest.mark.soak
def test_from_s3_to_s3(tmp_path: Path) -> None:
    pytest.importorskip("boto3")
    with object_store("moto", "jobs") as options:
        client, prefix = client_of(options), uuid4().hex
        stand = Stand(
            tmp_path / "job",
            source={"type": "parquet", "path": f"s3://jobs/{prefix}/in/*.parquet"},
            sink={"path": f"s3://jobs/{prefix}/out", "row_ids": True},
        )
        stand.environment = {"HOME": str(tmp_path), **environment_of(options)}
        for file in (stand.folder / "in").iterdir():
            client.upload_file(str(file), "jobs", f"{prefix}/in/{file.name}")
        stand.run()
        stand.write([99])
        points = PointFolder(tmp_path / "points")
        points.arm("publish.object", "kill")
        stand.environment |= points.environment
        assert stand.retry()["rows_quarantined"] == 1
        assert points.proofs()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="jobs", Prefix=f"{prefix}/out/")
        for key in [stored["Key"] for page in pages for stored in page.get("Contents", [])]:
            local = stand.output / key.removeprefix(f"{prefix}/out/")
            local.parent.mkdir(parents=True, exist_ok=True)
            client.download_file("jobs", key, str(local))
        assert "Uploads" not in client.list_multipart_uploads(Bucket="jobs", Prefix=prefix)
        stand.assert_holds([99])
