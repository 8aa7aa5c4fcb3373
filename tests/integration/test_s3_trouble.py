"""An S3 store that throttles, breaks uploads off and forbids half-way, in front of whole jobs; nothing is lost and nothing left over."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from antinfer.core.causes import Cause
from antinfer.core.ids import LeaseId, StagedName, staged_name
from antinfer.core.messages import FailureKind
from antinfer.core.records import CommitRecord, output_name
from antinfer.errors import OutputError
from antinfer.storage.place import OutputPlace, open_place
from antinfer.testing.chaos.cluster import Cluster
from antinfer.testing.chaos.processes import wait_until
from antinfer.testing.chaos.storeproxy import StoreProxy
from antinfer.worker.host import failing
from antinfer.worker.host.patience import Patience
from tests.integration.jobs import Scoring
from tests.integration.objectstores import client_of, environment_of, object_store

pytest.importorskip("boto3")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
BUCKET = "work"


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    with object_store("moto", BUCKET) as options:
        yield options


@pytest.fixture
def proxy(store: dict[str, str], seed: int) -> Iterator[StoreProxy]:
    with StoreProxy(store["endpoint_url"], seed=seed) as proxy:
        yield proxy


@pytest.fixture
def logs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ai-") as logs:
        yield Path(logs)


def uploads(store: dict[str, str], prefix: str) -> list[str]:
    """List uploads that are neither completed nor aborted."""
    found = client_of(store).list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", [])
    return [upload["Key"] for upload in found]


def names(store: dict[str, str], prefix: str) -> list[str]:
    pages = client_of(store).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [stored["Key"].removeprefix(prefix) for page in pages for stored in page.get("Contents", [])]


def stage(place: OutputPlace, size: int) -> CommitRecord:
    staged = StagedName(staged_name(LeaseId(1, 1), 0, 0, 10, "ab"))
    source = Path(place.local_spool(), "rows")
    source.write_bytes(bytes(size))
    return CommitRecord(0, 0, 10, staged, (place.stage(staged, "part", f"{output_name(0, 0, 10)}.parquet", str(source)),), 10)


def test_an_upload_that_breaks_off_is_sent_again_and_one_that_cannot_be_is_let_go(store: dict[str, str], proxy: StoreProxy) -> None:
    prefix = uuid4().hex
    place = open_place(f"s3://{BUCKET}/{prefix}", {**store, "endpoint_url": proxy.url})
    proxy.cut_uploads(2)
    record = stage(place, 40 << 20)  # three parts
    assert proxy.done["cut"] == 2
    assert len(uploads(store, prefix)) == 1
    place.publish(record, "parquet")
    assert [part.size_bytes for part in place.list_parts()] == [40 << 20]

    proxy.cut_uploads(100)
    with pytest.raises(OutputError):
        stage(place, 1 << 10)
    assert uploads(store, prefix) == [], "nobody pays for what cannot be finished"
    proxy.cut_uploads(0)
    place.sweep(2, ())
    assert place.list_staging() == []
    place.close()


def test_a_local_part_that_vanished_before_it_was_uploaded_is_trouble_that_passes(store: dict[str, str], tmp_path: Path) -> None:
    prefix = uuid4().hex
    place = open_place(f"s3://{BUCKET}/{prefix}", store)
    with pytest.raises(OutputError, match=r"its local file .* is gone") as caught:
        place.stage(StagedName("1-1.0.0-10.aa"), "part", f"{output_name(0, 0, 10)}.parquet", str(tmp_path / "cleaned-up"))
    assert uploads(store, prefix) == []
    told = failing.failed(LeaseId(1, 1), caught.value)
    assert (told.kind, told.cause) == (FailureKind.STORAGE, Cause.STORAGE), "the rows are computed again, by whoever comes first"
    assert not Patience("staging", lambda: False).outlasts(caught.value), "no further try brings it back"
    place.close()


def test_a_slow_store_takes_time_and_nothing_else(store: dict[str, str], proxy: StoreProxy) -> None:
    place = open_place(f"s3://{BUCKET}/{uuid4().hex}", {**store, "endpoint_url": proxy.url})
    proxy.slow(0.15)
    began = time.monotonic()
    record = stage(place, 1 << 10)
    place.publish(record, "parquet")
    assert [part.size_bytes for part in place.list_parts()] == [1 << 10]
    assert time.monotonic() - began >= 0.15 * proxy.done["passed"] / 2 > 0, "the proxy was not on the way"
    assert proxy.done.keys() == {"passed"}, "a request was given up and sent again"
    place.close()


@pytest.mark.parametrize(
    ("code", "said", "full"), [("AccessDenied", "access denied", False), ("InsufficientStorage", "no space left", True)]
)
def test_a_store_that_refuses_is_told_from_one_that_is_busy(
    store: dict[str, str], proxy: StoreProxy, code: str, said: str, full: bool
) -> None:
    place = open_place(f"s3://{BUCKET}/{uuid4().hex}", {**store, "endpoint_url": proxy.url})
    proxy.refuse(code)
    with pytest.raises(OutputError, match=said) as caught:
        place.write("a", b"x")
    assert (caught.value.lasting, caught.value.full, caught.value.remote) == (True, full, True)
    place.close()


@pytest.mark.soak
def test_a_job_on_a_store_that_throttles_and_then_forbids(
    tmp_path: Path, logs: Path, store: dict[str, str], proxy: StoreProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fourth of all requests is answered with 503, some uploads break off, and in the middle the credentials lose their rights."""
    prefix = uuid4().hex
    scoring = Scoring(tmp_path, shards=16, shard_rows=100, pause_s=0.001)
    environment = {"HOME": str(tmp_path), **environment_of({**store, "endpoint_url": proxy.url})}
    for name, value in environment_of(store).items():
        monkeypatch.setenv(name, value)  # for the audit, which is not under test here
    spec = scoring.make(sink={"path": f"s3://{BUCKET}/{prefix}/out", "row_ids": True}, tuning="off")
    cluster = Cluster(spec, scoring.rows, logs, environment=environment, names=lambda: names(store, f"{prefix}/out/"), grounds=(tmp_path,))
    try:
        master = cluster.master()
        worker = cluster.worker("w1")
        cluster.wait_for_rows(100)
        proxy.refuse("SlowDown", 0.25)
        proxy.cut_uploads(2)
        wait_until(lambda: proxy.done["SlowDown"] >= 10 and proxy.done["cut"] == 2, "the store has throttled")
        proxy.refuse("AccessDenied", 1.0, "PUT", "POST")
        wait_until(lambda: (said := cluster.status()) is not None and "access denied" in said.reason, "the status tells")
        before = cluster.published()
        proxy.refuse("SlowDown", 0.05)
        assert before < scoring.rows
        cluster.finish(worker, master)
        assert proxy.done["AccessDenied"] > 1
        assert uploads(store, prefix) == []
        assert [name for name in names(store, f"{prefix}/out/") if "staging" in name] == []
        local = tmp_path / "fetched"
        for name in names(store, f"{prefix}/out/"):
            (local / name).parent.mkdir(parents=True, exist_ok=True)
            client_of(store).download_file(BUCKET, f"{prefix}/out/{name}", str(local / name))
        scoring.assert_right(local)
    finally:
        cluster.close()
        print(cluster.logs())
