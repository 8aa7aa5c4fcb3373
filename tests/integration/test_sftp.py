"""Input and output through fsspec on a real SFTP server, and what that server and fsspec's driver for it take too lightly."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSelector, FileType

from antinfer.core.ids import StagedName
from antinfer.errors import JobFileError, OutputError
from antinfer.storage.audit import audit
from antinfer.storage.filesystems import resolve
from antinfer.storage.place import OutputPlace, open_place
from antinfer.storage.sources import open_source
from antinfer.testing.chaos.processes import wait_until
from antinfer.testing.checks import OUTPUT_PLACE_CHECKS
from tests.integration.remotejobs import RemoteJob

pytest.importorskip("paramiko")
pytest.importorskip("asyncssh")

from antinfer.storage import sftp
from tests.integration.sftp import OPTIONS, SftpServer, sftp_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    with sftp_server(tmp_path_factory.mktemp("sftp") / "root") as running:
        yield running


@pytest.fixture
def make_place(server: SftpServer) -> Callable[[], OutputPlace]:
    uri = f"{server.uri}/{uuid4().hex}/out"
    return lambda: open_place(uri, OPTIONS)


def _connections() -> int:
    return sum(type(thread).__name__ == "Transport" for thread in threading.enumerate())


@pytest.mark.parametrize("check", OUTPUT_PLACE_CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Callable[[Callable[[], OutputPlace]], None], make_place: Callable[[], OutputPlace]) -> None:
    check(make_place)


def test_who_dies_while_he_claims_an_epoch_leaves_it_to_nobody(server: SftpServer, make_place: Callable[[], OutputPlace]) -> None:
    place = make_place()
    assert place.claim_epoch(1, "first")
    (server.folder / place.uri.removeprefix(server.uri).strip("/") / "_antinfer/epochs/2.taken").mkdir()
    highest = place.highest_epoch()
    assert highest is not None and (highest.epoch, highest.owner) == (2, "")
    assert not place.claim_epoch(2, "late")
    assert place.claim_epoch(3, "next")


def test_a_file_is_read_by_many_threads(server: SftpServer) -> None:
    (server.folder / "in").mkdir()
    for index in range(4):
        pq.write_table(pa.table({"n": range(index * 50_000, (index + 1) * 50_000)}), server.folder / f"in/f{index}.parquet")
    filesystem, path = resolve(f"{server.uri}/in", OPTIONS)

    def total(index: int) -> int:
        return sum(pq.read_table(f"{path}/f{index % 4}.parquet", filesystem=filesystem).column("n").to_pylist())

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(total, range(32))) == 8 * sum(range(200_000))


def test_a_folder_that_cannot_be_listed_is_not_left_out(server: SftpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.sftp import SFTPFileSystem

    (server.folder / "tree/good").mkdir(parents=True)
    (server.folder / "tree/bad").mkdir()
    filesystem, path = resolve(f"{server.uri}/tree", OPTIONS)
    assert sorted(info.base_name for info in filesystem.get_file_info(FileSelector(path, recursive=True))) == ["bad", "good"]
    listed = SFTPFileSystem.ls

    def fails(self: SFTPFileSystem, path: str, detail: bool = False) -> object:
        if path.endswith("/bad"):
            raise OSError("Failure")
        return listed(self, path, detail)

    monkeypatch.setattr(SFTPFileSystem, "ls", fails)
    with pytest.raises(ConnectionError, match="does not say why"):
        filesystem.get_file_info(FileSelector(path, recursive=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"password": "wrong"}, "does not accept the credentials"), ({"port": 1}, "the server cannot be reached")],
)
def test_what_keeps_one_out_is_told(server: SftpServer, changes: dict[str, str | int], said: str) -> None:
    place = open_place("sftp://127.0.0.1/out" if "port" in changes else f"{server.uri}/out", {**OPTIONS, **changes})
    with pytest.raises(OutputError, match=said) as failed:
        place.check_writable()
    assert failed.value.remote and failed.value.lasting == ("password" in changes)


def test_no_password_in_the_uri(server: SftpServer) -> None:
    with pytest.raises(JobFileError, match="told in every message") as failed:
        open_place("sftp://tester:s3cr3t@127.0.0.1/out")
    assert "s3cr3t" not in failed.value.text


def test_a_server_that_comes_back_is_connected_to_again(server: SftpServer, make_place: Callable[[], OutputPlace]) -> None:
    place = make_place()
    place.write("_antinfer/job", b"before")
    server.kill()
    with pytest.raises(OutputError, match="reading _antinfer/job"):
        place.read("_antinfer/job")
    with pytest.raises(OutputError, match="cannot be reached"):
        place.read("_antinfer/job")
    server.start()
    assert place.read("_antinfer/job") == b"before"


@pytest.mark.parametrize("size", [0, 1, 1 << 15, (1 << 15) + 1, 300_000])
def test_a_staged_file_arrives_whole(server: SftpServer, make_place: Callable[[], OutputPlace], size: int) -> None:
    place = make_place()
    data = bytes(range(251)) * (size // 251 + 1)
    source = Path(place.local_spool(), "part")
    source.write_bytes(data[:size])
    place.stage(StagedName("1-1.0.0-10.ab"), "part", "", str(source))
    assert place.read("_antinfer/staging/1-1.0.0-10.ab.part") == data[:size]


def test_a_write_that_failed_leaves_no_hole(server: SftpServer, make_place: Callable[[], OutputPlace]) -> None:
    place = make_place()
    source = Path(place.local_spool(), "part")
    source.write_bytes(b"x" * 300_000)
    server.fail_a_write()
    with pytest.raises(OutputError, match="does not say why"):
        place.stage(StagedName("1-1.0.0-10.ab"), "part", "", str(source))
    assert place.list_objects("staging") == []
    place.stage(StagedName("1-1.0.0-10.ab"), "part", "", str(source))
    assert place.read("_antinfer/staging/1-1.0.0-10.ab.part") == b"x" * 300_000


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp, "_CONNECT_S", 2.0)
    with sftp_server(tmp_path / "root") as silent:
        silent.fall_silent()
        with pytest.raises(OutputError, match="the server does not answer"):
            open_place(f"{silent.uri}/out", OPTIONS).read("_antinfer/job")


def test_what_is_raised_is_not_logged_as_well(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = open_place(f"sftp://127.0.0.1:{listening.getsockname()[1]}/out", {**OPTIONS, "banner_timeout": 0.5})
        with pytest.raises(OutputError):
            place.read("_antinfer/job")
    assert caplog.records == []


def test_what_fails_leaves_no_connection_open(server: SftpServer, make_place: Callable[[], OutputPlace]) -> None:
    gc.collect()
    place = make_place()
    place.write("_antinfer/job", b"")
    before = _connections()
    for _ in range(5):
        with pytest.raises(OutputError):
            place.read("_antinfer")
    wait_until(lambda: _connections() < before, "what failed is closed", seconds=10)


def test_what_nobody_has_any_more_leaves_no_connection_open(make_place: Callable[[], OutputPlace]) -> None:
    gc.collect()
    place = make_place()
    place.write("_antinfer/job", b"")
    before = _connections()
    del place
    gc.collect()
    wait_until(lambda: _connections() < before, "what is dropped is closed", seconds=10)
    assert _connections() == before - 1


def test_a_connection_that_the_server_has_closed_is_not_used_again(tmp_path: Path) -> None:
    with sftp_server(tmp_path / "root") as restarted:
        place = open_place(f"{restarted.uri}/out", OPTIONS)
        gc.collect()
        before = _connections()
        place.write("_antinfer/job", b"kept")
        restarted.kill()
        restarted.start()
        assert place.read("_antinfer/job") == b"kept"
        wait_until(lambda: _connections() == before + 1, "what is closed is given up", seconds=10)


def test_folders_are_made_by_several_at_once(server: SftpServer) -> None:
    for _ in range(5):
        uri = f"{server.uri}/{uuid4().hex}/a/b/c/out"
        places = [open_place(uri, OPTIONS) for _ in range(6)]
        for place in places:
            assert place.read("_antinfer/job") is None
        with ThreadPoolExecutor(len(places)) as pool:
            list(pool.map(lambda place: place.write("_antinfer/job", b"x"), places))
        assert [place.read("_antinfer/job") for place in places] == [b"x"] * len(places)


def test_a_folder_that_somebody_has_removed_is_made_again(server: SftpServer, make_place: Callable[[], OutputPlace]) -> None:
    place = make_place()
    place.write("_antinfer/job", b"")
    assert place.claim_epoch(1, "first")
    for folder in ("staging", "epochs"):
        root = server.folder / place.uri.removeprefix(server.uri).strip("/") / "_antinfer" / folder
        for name in root.iterdir():
            name.rmdir() if name.is_dir() else name.unlink()
        root.rmdir()
    with pytest.raises(OutputError, match="is gone"):
        place.claim_epoch(2, "second")
    assert place.claim_epoch(2, "second")


def test_a_file_in_the_way_is_told(server: SftpServer) -> None:
    (server.folder / "file").touch()
    with pytest.raises(OutputError, match="a part of the path is a file"):
        open_place(f"{server.uri}/file/out", OPTIONS).check_writable()


def test_links_are_followed_as_on_a_disk(server: SftpServer) -> None:
    root = server.folder / "links"
    (root / "folder").mkdir(parents=True)
    for name in ("file", "folder/below"):
        (root / name).write_text("{}\n")
    (root / "link").symlink_to("file")
    (root / "linked").symlink_to("folder")
    (root / "broken").symlink_to("nothing")
    filesystem, path = resolve(f"{server.uri}/links", OPTIONS)
    found = {info.path.removeprefix(f"{path}/"): info for info in filesystem.get_file_info(FileSelector(path, recursive=True))}
    assert {name for name, info in found.items() if info.type == FileType.File} == {"file", "link", "folder/below", "linked/below"}
    assert found["link"].size == 3


def test_a_pattern_may_hold_a_question_mark(server: SftpServer) -> None:
    (server.folder / "marks").mkdir()
    for name in ("a1", "a2", "a", "a?", "a#1"):
        (server.folder / "marks" / f"{name}.jsonl").write_text("{}\n")

    def names(pattern: str) -> list[str]:
        source = open_source("jsonl", f"{server.uri}/marks/{pattern}", options={"storage": OPTIONS})
        return [file.path.rpartition("/")[2] for file in source.list_files()]

    assert names("a?.jsonl") == ["a?.jsonl"]
    assert names("a?.json*") == ["a1.jsonl", "a2.jsonl", "a?.jsonl"]
    assert names("a#1.jsonl") == ["a#1.jsonl"]


def test_known_hosts_are_known(server: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import paramiko

    monkeypatch.setenv("HOME", str(tmp_path))
    known = tmp_path / ".ssh/known_hosts"
    known.parent.mkdir()
    strict = open_place(f"{server.uri}/known/out", {**OPTIONS, "host_key_policy": "reject"})
    with pytest.raises(OutputError, match="not found in known_hosts"):
        strict.read("_antinfer/job")
    with paramiko.Transport(("127.0.0.1", server.port)) as transport:
        transport.start_client(timeout=10)
        key = transport.get_remote_server_key()
    known.write_text(f"[127.0.0.1]:{server.port} {key.get_name()} {key.get_base64()}\n")
    assert strict.read("_antinfer/job") is None
    other = paramiko.ECDSAKey.generate()
    known.write_text(f"[127.0.0.1]:{server.port} {other.get_name()} {other.get_base64()}\n")
    with pytest.raises(OutputError, match="is not the one that is known"):
        open_place(f"{server.uri}/known/out", OPTIONS).read("_antinfer/job")


@pytest.mark.parametrize("uri", ["sftp:///no/host", "sftp://host:port/out"])
def test_a_server_that_is_none_is_told_at_once(uri: str) -> None:
    for opened in (open_place, resolve):
        with pytest.raises(JobFileError, match="host or port is missing"):
            opened(uri, OPTIONS)


def test_no_password_in_the_uri_of_a_source() -> None:
    with pytest.raises(JobFileError, match="told in every message") as failed:
        open_source("jsonl", "sftp://tester:s3cr3t@127.0.0.1/in").list_files()
    assert "s3cr3t" not in failed.value.text


def test_a_job_lives_through_the_death_of_its_worker_and_of_the_server(server: SftpServer, tmp_path: Path) -> None:
    folder = uuid4().hex
    (server.folder / folder).mkdir()
    job = RemoteJob(tmp_path, f"{server.uri}/{folder}", {}, OPTIONS)
    (tmp_path / "in").rename(server.folder / folder / "in")
    job.run_while_killing("the server", server.kill, server.start)
    job.scoring.assert_right(server.folder / folder / "out")
    assert audit(open_place(job.spec.sink.path, OPTIONS)).proven
