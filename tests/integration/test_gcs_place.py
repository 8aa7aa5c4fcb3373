"""The output place on Google Cloud Storage, against a double of it that keeps to the documented protocol."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock
from uuid import uuid4

import pytest

from antinfer.core.ids import StagedName
from antinfer.errors import InternalError, JobFileError, OutputError
from antinfer.storage import layout
from antinfer.storage.audit import audit
from antinfer.storage.place import OutputPlace, open_place
from antinfer.storage.renaming import RenamePlace
from antinfer.testing.chaos.processes import wait_until
from antinfer.testing.checks import OUTPUT_PLACE_CHECKS, SUFFIX, stage_commit
from tests.integration.remotejobs import RemoteJob

pytest.importorskip("google.cloud.storage")

from tests.integration.gcs.clients import environment_of
from tests.integration.gcs.server import GcsServer, gcs_server
from tests.integration.gcs.trouble import Rule

_AT_ONCE = 24
"""So many threads of a master may use a place."""


@pytest.fixture(scope="module")
def running() -> Iterator[GcsServer]:
    # Pages so small that every list has several.
    with gcs_server("data", page_size=3) as server:
        yield server


@pytest.fixture
def server(running: GcsServer) -> Iterator[GcsServer]:
    yield running
    running.trouble.clear()
    running.log.clear()


@pytest.fixture
def options(server: GcsServer) -> dict[str, str]:
    return {"endpoint_override": server.url.removeprefix("http://"), "scheme": "http", "anonymous": "true"}


@pytest.fixture
def make_place(options: dict[str, str]) -> Callable[[], OutputPlace]:
    uri = f"gs://data/{uuid4().hex}/out"
    return lambda: open_place(uri, options)


@pytest.fixture
def late(server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Rule:
    """The first upload into staging: the client gives up on it and repeats it, the service carries it out when it is released."""
    monkeypatch.setattr("antinfer.storage.gcs._TIMEOUT_S", (10, 0.5))
    return server.trouble.hold(method="POST", path="/staging/")


@pytest.mark.parametrize("check", OUTPUT_PLACE_CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Callable[[Callable[[], OutputPlace]], None], make_place: Callable[[], OutputPlace]) -> None:
    check(make_place)


def test_a_bucket_may_be_the_place(server: GcsServer, options: dict[str, str]) -> None:
    server.store.create_bucket("whole")
    place = open_place("gcs://whole/", options)
    record = stage_commit(place)
    place.publish(record, SUFFIX)
    assert place.uri == "gs://whole"
    assert [part.name for part in place.list_parts()] == layout.final_names(record, SUFFIX) == server.store.names("whole")


def test_a_neighbour_with_a_like_name_is_left_alone(options: dict[str, str]) -> None:
    folder = uuid4().hex
    place, neighbour = open_place(f"gs://data/{folder}/out", options), open_place(f"gs://data/{folder}/out2", options)
    record = stage_commit(neighbour)
    place.sweep(1 << 60, ())
    neighbour.publish(record, SUFFIX)
    assert len(neighbour.list_parts()) == 1
    assert place.list_parts() == []


def test_a_move_whose_answer_was_lost_is_no_loss(server: GcsServer, make_place: Callable[[], OutputPlace]) -> None:
    place = make_place()
    record = stage_commit(place, kinds=("record", "quarantine", "part"))
    lost = server.trouble.lose_reply(None, method="POST", path="/moveTo/", times=3)
    place.publish(record, SUFFIX)
    assert lost.hits() == 3
    assert [part.name for part in place.list_parts()] == layout.final_names(record, SUFFIX)[2:]
    assert place.list_staging() == []


def test_an_upload_that_is_done_late_neither_hinders_nor_replaces_the_one_that_was_repeated(
    server: GcsServer, late: Rule, make_place: Callable[[], OutputPlace]
) -> None:
    place = make_place()
    record = stage_commit(place)
    late.release()
    wait_until(lambda: all(entry.status for entry in server.log.matching("POST", "/staging/")), "the late upload is done", seconds=30)
    place.publish(record, SUFFIX)
    assert [part.name for part in place.list_parts()] == layout.final_names(record, SUFFIX)
    assert place.list_staging() == []


def test_an_upload_that_is_done_behind_a_sweep_is_never_published(late: Rule, make_place: Callable[[], OutputPlace]) -> None:
    """Its rows are granted anew by then, and a master that has slept through all of it would publish them once more."""
    place = make_place()
    record = stage_commit(place)
    place.sweep(2, ())
    late.release()
    wait_until(place.list_staging, "the late upload is done", seconds=30)
    with pytest.raises(InternalError, match="neither staged nor published"):
        place.publish(record, SUFFIX)
    assert place.list_parts() == []


def test_an_upload_that_is_done_behind_its_publication_does_not_deny_it(late: Rule, make_place: Callable[[], OutputPlace]) -> None:
    place = make_place()
    record = stage_commit(place)
    place.publish(record, SUFFIX)
    late.release()
    wait_until(place.list_staging, "the late upload is done", seconds=30)
    place.publish(record, SUFFIX)
    place.sweep(2, ())
    assert [part.name for part in place.list_parts()] == layout.final_names(record, SUFFIX)


def test_an_upload_whose_answer_was_lost_is_done(server: GcsServer, make_place: Callable[[], OutputPlace]) -> None:
    place = make_place()
    lost = server.trouble.lose_reply(None, method="POST", path="/staging/")
    record = stage_commit(place)
    assert lost.hits() == 1
    place.publish(record, SUFFIX)
    assert [part.name for part in place.list_parts()] == layout.final_names(record, SUFFIX)


def test_a_claim_whose_answer_was_lost_is_ours(server: GcsServer, make_place: Callable[[], OutputPlace]) -> None:
    place, other = make_place(), make_place()
    lost = server.trouble.lose_reply(None, method="POST", path=f"/{layout.EPOCHS}/")
    assert place.claim_epoch(1, "first")
    assert lost.hits() == 1
    assert not other.claim_epoch(1, "second")


def test_an_object_of_somebody_else_under_a_final_name_is_no_publication(make_place: Callable[[], OutputPlace]) -> None:
    place = make_place()
    first, second = stage_commit(place), stage_commit(place)
    place.publish(first, SUFFIX)
    with pytest.raises(InternalError, match=f"exists already, but {second.staged} is still staged"):
        place.publish(second, SUFFIX)
    place.collect((second.staged,))
    with pytest.raises(InternalError, match=f"was published from {first.staged}"):
        place.publish(second, SUFFIX)


def test_a_rename_whose_answer_was_lost_proves_the_place_as_well(server: GcsServer, make_place: Callable[[], OutputPlace]) -> None:
    lost = server.trouble.lose_reply(None, method="POST", path="/moveTo/")
    place = make_place()
    place.check_writable()
    assert lost.hits() == 1
    assert place.list_objects("") == []


def test_a_busy_service_is_asked_again(server: GcsServer, make_place: Callable[[], OutputPlace]) -> None:
    place = make_place()
    busy = server.trouble.fail(503, times=2)
    place.write("x", b"data")
    assert place.read("x") == b"data"
    assert busy.hits() == 2


def test_what_is_wrong_is_named(server: GcsServer, options: dict[str, str], make_place: Callable[[], OutputPlace]) -> None:
    place = make_place()
    with pytest.raises(OutputError, match="writing x: the bucket does not exist") as caught:
        open_place("gs://nowhere/out", options).write("x", b"")
    assert caught.value.lasting and caught.value.remote
    refused = server.trouble.refuse_writes()
    with pytest.raises(OutputError, match="writing x: access denied") as caught:
        place.write("x", b"")
    assert caught.value.lasting and "Storage Object User" in caught.value.hint
    refused.release()
    place.check_writable()


def test_a_bucket_that_is_not_there_is_no_empty_one(options: dict[str, str], make_place: Callable[[], OutputPlace]) -> None:
    place = open_place("gs://nowhere/out", options)
    for ask in (
        lambda: place.read("x"),
        lambda: place.open("x"),
        lambda: place.remove(("x",)),
        lambda: place.publish(stage_commit(make_place()), SUFFIX),
    ):
        with pytest.raises(OutputError, match="the bucket does not exist"):
            ask()
    with pytest.raises(JobFileError, match="no bucket"):
        open_place("gs:///out", options)


@pytest.mark.parametrize("status", [404, 410])
def test_an_upload_that_the_service_has_forgotten_is_begun_again(
    server: GcsServer, make_place: Callable[[], OutputPlace], tmp_path: Path, status: int
) -> None:
    place, source = make_place(), tmp_path / "large"
    source.write_bytes(os.urandom(9 << 20))
    staged = StagedName("1-1.0.0-10.abcd")
    server.trouble.fail(status, method="PUT")
    with pytest.raises(OutputError, match=f"staging {staged}") as caught:
        place.stage(staged, "part", "x", str(source))
    assert not caught.value.lasting
    place.stage(staged, "part", "x", str(source))
    assert place.list_staging() == [staged]


def test_what_is_damaged_on_its_way_is_trouble_that_passes(make_place: Callable[[], OutputPlace], monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_place()
    place.write("x", bytes(10))
    with monkeypatch.context() as damage:
        damage.setattr("google.cloud.storage._media._helpers.prepare_checksum_digest", lambda digest: "AAAAAA==")
        with pytest.raises(OutputError, match="reading x") as caught:
            place.read("x")
    assert not caught.value.lasting and caught.value.remote


def test_a_file_that_the_store_misses_is_no_local_one(
    make_place: Callable[[], OutputPlace], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A name node says so of a file that was swept while it was written."""
    place, source = make_place(), tmp_path / "part"
    source.write_bytes(b"x")
    with monkeypatch.context() as swept:
        swept.setattr("antinfer.storage.gcs.GcsFiles.send", Mock(side_effect=FileNotFoundError("File does not exist: /x")))
        with pytest.raises(OutputError, match="File does not exist") as caught:
            place.stage(StagedName("1-1.0.0-10.abcd"), "part", "x", str(source))
    assert not caught.value.lasting
    source.unlink()
    with pytest.raises(OutputError, match=r"its local file .* is gone") as caught:
        place.stage(StagedName("1-1.0.0-10.abcd"), "part", "x", str(source))
    assert caught.value.lasting


