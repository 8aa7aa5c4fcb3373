"""Input and output through fsspec, on a real SFTP server."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.errors import JobFileError, OutputError
from antinfer.storage.audit import audit
from antinfer.storage.filesystems import resolve
from antinfer.storage.place import OutputPlace, open_place
from antinfer.testing.chaos.processes import wait_until
from antinfer.testing.checks import OUTPUT_PLACE_CHECKS
from tests.integration.remotejobs import RemoteJob

pytest.importorskip("paramiko")
pytest.importorskip("asyncssh")

from tests.integration.sftp import OPTIONS, SftpServer, sftp_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    with sftp_server(tmp_path_factory.mktemp("sftp") / "root") as running:
        yield running


@pytest.fixture
def make_place(server: SftpServer) -> Callable[[], OutputPlace]:
    uri = f"{server.uri}/{uuid4().hex}/out"
    return lambda: open_place(uri, OPTIONS)


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
    from pyarrow.fs import FileSelector

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


def test_a_job_lives_through_the_death_of_its_worker_and_of_the_server(server: SftpServer, tmp_path: Path) -> None:
    folder = uuid4().hex
    (server.folder / folder).mkdir()
    with tempfile.TemporaryDirectory(prefix="ai-") as logs:
        job = RemoteJob(tmp_path, Path(logs), f"{server.uri}/{folder}", {}, OPTIONS)
        (tmp_path / "in").rename(server.folder / folder / "in")
        with job.running() as cluster:
            master = cluster.master()
            first = cluster.worker("first")
            cluster.wait_for_rows(200)
            cluster.fault("kill -9 of a worker", first.kill)
            second = cluster.worker("second")
            cluster.wait_for_rows(500)
            cluster.fault("kill -9 of the server", server.kill)
            wait_until(lambda: "the server cannot be reached" in master.log + second.log, "somebody misses the server", seconds=60)
            server.start()
            cluster.finish(second, master)
    job.scoring.assert_right(server.folder / folder / "out")
    assert audit(open_place(job.spec.sink.path, OPTIONS)).proven
