"""The double of Cloud Storage under two clients that share no code: Google's and Arrow's, over the same data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from pyarrow import fs

pytest.importorskip("google.cloud.storage")

from google.api_core.exceptions import MethodNotImplemented, NotFound, NotModified, PreconditionFailed

from tests.integration.gcs.clients import client_of, environment_of, filesystem_of
from tests.integration.gcs.server import GcsServer, gcs_server

DATA = bytes(range(256)) * 8192  # 2 MiB, of several chunks
ODD = "a b/c%d/é#?&+\u65e5"


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    with gcs_server("data", page_size=3) as server:
        yield server


@pytest.fixture(scope="module")
def bucket(server: GcsServer) -> Any:
    return client_of(server.url).bucket("data")


@pytest.fixture(scope="module")
def arrow(server: GcsServer) -> fs.GcsFileSystem:
    return filesystem_of(server.url)


@pytest.fixture
def folder() -> str:
    return uuid4().hex


def write(arrow: fs.GcsFileSystem, path: str, data: bytes) -> None:
    with arrow.open_output_stream(path) as stream:
        stream.write(data)


@pytest.mark.parametrize("data", [b"", b"\r\n--\r\n\x00\r", DATA], ids=["empty", "lines", "large"])
def test_what_one_writes_the_other_reads(bucket: Any, arrow: fs.GcsFileSystem, folder: str, data: bytes):
    bucket.blob(f"{folder}/{ODD}").upload_from_string(data, content_type="application/x-test")
    write(arrow, f"data/{folder}/arrow", data)

    assert arrow.open_input_file(f"data/{folder}/{ODD}").read() == data
    assert bucket.blob(f"{folder}/arrow").download_as_bytes() == data
    assert bucket.get_blob(f"{folder}/{ODD}").content_type == "application/x-test"


def test_chunks_make_one_object(server: GcsServer, bucket: Any, arrow: fs.GcsFileSystem, folder: str):
    blob = bucket.blob(f"{folder}/google", chunk_size=512 * 1024)
    with blob.open("wb", if_generation_match=0) as stream:
        stream.write(DATA + b"rest")
    with arrow.open_output_stream(f"data/{folder}/arrow") as stream:
        stream.write(DATA)
        stream.write(b"rest")

    for name in ("google", "arrow"):
        chunks = [each.status for each in server.log.matching("PUT", f"{folder}/{name}")]
        assert chunks == [*[308] * (len(chunks) - 1), 200] and len(chunks) > 1
        assert bucket.blob(f"{folder}/{name}").download_as_bytes() == DATA + b"rest"


def test_ranges(bucket: Any, arrow: fs.GcsFileSystem, folder: str):
    bucket.blob(f"{folder}/a").upload_from_string(DATA)
    with arrow.open_input_file(f"data/{folder}/a") as file:
        assert file.size() == len(DATA)
        assert file.read_at(100_000, 777) == DATA[777:100_777]
    assert bucket.blob(f"{folder}/a").download_as_bytes(start=5, end=9) == DATA[5:10]


def test_listings_have_pages(server: GcsServer, bucket: Any, arrow: fs.GcsFileSystem, folder: str):
    names = [f"{folder}/{name}" for name in ("a", "b/1", "b/2", "b/c/3", "b0", "d", "é")]
    for name in names:
        server.store.insert("data", name, b"x")
    for name in (f"{folder}0", f"{folder}.x"):
        server.store.insert("data", name, b"x")
    server.log.clear()

    assert [blob.name for blob in bucket.list_blobs(prefix=f"{folder}/")] == names
    assert len(server.log.matching("GET", f"prefix={folder}/")) == 3
    pages = bucket.list_blobs(prefix=f"{folder}/", delimiter="/")
    assert [blob.name for blob in pages] == [names[0], *names[4:]] and pages.prefixes == {f"{folder}/b/"}
    found = arrow.get_file_info(fs.FileSelector(f"data/{folder}", recursive=True))
    assert [each.path for each in found if each.type is fs.FileType.File] == [f"data/{name}" for name in names]


def test_preconditions(bucket: Any, folder: str):
    blob = bucket.blob(f"{folder}/a")
    blob.upload_from_string(b"first", if_generation_match=0)
    first = blob.generation
    with pytest.raises(PreconditionFailed):
        bucket.blob(f"{folder}/a").upload_from_string(b"again", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.delete_blob(f"{folder}/a", if_generation_match=first + 1)
    with pytest.raises(NotModified):
        blob.reload(if_generation_not_match=first)

    blob.upload_from_string(b"second", if_generation_match=first)

    assert blob.generation > first
    bucket.delete_blob(f"{folder}/a", if_generation_match=blob.generation)
    with pytest.raises(NotFound):
        bucket.delete_blob(f"{folder}/a", if_generation_match=blob.generation)


def test_metadata_are_patched(bucket: Any, folder: str):
    blob = bucket.blob(f"{folder}/a")
    blob.metadata = {"kept": "1", "gone": "2"}
    blob.upload_from_string(b"x")
    generation = blob.generation
    blob.metadata = {"gone": None, "new": "3"}
    blob.patch(if_metageneration_match=1)

    found = bucket.get_blob(f"{folder}/a")
    assert found.metadata == {"kept": "1", "new": "3"}
    assert (found.generation, found.metageneration) == (generation, 2)
    with pytest.raises(PreconditionFailed):
        blob.patch(if_metageneration_match=1)


def test_moving(server: GcsServer, bucket: Any, folder: str):
    source = bucket.blob(f"{folder}/a")
    source.upload_from_string(b"moved")
    server.store.insert("data", f"{folder}/there", b"other")
    with pytest.raises(PreconditionFailed):
        bucket.move_blob(source, f"{folder}/there", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.move_blob(source, f"{folder}/{ODD}", if_source_generation_match=1)

    moved = bucket.move_blob(source, f"{folder}/{ODD}", if_generation_match=0, if_source_generation_match=source.generation)

    assert moved.generation > source.generation
    assert moved.download_as_bytes() == b"moved"
    assert [name for name in server.store.names("data") if folder in name] == [f"{folder}/{ODD}", f"{folder}/there"]
    with pytest.raises(NotFound):
        bucket.move_blob(source, f"{folder}/{ODD}")


def test_arrow_copies_moves_and_deletes(server: GcsServer, arrow: fs.GcsFileSystem, folder: str):
    server.store.insert("data", f"{folder}/a", b"x", {"metadata": {"key": "value"}})
    arrow.copy_file(f"data/{folder}/a", f"data/{folder}/copy")
    arrow.move(f"data/{folder}/a", f"data/{folder}/moved")
    assert [name for name in server.store.names("data") if folder in name] == [f"{folder}/copy", f"{folder}/moved"]
    assert server.store.get("data", f"{folder}/moved").resource(server.url)["metadata"] == {"key": "value"}

    arrow.create_dir(f"data/{folder}/dir")
    arrow.delete_file(f"data/{folder}/copy")
    arrow.delete_dir(f"data/{folder}")
    assert [name for name in server.store.names("data") if folder in name] == []


def test_rewriting_and_copying(bucket: Any, folder: str):
    source = bucket.blob(f"{folder}/a")
    source.upload_from_string(DATA, content_type="application/x-test")
    assert bucket.blob(f"{folder}/b").rewrite(source, if_generation_match=0) == (None, len(DATA), len(DATA))
    with pytest.raises(PreconditionFailed):
        bucket.copy_blob(source, bucket, f"{folder}/b", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.copy_blob(source, bucket, f"{folder}/c", if_source_generation_match=1)

    assert bucket.copy_blob(source, bucket, f"{folder}/c").crc32c == source.crc32c


def test_batches(server: GcsServer, bucket: Any, folder: str):
    for name in "abc":
        server.store.insert("data", f"{folder}/{name}", b"x")
    batch = bucket.client.batch(raise_exception=False)
    with batch:
        bucket.delete_blob(f"{folder}/a")
        bucket.delete_blob(f"{folder}/b", if_generation_match=7)
        bucket.delete_blob(f"{folder}/none")

    assert [each.status_code for each in batch._responses] == [204, 412, 404]
    assert [name for name in server.store.names("data") if folder in name] == [f"{folder}/b", f"{folder}/c"]


def test_buckets(server: GcsServer):
    client = client_of(server.url)
    for name in ("bucket-1", "bucket-2", "bucket-3", "bucket-4"):
        client.create_bucket(name)
    assert [each.name for each in client.list_buckets(prefix="bucket-")] == ["bucket-1", "bucket-2", "bucket-3", "bucket-4"]
    assert client.bucket("bucket-1").exists() and not client.bucket("none").exists()
    client.bucket("bucket-4").delete()
    with pytest.raises(NotFound):
        client.get_bucket("bucket-4")
    with pytest.raises(MethodNotImplemented):
        client.get_bucket("bucket-1").update()


def test_variables_lead_there(server: GcsServer, folder: str):
    program = f"""
from google.cloud import storage
from pyarrow import fs
storage.Client(project="test").bucket("data").blob("{folder}/a").upload_from_string(b"found")
print(fs.GcsFileSystem(anonymous=True).open_input_file("data/{folder}/a").read().decode())
"""
    environment = {"PYTHONWARNINGS": "ignore", **environment_of(server.url)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("found\n", "")