def test_nothing_is_said_on_standard_error(
    server: GcsServer, make_place: Callable[[], OutputPlace], caplog: pytest.LogCaptureFixture
) -> None:
    command = [sys.executable, "-c", "from antinfer.storage.place import open_place; open_place('gs://data/out')"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""
    place = make_place()
    together = server.trouble.hold(method="GET", times=_AT_ONCE)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = [pool.submit(place.read, "x") for _ in range(_AT_ONCE)]
        together.await_arrival(_AT_ONCE)
        together.release()
        assert [each.result() for each in found] == [None] * _AT_ONCE
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_service_that_is_away_is_no_lasting_trouble(options: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    place = open_place("gs://data/out", {**options, "endpoint_override": "127.0.0.1:1"})
    assert isinstance(place, RenamePlace)
    monkeypatch.setattr("antinfer.storage.gcs._RETRY_S", 1.0)
    with pytest.raises(OutputError, match="the service cannot be reached") as caught:
        place.write("x", b"")
    assert not caught.value.lasting and caught.value.remote


def test_trouble_behind_an_open_file_is_the_place_s_and_no_damage(
    server: GcsServer, make_place: Callable[[], OutputPlace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads waits for a place that is away; a part that seems damaged instead would be thought of as nobody's."""
    monkeypatch.setattr("antinfer.storage.gcs._RETRY_S", 1.0)
    place = make_place()
    record = stage_commit(place)
    place.publish(record, SUFFIX)
    (name,) = layout.final_names(record, SUFFIX)
    away = server.trouble.fail(None, path="alt=media", times=None)
    with place.open(name) as file, pytest.raises(OutputError, match=f"reading {name}") as caught:
        file.read()
    assert not caught.value.lasting
    with pytest.raises(OutputError, match=f"reading {name}"):
        place.read_part_record(name)
    away.release()
    with place.open(name) as file:
        place.write(name, b"other")
        with pytest.raises(OutputError, match="is gone, or another one now") as caught:
            file.read()
    assert not caught.value.lasting


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("from_environment", [False, True], ids=["options", "environment"])
def test_a_job_whose_worker_is_killed(
    server: GcsServer, options: dict[str, str], tmp_path: Path, from_environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Cloud Storage to Cloud Storage, some answers lost on the way; what is there in the end is read without us."""
    folder = uuid4().hex
    variables = environment_of(server.url) if from_environment else {}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    job = RemoteJob(tmp_path, f"gs://data/{folder}", variables, {"anonymous": True} if from_environment else options)
    for file in sorted((tmp_path / "in").iterdir()):
        server.store.insert("data", f"{folder}/in/{file.name}", file.read_bytes())
    lost = server.trouble.lose_reply(None, method="POST", path=f"{folder}/out/part-", times=3)
    with job.running() as cluster:
        master = cluster.master()
        first = cluster.worker("first")
        cluster.wait_for_rows(200)
        cluster.fault("kill -9 of a worker", first.kill)
        cluster.finish(cluster.worker("second"), master)
    assert lost.hits() == 3
    for name in server.store.names("data"):
        if name.startswith(f"{folder}/out/"):
            assert "/staging/" not in name
            local = tmp_path / "fetched" / name.removeprefix(f"{folder}/out/")
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(server.store.get("data", name).data)
    job.scoring.assert_right(tmp_path / "fetched")
    assert audit(open_place(f"gs://data/{folder}/out", {"anonymous": "true"} if from_environment else options)).proven
