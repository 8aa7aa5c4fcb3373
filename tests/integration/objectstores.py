"""Real S3 servers for tests: moto's, and SeaweedFS where its binary is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antinfer.testing.chaos.servers import free_port

SERVERS = ("moto", "seaweedfs")


def beside_python(name: str) -> str:
    """Return the path of a program of this environment; skips the test when it is not installed."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def client_of(options: dict[str, str]) -> Any:
    """Return a boto3 client for storage options."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=options["endpoint_url"],
        region_name=options["region"],
        aws_access_key_id=options["access_key"],
        aws_secret_access_key=options["secret_key"],
    )


def environment_of(options: dict[str, str]) -> dict[str, str]:
    """Return the same as variables of the AWS tools."""
    return {
        "AWS_ENDPOINT_URL": options["endpoint_url"],
        "AWS_REGION": options["region"],
        "AWS_DEFAULT_REGION": options["region"],
        "AWS_ACCESS_KEY_ID": options["access_key"],
        "AWS_SECRET_ACCESS_KEY": options["secret_key"],
    }


@contextlib.contextmanager
def object_store(server: str, bucket: str) -> Iterator[dict[str, str]]:
    """Run a server that has `bucket` for the time of the block; gives the storage options that reach it."""
    port = free_port()
    folder = tempfile.mkdtemp(prefix="antinfer-s3-")
    with open(os.path.join(folder, "log"), "wb") as log:
        process = subprocess.Popen(_command(server, port, folder), stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        options = {"endpoint_url": f"http://127.0.0.1:{port}", "region": "us-east-1", "access_key": "test", "secret_key": "test-secret"}
        _wait_for_bucket(options, bucket, process, Path(folder) / "log")
        yield options
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _command(server: str, port: int, folder: str) -> list[str]:
    if server == "moto":
        return [beside_python("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    ports = [f"-{part}port={free_port()}" for part in ("master.", "volume.", "filer.")]
    grpc = [f"-{part}port.grpc={free_port()}" for part in ("master.", "volume.", "filer.", "s3.")]
    where = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"]
    sizes = ["-volume.max=20", "-master.volumeSizeLimitMB=64"]
    return [beside_python("weed"), "server", *where, "-s3", f"-s3.port={port}", "-filer", *ports, *grpc, *sizes]


def _wait_for_bucket(options: dict[str, str], bucket: str, server: subprocess.Popen[bytes], log: Path) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + 60
    while True:
        try:
            client_of(options).create_bucket(Bucket=bucket)
            client_of(options).put_object(Bucket=bucket, Key="first", Body=b"x")
            return
        except (BotoCoreError, ClientError) as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not come up: {log.read_text()[-2000:]}") from error
            time.sleep(0.2)
