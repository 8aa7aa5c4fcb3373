"""The output place on real S3 servers: moto's, and SeaweedFS where its binary is installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from antinfer.core.ids import StagedName
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.errors import InternalError, OutputError
from antinfer.storage import layout, manifest
from antinfer.storage.audit import audit
from antinfer.storage.audit_report import FaultKind
from antinfer.storage.place import OutputPlace, open_place
from antinfer.testing.checks import OUTPUT_PLACE_CHECKS, SUFFIX, stage_commit
from tests.unit.storage import outputs

boto3 = pytest.importorskip("boto3")

SERVERS = ("moto", "seaweedfs")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def beside_python(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def command(server: str, port: int, folder: str) -> list[str]:
    if server == "moto":
        return [beside_python("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    ports = [f"-{part}port={free_port()}" for part in ("master.", "volume.", "filer.")]
    grpc = [f"-{part}port.grpc={free_port()}" for part in ("master.", "volume.", "filer.", "s3.")]
    where = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"]
    sizes = ["-volume.max=20", "-master.volumeSizeLimitMB=64"]
    return [beside_python("weed"), "server", *where, "-s3", f"-s3.port={port}", "-filer", *ports, *grpc, *sizes]


def client_of(options: dict[str, str]):
    return boto3.client(
        "s3",
        endpoint_url=options["endpoint_url"],
        region_name=options["region"],
        aws_access_key_id=options["access_key"],
        aws_secret_access_key=options["secret_key"],
    )


@pytest.fixture(scope="module", params=SERVERS)
def options(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """A running server with the bucket ``results``; the storage options that reach it."""
    port = free_port()
    folder = tempfile.mkdtemp(prefix="antinfer-s3-")
    with open(os.path.join(folder, "log"), "wb") as log:
        server = subprocess.Popen(command(request.param, port, folder), stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        options = {"endpoint_url": f"http://127.0.0.1:{port}", "region": "us-east-1", "access_key": "test", "secret_key": "test-secret"}
        wait_for_bucket(options, server, Path(folder) / "log")
        yield options
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_bucket(options: dict[str, str], server: subprocess.Popen[bytes], log: Path) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + 60
    while True:
        try:
            client_of(options).create_bucket(Bucket="results")
            client_of(options).put_object(Bucket="results", Key="first", Body=b"x")
            return
        except (BotoCoreError, ClientError) as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not come up: {log.read_text()[-2000:]}") from error
            time.sleep(0.2)


@pytest.fixture
def make_place(options: dict[str, str]) -> Callable[[], OutputPlace]:
    uri = f"s3://results/{uuid4().hex}/out"
    return lambda: open_place(uri, options)


@pytest.mark.parametrize("check", OUTPUT_PLACE_CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Callable[[Callable[[], OutputPlace]], None], make_place: Callable[[], OutputPlace]):
    check(make_place)


def test_a_bucket_may_be_the_place(options: dict[str, str]):
    client_of(options).create_bucket(Bucket="whole-bucket")
    place = open_place("s3://whole-bucket", options)
    record = stage_commit(place)
    place.publish(record, SUFFIX)
    assert [part.name for part in place.list_parts()] == layout.final_names(record, SUFFIX)


def test_neighbours_are_left_alone(options: dict[str, str]):
    folder = uuid4().hex
    place, neighbour = open_place(f"s3://results/{folder}/out", options), open_place(f"s3://results/{folder}/out2", options)
    record = stage_commit(neighbour)
    place.sweep(1 << 60, ())
    neighbour.publish(record, SUFFIX)
    assert len(neighbour.list_parts()) == 1
    assert place.list_parts() == []


def test_an_upload_without_a_marker_is_swept(options: dict[str, str], make_place: Callable[[], OutputPlace]):
    """A worker that dies between opening its upload and naming it leaves nothing that costs money or could be published."""
    place = make_place()
    bucket, _, prefix = place.uri.partition("://")[2].partition("/")
    client = client_of(options)
    kept = stage_commit(place, epoch=3)
    client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/{layout.final_name('part', 'part-x', SUFFIX)}")
    uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=f"{prefix}/").get("Uploads", [])
    assert len(uploads) == 2
    place.sweep(3, ())
    uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=f"{prefix}/").get("Uploads", [])
    assert [upload["Key"] for upload in uploads] == [f"{prefix}/{layout.final_names(kept, SUFFIX)[0]}"]
    place.publish(kept, SUFFIX)


def test_publication_after_a_lost_answer(make_place: Callable[[], OutputPlace]):
    """The upload was completed, but whoever did it died before it knew, and its marker is still there."""
    first, second = make_place(), make_place()
    record = stage_commit(first)
    marker = layout.staged_path(record.staged, "part")
    body = first.read(marker)
    assert body is not None
    first.publish(record, SUFFIX)
    first.write(marker, body)
    second.publish(record, SUFFIX)
    assert second.list_staging() == []


def test_a_part_of_another_commit_is_no_publication(make_place: Callable[[], OutputPlace]):
    place = make_place()
    published, lost = stage_commit(place), stage_commit(place)
    place.publish(published, SUFFIX)
    place.collect((lost.staged,))
    with pytest.raises(InternalError, match=f"published from {published.staged}"):
        place.publish(lost, SUFFIX)


def test_listing_goes_past_one_page(options: dict[str, str], make_place: Callable[[], OutputPlace]):
    place = make_place()
    bucket, _, prefix = place.uri.partition("://")[2].partition("/")
    client = client_of(options)
    with ThreadPoolExecutor(8) as pool:
        keys = [f"{prefix}/{layout.folder(layout.MANIFEST)}/{n:06d}" for n in range(1005)]
        list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=key, Body=b""), keys))
    assert len(place.list_objects(layout.MANIFEST)) == 1005
    place.remove(tuple(stored.name for stored in place.list_objects(layout.MANIFEST)))
    assert place.list_objects(layout.MANIFEST) == []


def test_the_place_proves_its_records(make_place: Callable[[], OutputPlace]):
    place = make_place()
    records = [stage_commit(place, shard=shard) for shard in range(3)]
    for record in records:
        place.publish(record, SUFFIX)
    manifest.append(place, 1, 0, records[:1])
    found = manifest.list_output(place, SUFFIX)
    assert [record.staged for record in found] == [record.staged for record in records]


@pytest.mark.parametrize("type", ["parquet", "jsonl"])
def test_an_output_is_audited(make_place: Callable[[], OutputPlace], type: str):
    place = make_place()
    records = outputs.make_output(place, type=type)
    assert audit(make_place()).proven
    place.remove((layout.final_names(records[1], type)[-1],))
    assert [fault.kind for fault in audit(make_place()).faults] == [FaultKind.PART_MISSING]


@pytest.mark.parametrize(
    ("uri", "changes", "said"),
    [
        ("s3://no-such-bucket/x", {}, "bucket does not exist"),
        ("s3://results/x", {"endpoint_url": "http://127.0.0.1:1"}, "cannot be reached"),
    ],
    ids=["bucket", "endpoint"],
)
def test_failures_are_named(options: dict[str, str], uri: str, changes: dict[str, str], said: str):
    place = open_place(uri, {**options, **changes})
    with pytest.raises(OutputError, match=said):
        place.list_parts()


def test_a_lost_upload_names_the_commit(make_place: Callable[[], OutputPlace]):
    token = '{"upload":"0123456789abcdef0123456789abcdef","etags":["x"]}'
    record = CommitRecord(0, 0, 1, StagedName("1-1.0.0-1.aa"), (StagedObject("part", token),), rows_out=1)
    with pytest.raises(InternalError, match="was not published"):
        make_place().publish(record, SUFFIX)
