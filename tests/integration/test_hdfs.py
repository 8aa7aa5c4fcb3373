"""A real HDFS as input and as output place. `make hdfs` fetches what that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.errors import InfraError, JobFileError, OutputError, SourceError
from antinfer.storage import layout
from antinfer.storage.audit import audit
from antinfer.storage.place import OutputPlace, open_place
from antinfer.storage.sources import open_source
from antinfer.testing.checks import OUTPUT_PLACE_CHECKS, SUFFIX, stage_commit
from tests.integration.hdfs.server import Hdfs, hdfs
from tests.integration.remotejobs import RemoteJob

pytestmark = [pytest.mark.hdfs, pytest.mark.timeout(300)]
pytest.importorskip("hdfs_native")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    with hdfs(tmp_path_factory.mktemp("hdfs")) as running:
        yield running


@pytest.fixture
def make_place(store: Hdfs) -> Callable[[], OutputPlace]:
    uri = f"{store.uri}/{uuid4().hex}/out"
    return lambda: open_place(uri)


@pytest.mark.parametrize("check", OUTPUT_PLACE_CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Callable[[Callable[[], OutputPlace]], None], make_place: Callable[[], OutputPlace]) -> None:
    check(make_place)


def test_drafts_of_the_dead_are_swept(store: Hdfs, make_place: Callable[[], OutputPlace]) -> None:
    place = make_place()
    place.write(layout.JOB, b"x")
    folder = f"{place.uri.removeprefix(store.uri)}/{layout.folder(layout.STAGING)}"
    store.shell("-touchz", f"{folder}/{uuid4().hex}.draft")
    assert len(place.list_objects(layout.STAGING)) == 1
    assert place.list_staging() == []
    place.sweep(1, ())
    assert place.list_objects(layout.STAGING) == []


def test_a_configuration_names_the_file_system(store: Hdfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", str(store.conf))
    place = open_place(f"hdfs:///{uuid4().hex}")
    record = stage_commit(place)
    place.publish(record, SUFFIX)
    (name,) = layout.final_names(record, SUFFIX)
    assert store.shell("-ls", f"{place.uri.removeprefix('hdfs://')}/{name}").endswith(f"{name}\n")


def test_a_place_has_one_name(store: Hdfs) -> None:
    name = uuid4().hex
    place = open_place(f"{store.uri.upper()}//{name}//out/")
    assert place.uri == f"{store.uri}/{name}/out"
    place.write("x", b"found")
    assert store.shell("-cat", f"/{name}/out/x") == "found"


def test_properties_reach_the_client(store: Hdfs) -> None:
    name = uuid4().hex
    open_place(f"hdfs:///{name}", {"fs.defaultFS": store.uri}).write("x", b"found")
    assert store.shell("-cat", f"/{name}/x") == "found"
    with pytest.raises(JobFileError, match="'user' is no property of a Hadoop configuration"):
        open_place(f"{store.uri}/x", {"user": "x"})


def test_what_is_wrong_is_named(store: Hdfs, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobFileError, match="no folder in the URI"):
        open_place(store.uri)
    store.shell("-mkdir", "-p", "/closed")
    store.shell("-chmod", "755", "/closed")
    with monkeypatch.context() as other:
        other.setenv("HADOOP_USER_NAME", "somebody")
        with pytest.raises(OutputError, match="writing x: permission denied") as caught:
            open_place(f"{store.uri}/closed/out").write("x", b"")
    assert caught.value.lasting and "HADOOP_USER_NAME" in caught.value.hint
    with pytest.raises(OutputError, match="the name node cannot be reached") as caught:
        open_place("hdfs://127.0.0.1:1/out").write("x", b"")
    assert not caught.value.lasting and caught.value.remote
    with pytest.raises(SourceError, match="does not exist"):
        open_source("parquet", f"{store.uri}/nowhere/x.parquet").list_files()


def test_a_quota_counts_as_a_full_disk(store: Hdfs) -> None:
    store.shell("-mkdir", "-p", "/small")
    store.admin("-setSpaceQuota", "1m", "/small")
    place = open_place(f"{store.uri}/small/out")
    with pytest.raises(OutputError, match="a quota of the folder is used up") as caught:
        place.write("x", bytes(10))
    assert caught.value.full
    # However often it is tried again, nothing that takes up room is left by it.
    assert place.list_objects(layout.STAGING) == []


def test_a_data_node_that_is_away_is_no_damage(store: Hdfs, make_place: Callable[[], OutputPlace]) -> None:
    place = make_place()
    record = stage_commit(place)
    place.publish(record, SUFFIX)
    (name,) = layout.final_names(record, SUFFIX)
    store.kill("datanode")
    try:
        with pytest.raises(OutputError, match=f"reading {name}: no data node answers") as caught:
            place.read_part_record(name)
        with place.open(name) as file, pytest.raises(OutputError, match=f"reading {name}"):
            file.read()
        with pytest.raises(OutputError, match="writing x: the data nodes take nothing"):
            place.write("x", b"x")
        assert not caught.value.lasting
    finally:
        store.start("datanode")
    assert place.read_part_record(name) is not None


@pytest.mark.parametrize("server", ["namenode", "datanode"])
def test_an_input_whose_server_is_away_may_come_back(store: Hdfs, tmp_path: Path, server: str) -> None:
    folder = uuid4().hex
    pq.write_table(pa.table({"x": range(10)}), tmp_path / "x.parquet")
    store.shell("-mkdir", f"/{folder}")
    store.shell("-put", str(tmp_path / "x.parquet"), f"/{folder}/x.parquet")
    source = open_source("parquet", f"{store.uri}/{folder}/x.parquet")
    (file,) = source.list_files()
    store.kill(server)
    try:
        with pytest.raises(InfraError):
            source.schema(file)
    finally:
        store.start(server)
    assert source.schema(file).names == ["x"]


def test_a_job_whose_worker_and_name_node_are_killed(store: Hdfs, tmp_path: Path) -> None:
    """From HDFS to HDFS; what is there in the end is fetched and read without us."""
    folder = uuid4().hex
    job = RemoteJob(tmp_path, f"{store.uri}/{folder}", {"HADOOP_CONF_DIR": str(store.conf)})
    store.shell("-mkdir", f"/{folder}")
    store.shell("-put", str(tmp_path / "in"), f"/{folder}/in")
    job.run_while_killing("the name node", lambda: store.kill("namenode"), lambda: store.start("namenode"))
    store.shell("-get", f"/{folder}/out", str(tmp_path / "fetched"))
    job.scoring.assert_right(tmp_path / "fetched")
    assert audit(open_place(job.spec.sink.path)).proven
