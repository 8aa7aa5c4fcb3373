"""Sources on a real S3 server."""

from __future__ import annotations

import gzip
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs as pafs

from antinfer.core.plan import Shard
from antinfer.errors import InfraError, SourceError
from antinfer.storage import filesystems
from antinfer.storage.planning import plan_shards
from antinfer.storage.sources import open_source
from antinfer.storage.sources.base import Source

ROWS = 4000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def storage() -> Iterator[dict[str, Any]]:
    """Storage options of a running server that holds the bucket ``inputs``."""
    program = shutil.which("moto_server", path=str(Path(sys.executable).parent)) or shutil.which("moto_server")
    if program is None:
        pytest.skip("moto_server is not installed")
    port = free_port()
    server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, server)
        options = {"endpoint_url": f"http://127.0.0.1:{port}", "region": "us-east-1", "access_key": "test", "secret_key": "test-secret"}
        fill(f"127.0.0.1:{port}")
        yield options
    finally:
        server.kill()
        server.wait()


def wait_for_port(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the S3 server did not start")


def fill(endpoint: str) -> None:
    options = {"access_key": "test", "secret_key": "test-secret", "region": "us-east-1", "scheme": "http"}
    s3 = pafs.S3FileSystem(endpoint_override=endpoint, allow_bucket_creation=True, **options)
    s3.create_dir("inputs")
    csv = "id,word\n" + "".join(f"{i},w{i}\n" for i in range(ROWS))
    json = "".join(f'{{"id": {i}, "word": "w{i}"}}\n' for i in range(ROWS))
    put(s3, "csv/a b.csv", csv.encode())
    put(s3, "csv/_SUCCESS", b"")
    put(s3, "jsonl/a.jsonl", json.encode())
    put(s3, "gz/a.jsonl.gz", gzip.compress(json.encode()))
    for i in range(40):
        put(s3, f"files/{i % 4}/{i:02}.bin", bytes([i]) * 100)
    rows = pa.table({"id": list(range(ROWS)), "word": [f"w{i}" for i in range(ROWS)]})
    for i in range(4):
        with s3.open_output_stream(f"inputs/parquet/day={i}/part.parquet") as out:
            pq.write_table(rows.slice(i * 1000, 1000), out, row_group_size=100)
    put(s3, "bad/a.parquet", b"PAR1" + bytes(100))


def put(s3: pafs.S3FileSystem, name: str, data: bytes) -> None:
    with s3.open_output_stream(f"inputs/{name}", compression=None) as out:
        out.write(data)


def planned(source: Source, **targets: Any) -> list[Shard]:
    files = source.list_files()
    return [shard for chunk in plan_shards(source, files, threads=8, **targets) for shard in chunk.shards]


def ids(source: Source, shards: list[Shard], batch_rows: int = 700) -> list[int]:
    return [row for shard in shards for batch in source.read(shard, 0, 1 << 60, batch_rows) for row in batch.column("id").to_pylist()]


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("parquet", "s3://inputs/parquet"),
        ("parquet", "s3://inputs/parquet/*/*.parquet"),
        ("csv", "s3://inputs/csv/"),
        ("csv", "s3://inputs/csv/a b.csv"),
        ("jsonl", "s3://inputs/**/*.jsonl"),
        ("jsonl", "s3a://inputs/gz"),
    ],
)
def test_formats(storage: dict[str, Any], kind: str, path: str) -> None:
    source = open_source(kind, path, options={"storage": storage})
    shards = planned(source, target_bytes=10_000)
    assert len(shards) > 1 or "gz" in path
    reader = open_source(kind, path, options=storage, frozen_schema=source.frozen_schema)
    assert ids(reader, shards) == list(range(ROWS))
    assert sum(reader.count_rows(shard) for shard in shards) == ROWS
    last = reader.count_rows(shards[-1])
    assert [b.column("id").to_pylist() for b in reader.read(shards[-1], last - 2, last - 1, 10)] == [[ROWS - 2]]


def test_listing_has_sizes_versions_and_uris(storage: dict[str, Any]) -> None:
    files = open_source("csv", "s3://inputs/csv", options={"storage": storage}).list_files()
    assert [file.path for file in files] == ["s3://inputs/csv/a b.csv"]
    assert files[0].size_bytes > ROWS
    assert int(files[0].version) > 0


def test_the_environment_of_the_aws_tools_is_enough(storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, option in (("AWS_ACCESS_KEY_ID", "access_key"), ("AWS_SECRET_ACCESS_KEY", "secret_key"), ("AWS_REGION", "region")):
        monkeypatch.setenv(name, storage[option])
    monkeypatch.setenv("AWS_ENDPOINT_URL", storage["endpoint_url"])
    assert len(open_source("csv", "s3://inputs/csv").list_files()) == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", storage["endpoint_url"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert len(open_source("csv", "s3://inputs/csv").list_files()) == 1


def test_files_are_fetched_side_by_side_in_order(storage: dict[str, Any]) -> None:
    source = open_source("files", "s3://inputs/files", options={"storage": storage})
    files = source.list_files()
    found = [row for shard in planned(source) for batch in source.read(shard, 0, 100, 7) for row in batch.to_pylist()]
    assert [row["path"] for row in found] == [file.path for file in files]
    assert len(found) == 40
    assert all(row["bytes"] == bytes([int(row["path"][-6:-4])]) * 100 for row in found)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s3://inputs/none/*.csv", "no file matches s3://inputs/none/"),
        ("s3://inputs/none", "input does not exist: s3://inputs/none"),
        ("s3://nobucket/none", "s3://nobucket/none"),
        ("s3://inp*/x", "Name the bucket"),
    ],
)
def test_nothing_there(storage: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(SourceError) as error:
        open_source("csv", path, options={"storage": storage}).list_files()
    assert said in f"{error.value} {error.value.hint}"


def test_object_that_is_no_parquet(storage: dict[str, Any]) -> None:
    source = open_source("parquet", "s3://inputs/bad", options={"storage": storage})
    with pytest.raises(SourceError, match=r"s3://inputs/bad/a\.parquet"):
        planned(source)


def test_server_that_does_not_answer_is_no_fault_of_the_data(storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "S3_ATTEMPTS", 1)
    nobody = {**storage, "endpoint_url": f"http://127.0.0.1:{free_port()}"}
    with pytest.raises(InfraError, match="s3://inputs/csv"):
        open_source("csv", "s3://inputs/csv", options={"storage": nobody}).list_files()


@pytest.mark.parametrize(
    ("kind", "names"),
    [("parquet", [f"parquet/day={i}/part.parquet" for i in range(4)]), ("jsonl", ["jsonl/a.jsonl"]), ("jsonl", ["gz/a.jsonl.gz"])],
)
def test_another_protocol_by_fsspec(storage: dict[str, Any], kind: str, names: list[str]) -> None:
    """The same objects by bare HTTP, without our knowing of it."""
    pytest.importorskip("aiohttp")
    source = open_source(kind, [f"{storage['endpoint_url']}/inputs/{name}" for name in names])
    assert ids(source, planned(source, target_bytes=10_000)) == list(range(ROWS))
    with pytest.raises(SourceError, match="nothing"):
        open_source(kind, f"{storage['endpoint_url']}/inputs/nothing.parquet").list_files()
