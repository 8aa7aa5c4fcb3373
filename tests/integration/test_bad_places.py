"""Bad outputs, stores, addresses and job files through the real command line: a clear error with the way out, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from antinfer.testing.chaos.servers import ValkeyServer, valkey
from tests.integration.commands import (
    ROWS,
    JobFolder,
    antinfer,
    antinfer_bound,
    check_mended,
    interrupt_half_way,
    kill,
    run,
    start,
    wait_until,
)

EVERY_ID = list(range(ROWS))


# -- the output ------------------------------------------------------------------------------------------------------------------------


def test_output_below_a_file(tmp_path):
    job = JobFolder(tmp_path / "job", sink="{type: parquet, path: steps.py/output}")

    run(job).check_failure(1, "steps.py", "a file, not a folder", "hint: Choose another output")


def test_output_in_a_folder_that_is_not_ours(tmp_path):
    job = JobFolder(tmp_path / "job")
    job.output.mkdir(mode=0o555)

    antinfer_bound("run", job.folder).check_failure(1, str(job.output), "permission denied", "hint: Give this user write permission there")

    job.output.chmod(0o755)
    check_mended(job)


def test_output_on_a_read_only_file_system(tmp_path):
    job = JobFolder(tmp_path / "job", sink="{type: parquet, path: /proc/antinfer-output}")

    run(job).check_failure(1, "/proc/antinfer-output", "hint: ")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_full_disk_stops_the_job_when_patience_is_over_and_more_room_lets_it_go_on(tmp_path):
    # Not below tmp_path: what pytest removes later must not be a mount.
    room = tempfile.mkdtemp(prefix="antinfer-full-")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", room], capture_output=True, check=False).returncode:
        os.rmdir(room)
        pytest.skip("this machine lets nobody mount")
    try:
        job = JobFolder(tmp_path / "job", "steps:Wide", sink=f"{{type: parquet, path: {room}/output}}", patience="1s")
        job.steps.write_text(
            "import numpy as np\n"
            "class Wide:\n"
            "    def __call__(self, batch):\n"
            "        return {'y': np.random.default_rng(int(batch['id'][0])).random((len(batch['x']), 500))}\n"
        )

        run(job).check_failure(1, "output", "no space left", "hint: Free some space")

        subprocess.run(["mount", "-o", "remount,size=40m", room], check=True)
        job.output = Path(room) / "output"
        check_mended(job)
    finally:
        subprocess.run(["umount", "-l", room], check=True)
        os.rmdir(room)


def test_output_of_another_job_stays_as_it_is(tmp_path):
    first = JobFolder(tmp_path / "first")
    assert run(first).code == 0
    before = listing(first.output)
    other = JobFolder(tmp_path / "other", "steps:Raises", sink=f"{{type: parquet, path: {first.output}}}")

    run(other).check_failure(1, str(first.output), "another job", "hint: Choose another sink.path")

    assert listing(first.output) == before


def test_output_with_results_that_nobody_knows(tmp_path):
    job = JobFolder(tmp_path / "job")
    job.output.mkdir()
    stranger = job.output / "part-00000000-000000000000-000000000100.parquet"
    stranger.write_bytes(b"somebody's")

    run(job).check_failure(1, str(job.output), "hint: Choose an empty or a new folder")

    assert stranger.read_bytes() == b"somebody's"


def test_too_many_parts_to_expect(tmp_path):
    job = JobFolder(tmp_path / "job", source="{type: text, path: lines.txt}", carryover="[text]", shard="{bytes: 1}")
    (job.folder / "lines.txt").write_text("ab\n" * 67_000)

    planned = antinfer("plan", job.folder)
    planned.check_failure(2, "more than 200,000", "hint: Make shards larger")
    assert "parts" in planned.out
    run(job).check_failure(2, "more than 200,000 parts", "hint: Make shards larger", "--force")


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- changes between two runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    job = JobFolder(tmp_path_factory.mktemp("half") / "job", "steps:Slow", commit_interval="0.1s")
    interrupt_half_way(job)
    assert job.committed() > 0
    return job


def test_changed_job_file_at_resume_is_explained(half_done):
    before = listing(half_done.output)
    half_done.edit("carryover: [id]", "carryover: [id, x]")
    try:
        run(half_done).check_failure(1, 'carryover was ["id"], is now ["id", "x"]', "hint: Results of both would be mixed. Undo the change")
    finally:
        half_done.edit("carryover: [id, x]", "carryover: [id]")

    assert listing(half_done.output) == before


def test_changed_user_code_at_resume_is_explained_and_the_old_code_resumes(half_done):
    before = listing(half_done.output)
    half_done.edit("* 2", "* 3", half_done.steps)
    run(half_done).check_failure(1, "steps.py was changed", "--force")
    assert listing(half_done.output) == before

    half_done.edit("* 3", "* 2", half_done.steps)
    check_mended(half_done)


# -- the store -------------------------------------------------------------------------------------------------------------------------


def test_store_that_is_not_there(tmp_path):
    job = JobFolder(tmp_path / "job")

    run(job, "--store", "redis://127.0.0.1:1/0").check_failure(1, "redis://127.0.0.1:1/0", "cannot be reached", "hint: Check host and port")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "must start with redis://"),
        ("redis://localhost:abc/0", "a port from 1 to 65535"),
        ("redis://localhost:70000/0", "a port from 1 to 65535"),
        ("rediss://:secret@localhost:6379/jobs", "the number of a database, not with 'jobs'"),
    ],
)
def test_store_url_that_makes_no_sense(tmp_path, url, said):
    job = JobFolder(tmp_path / "job")

    ended = run(job, "--store", url)

    ended.check_failure(2, said)
    assert "secret" not in ended.err


def test_store_that_wants_another_password_which_is_not_shown(tmp_path):
    job = JobFolder(tmp_path / "job")
    with valkey(tmp_path / "store", requirepass="right") as server:
        url = f"redis://:wrongsecret@127.0.0.1:{server.port}/0"

        ended = run(job, "--store", url)

    ended.check_failure(1, f"127.0.0.1:{server.port}", "refuses our user or password", "hint: Write them into the URL")
    assert "wrongsecret" not in ended.err + ended.out


@pytest.mark.slow
def test_store_that_is_a_read_only_replica(tmp_path):
    job = JobFolder(tmp_path / "job")
    with valkey(tmp_path / "primary") as primary, valkey(tmp_path / "replica", replicaof=f"127.0.0.1;{primary.port}") as replica:
        ended = run(job, "--store", replica.url)

    ended.check_failure(1, replica.url, "read-only", "hint: Give the address of the primary")


@pytest.mark.slow
def test_store_without_memory(tmp_path):
    job = JobFolder(tmp_path / "job")
    settings = {"maxmemory": "1", "maxmemory-policy": "noeviction"}
    with valkey(tmp_path / "store", **settings) as server:
        ended = run(job, "--store", server.url)
        ended.check_failure(1, server.url, "out of memory", "hint: Raise its maxmemory")

        give_memory(server)
        assert run(job, "--store", server.url).code == 0
    assert job.ids() == EVERY_ID


def give_memory(server: ValkeyServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"CONFIG SET maxmemory 0\r\n")
        assert connection.recv(100) == b"+OK\r\n"


# -- addresses and tokens --------------------------------------------------------------------------------------------------------------


def test_port_in_use(tmp_path):
    job = JobFolder(tmp_path / "job")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        ended = antinfer("master", job.folder, "--listen", address)

    ended.check_failure(2, f"cannot listen on {address}", "hint: Is the port in use")


def test_wrong_token(tmp_path):
    job = JobFolder(tmp_path / "job")
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("one\n")
    wrong.write_text("two\n")
    place = tempfile.mkdtemp(prefix="antinfer-")
    address = f"unix://{place}/m"
    master = start("master", job.folder, "--listen", address, "--token-file", right)
    try:
        wait_until(lambda: (job.output / "_antinfer/master").exists())
        for refused in (
            antinfer("worker", "--master", address, "--token-file", wrong),
            antinfer("worker", "--master", address),
            antinfer("status", address, "--token-file", wrong),
        ):
            assert refused.code == 1
            assert "refuses our token" in refused.err and "--token-file" in refused.err
            assert "Traceback" not in refused.err
    finally:
        kill(master)
        shutil.rmtree(place)


def test_token_file_that_is_missing(tmp_path):
    antinfer("worker", "--master", "127.0.0.1:1", "--token-file", tmp_path / "nothing").check_failure(2, "nothing", "token file")


# -- the job file and the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("carryover:", "carry_over:", ("job.yaml:3", "carry_over: unknown key", "did you mean 'carryover'?", "allowed: name, source")),
        ("type: parquet, path: data/", "type: parkett, path: data/", ("source.type", "must be one of parquet, csv", "'parkett'")),
        ("batch_size: 100", "batch_size: many", ("pipeline.0.batch_size", "many")),
        ("source: {", "source: [", ("job.yaml:1",)),
        ("sink: {type: parquet, path: output}", "", ("sink", "is missing")),
    ],
    ids=["key", "value", "type", "yaml", "missing"],
)
def test_typo_in_the_job_file(tmp_path, old, new, said):
    job = JobFolder(tmp_path / "job")
    job.edit(old, new)

    run(job).check_failure(2, *said)

    assert not job.output.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "nowhere.yaml"), "no job file nowhere.yaml"),
        (("run", "--set", "pipeline.9.batch_size=1", "job"), "pipeline"),
        (("runn", "job"), "No such command 'runn'"),
        (("run", "--wrokers", "2", "job"), "No such option: --wrokers"),
        (("resume", "job"), "holds no job"),
        (("status", "nonsense"), "not a master address"),
        (("worker", "--master", "nonsense"), "not a master address"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_wrong_usage(tmp_path, arguments, said):
    JobFolder(tmp_path / "job")

    ended = antinfer(*arguments, cwd=tmp_path)

    assert ended.code == 2, ended
    assert said in ended.err
    assert "Traceback" not in ended.err
