"""Whole jobs from S3 to S3 against a real server: workers die while they stage, nothing is left over, and no credential is written."""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from antinfer.spec.canonical import to_yaml
from antinfer.spec.schema import JobSpec
from antinfer.testing.chaos.cluster import Cluster
from antinfer.testing.chaos.processes import wait_until
from tests.integration.jobs import Scoring, command_line
from tests.integration.objectstores import client_of, environment_of, object_store

pytest.importorskip("boto3")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BUCKET = "work"


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, str]]:
    with object_store("moto", BUCKET) as options:
        yield options


class Stand:
    """A job whose input and output lie in a bucket."""

    def __init__(self, folder: Path, logs: Path, options: dict[str, str], storage: dict[str, str]) -> None:
        self.client = client_of(options)
        self.prefix = uuid4().hex
        self.uri = f"s3://{BUCKET}/{self.prefix}/out"
        self.folder = folder
        self.scoring = Scoring(folder, shards=16, shard_rows=100, pause_s=0.001)
        named = {"storage": storage} if storage else {}
        self.spec: JobSpec = self.scoring.make(
            source={"type": "parquet", "path": f"s3://{BUCKET}/{self.prefix}/in/*.parquet", "options": named},
            sink={"path": self.uri, "row_ids": True, "options": named},
        )
        for file in sorted((folder / "in").iterdir()):
            self.client.upload_file(str(file), BUCKET, f"{self.prefix}/in/{file.name}")
        # The state of the embedded store lies below the home directory when the output is far away.
        self.environment = {"HOME": str(folder)} if storage else {"HOME": str(folder), **environment_of(options)}
        self.cluster = Cluster(self.spec, self.scoring.rows, logs, 2.0, self.environment, self.names, (folder,))

    def names(self, folder: str = "out") -> list[str]:
        """List the objects below `folder`, relative to it."""
        prefix = f"{self.prefix}/{folder}/"
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [stored["Key"].removeprefix(prefix) for page in pages for stored in page.get("Contents", [])]

    def uploads(self) -> list[str]:
        """List uploads that were neither completed nor aborted."""
        found = self.client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{self.prefix}/").get("Uploads", [])
        return [upload["Key"] for upload in found]

    def assert_right(self) -> None:
        """Fetch everything that is there and read it without us; nothing is left over."""
        assert self.uploads() == []
        assert [name for name in self.names() if "staging" in name] == []
        local = self.folder / "fetched"
        for name in self.names():
            (local / name).parent.mkdir(parents=True, exist_ok=True)
            self.client.download_file(BUCKET, f"{self.prefix}/out/{name}", str(local / name))
            assert b"test-secret" not in (local / name).read_bytes(), f"{name} holds a credential"
        self.scoring.assert_right(local)


@pytest.fixture
def logs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ai-") as logs:
        yield Path(logs)


def test_a_worker_is_killed_while_it_stages(tmp_path: Path, logs: Path, options: dict[str, str], seed: int) -> None:
    """Credentials in the job file; each worker is killed with an upload of its own open, until one has left it behind."""
    chance = random.Random(seed)
    stand = Stand(tmp_path, logs, options, storage=options)
    cluster = stand.cluster
    try:
        master = cluster.master()
        left: list[str] = []
        for number in range(8):
            worker = cluster.worker(f"w{number}")
            wait_until(lambda: stand.uploads() or cluster.is_done, "an upload is open", pause_s=0.001)
            time.sleep(chance.uniform(0.0, 0.02))
            cluster.fault("kill -9 of a worker", worker.kill)
            left = stand.uploads()
            print(f"left behind: {left}")
            if left:
                break
        assert left, "no worker died while it staged"
        cluster.finish(cluster.worker("last"), master)
        stand.assert_right()
    finally:
        cluster.close()
        print(cluster.logs())


def test_the_command_line_with_the_aws_environment(tmp_path: Path, logs: Path, options: dict[str, str]) -> None:
    """Nothing about the storage in the job file: run, Ctrl-C, verify, resume, verify, and a part that is missing."""
    stand = Stand(tmp_path, logs, options, storage={})
    cluster = stand.cluster
    job_file = tmp_path / "job.yaml"
    job_file.write_text(to_yaml(stand.spec))
    try:
        run = cluster.run(job_file, "--workers", "1")
        cluster.wait_for_rows(300)
        cluster.fault("Ctrl-C", lambda: os.kill(run.pid, signal.SIGINT))
        assert run.wait() == 130, run.log
        assert "the same command resumes the job" in run.log
        wait_until(lambda: not cluster.living(), "all that it started is gone", seconds=20)
        half = command_line("verify", stand.uri, environment=stand.environment)
        assert half.returncode == 4, half
        assert "is not finished" in half.stderr
        resumed = command_line("resume", stand.uri, "--json", environment=stand.environment)
        assert resumed.returncode == 0, resumed.stderr
        assert json.loads(resumed.stdout)["rows_in"] == stand.scoring.rows
        stand.assert_right()
        whole = command_line("verify", stand.uri, "--json", environment=stand.environment)
        assert whole.returncode == 0, whole
        assert json.loads(whole.stdout)["proven"] is True
        replayed = command_line("events", stand.uri, "--replay", environment=stand.environment)
        assert replayed.returncode == 0, replayed
        assert replayed.stdout.count("the same documents, commands and story") == 2
        part = next(name for name in stand.names() if name.startswith("part-00000003"))
        stand.client.delete_object(Bucket=BUCKET, Key=f"{stand.prefix}/out/{part}")
        broken = command_line("verify", stand.uri, environment=stand.environment)
        assert broken.returncode == 4
        assert f"FAULT part_missing: {part}" in broken.stderr
    finally:
        cluster.close()
        print(cluster.logs())
