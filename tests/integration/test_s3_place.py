"""The output place on real S3 servers: moto's, and SeaweedFS where its binary is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from antinfer.core.ids import StagedName
from antinfer.core.records import CommitRecord, StagedObject, output_name
from antinfer.errors import InternalError, OutputError
from antinfer.storage import layout, manifest
from antinfer.storage.audit import audit
from antinfer.storage.audit_report import FaultKind
from antinfer.storage.place import OutputPlace, open_place
from antinfer.testing.checks import OUTPUT_PLACE_CHECKS, SUFFIX, stage_commit
from tests.integration.objectstores import SERVERS, client_of, object_store
from tests.unit.storage import outputs

pytest.importorskip("boto3")


@pytest.fixture(scope="module", params=SERVERS)
def options(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """A running server with the bucket ``results``; the storage options that reach it."""
    with object_store(request.param, "results") as options:
        yield options


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
    client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/{output_name(0, 0, 10)}.{SUFFIX}")
    uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=f"{prefix}/").get("Uploads", [])
    assert len(uploads) == 2
    place.sweep(3, ())
    uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=f"{prefix}/").get("Uploads", [])
    assert [upload["Key"] for upload in uploads] == [f"{prefix}/{layout.final_names(kept, SUFFIX)[0]}"]
    place.publish(kept, SUFFIX)


def test_uploads_of_others_below_the_same_prefix_are_left_alone(options: dict[str, str]):
    """Another job's output in a folder below ours, whose commits are acknowledged, and files of programs that know nothing of us."""
    client, bucket = client_of(options), f"shared-{uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    for outer, folder in ((open_place(f"s3://{bucket}", options), ""), (open_place(f"s3://{bucket}/faces", options), "faces/")):
        inner = open_place(f"{outer.uri}/v2", options)
        records = [stage_commit(inner, kinds=("record", "quarantine", "part")), stage_commit(inner, shard=1)]
        strangers = [f"{folder}backups/db.dump", f"{folder}part-of-something.tar", f"{folder}part-0/{output_name(0, 0, 10)}.{SUFFIX}"]
        for key in strangers:
            client.create_multipart_upload(Bucket=bucket, Key=key)
        ours = stage_commit(outer, kinds=("record", "quarantine", "part"))
        outer.sweep(1 << 60, ())
        for record in records:
            inner.publish(record, SUFFIX)
        left = {upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])}
        assert left >= set(strangers)
        assert not left & {f"{folder}{name}" for name in layout.final_names(ours, SUFFIX)}


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
