"""A real master process, real gRPC, a real Valkey; workers are scripted. Whatever dies, every row is there once."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.core.messages import Verdict
from antinfer.errors import MasterError, UsageError
from antinfer.rpc.client import AdminClient, WorkClient
from antinfer.rpc.values import GivenBack
from antinfer.spec.schema import JobSpec
from antinfer.storage import manifest
from antinfer.storage.jobs import open_output
from antinfer.testing.chaos.servers import ValkeyServer, valkey
from tests.integration.masters import MasterProcess, make_job, read_back
from tests.integration.scripted import ScriptedWorker

Start = Callable[..., MasterProcess]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Start]:
    """Make masters that are gone when the test is over."""
    made: list[MasterProcess] = []

    def launch(spec: JobSpec, *arguments: str, name: str = "master") -> MasterProcess:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        made.append(MasterProcess(spec, folder, *arguments))
        return made[-1]

    yield launch
    for master in made:
        master.clean_up()


def crew(address: str, seed: int, size: int = 3, **options: object) -> list[ScriptedWorker]:
    return [ScriptedWorker(address, f"w{index}", seed + index, **options).start() for index in range(size)]  # type: ignore[arg-type]


def join_all(workers: list[ScriptedWorker]) -> None:
    try:
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.stop()


def begin(master: MasterProcess, spec: JobSpec, seed: int) -> None:
    """Run the job until something is published, then stop it."""
    workers = crew(master.start(), seed, size=1, pause_s=0.3)
    deadline = time.monotonic() + 20
    while not read_back(spec):
        assert time.monotonic() < deadline, master.log
        time.sleep(0.02)
    for worker in workers:
        worker.stop()
    assert master.end() == 130


def assert_complete(spec: JobSpec, rows: int) -> None:
    assert read_back(spec) == list(range(rows))
    place = open_output(spec)
    records = manifest.read_all(place)
    assert manifest.totals(records).rows == rows
    assert manifest.audit_parts(place, "parquet") == ()
    report = json.loads((Path(spec.sink.path) / "_antinfer" / "report").read_text())
    assert (report["rows_in"], report["rows_out"], report["rows_quarantined"]) == (rows, rows, 0)
    assert (Path(spec.sink.path) / "_SUCCESS").exists()


def test_a_job_runs_to_its_end_and_is_not_run_twice(tmp_path: Path, launch: Start, seed: int) -> None:
    spec = make_job(tmp_path)
    master = launch(spec)
    workers = crew(master.start(), seed)
    join_all(workers)
    assert master.wait() == 0, master.log
    assert [worker.verdict for worker in workers] == [Verdict.DONE] * 3
    assert_complete(spec, 2000)
    assert not (Path(spec.sink.path) / "_antinfer" / "state").exists()
    assert master.start() == ""
    assert master.wait() == 0
    assert "is complete already" in master.log


def test_a_data_set_without_rows_is_a_complete_empty_output(tmp_path: Path, launch: Start) -> None:
    spec = make_job(tmp_path, files=2, rows=0)
    master = launch(spec)
    master.start()
    assert master.wait() == 0, master.log
    assert_complete(spec, 0)


def test_text_of_unknown_size_is_sized_by_workers(tmp_path: Path, launch: Start, seed: int) -> None:
    for index in range(3):
        path = tmp_path / "lines" / f"f{index}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f'{{"n": {index * 100 + n}}}\n' for n in range(100)))
    spec = make_job(tmp_path, source={"type": "jsonl", "path": str(tmp_path / "lines")}, shard={})
    master = launch(spec)
    join_all(crew(master.start(), seed))
    assert master.wait() == 0, master.log
    assert_complete(spec, 300)


@pytest.mark.slow
@pytest.mark.parametrize("store", ["embedded", "external"])
def test_killed_at_random_instants_it_goes_on(tmp_path: Path, launch: Start, seed: int, store: str) -> None:
    chance = random.Random(seed)
    spec = make_job(tmp_path, files=10, rows=1000, shard={"rows": 50})
    address = f"unix://{tmp_path}/master.sock"
    server = ValkeyServer(tmp_path / "valkey")
    if store == "external":
        server.start()
    try:
        master = launch(spec, "--listen", address, *(("--store", server.url) if store == "external" else ()))
        master.start()
        workers = crew(address, seed, pause_s=0.1)
        kills = 0
        while any(worker._thread.is_alive() for worker in workers) and kills < 6:
            time.sleep(chance.uniform(0.05, 0.7))
            if master.process is not None and master.process.poll() is None:
                master.kill()
                kills += 1
                master.start()
        join_all(workers)
        assert master.wait() == 0, master.log
    finally:
        server.kill()
    assert kills >= 3, "the job was over before it could be disturbed"
    assert sum(worker.reconnects for worker in workers) > 0
    assert_complete(spec, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["restart", "wipe"])
def test_a_store_that_restarts_or_forgets_begins_a_new_reign_in_the_same_process(
    tmp_path: Path, launch: Start, seed: int, what: str
) -> None:
    chance = random.Random(seed)
    spec = make_job(tmp_path, files=10, rows=1000, shard={"rows": 50})
    with valkey(tmp_path / "valkey") as server:
        master = launch(spec, "--store", server.url)
        workers = crew(master.start(), seed, pause_s=0.05)
        for _ in range(2):
            time.sleep(chance.uniform(0.2, 0.6))
            getattr(server, what)()
        join_all(workers)
        assert master.wait() == 0, master.log
    assert master.log.count("beginning a new reign") >= 1, master.log
    assert_complete(spec, 10_000)


@pytest.mark.slow
def test_the_second_master_on_one_store_rules_and_the_first_leaves(tmp_path: Path, launch: Start, seed: int) -> None:
    spec = make_job(tmp_path, files=10, rows=1000, shard={"rows": 50})
    with valkey(tmp_path / "valkey") as server:
        first = launch(spec, "--store", server.url, name="first")
        address = first.start()
        early = crew(address, seed, patience_s=1.0, pause_s=0.5)
        time.sleep(0.3)
        second = launch(spec, "--store", server.url, name="second")
        later = second.start()
        assert first.wait() == 1
        assert "another master rules this job: epoch 2" in first.log
        for worker in early:
            worker.stop()
        join_all(crew(later, seed + 100))
        assert second.wait() == 0, second.log
    assert_complete(spec, 10_000)


@pytest.mark.slow
def test_of_two_masters_with_different_stores_only_the_later_one_rules(tmp_path: Path, launch: Start, seed: int) -> None:
    """Rule 9: the output place is what both share; the first master finds the other's claim before it publishes anything more."""
    spec = make_job(tmp_path, files=10, rows=1000, shard={"rows": 50})
    first = launch(spec, "--state-dir", str(tmp_path / "a"), name="first")
    early = crew(first.start(), seed, patience_s=1.0, pause_s=0.5)
    time.sleep(0.3)
    second = launch(spec, "--state-dir", str(tmp_path / "b"), name="second")
    later = second.start()
    assert first.wait() == 1
    assert "has claimed the output" in first.log
    for worker in early:
        worker.stop()
    join_all(crew(later, seed + 100))
    assert second.wait() == 0, second.log
    assert_complete(spec, 10_000)


def test_a_second_master_with_the_same_embedded_store_is_refused(tmp_path: Path, launch: Start) -> None:
    spec = make_job(tmp_path)
    first, second = launch(spec, name="first"), launch(spec, name="second")
    first.start()
    second.start()
    assert second.wait() == 1
    assert "another master uses the embedded store" in second.log
    assert first.process is not None
    assert first.process.poll() is None


def test_back_on_a_store_that_missed_a_reign_the_output_decides(tmp_path: Path, launch: Start, seed: int) -> None:
    """A store that knows less than the output is not trusted, though its server never stopped."""
    spec = make_job(tmp_path, files=4, rows=1000, shard={"rows": 50})
    with valkey(tmp_path / "one") as one, valkey(tmp_path / "two") as two:
        for server in (one, two):
            master = launch(spec, "--store", server.url)
            workers = crew(master.start(), seed)
            deadline = time.monotonic() + 20
            while not read_back(spec) or (server is two and sum(worker.accepted for worker in workers) < 5):
                assert time.monotonic() < deadline, master.log
                time.sleep(0.02)
            for worker in workers:
                worker.stop()
            master.kill()
        master = launch(spec, "--store", one.url)
        join_all(crew(master.start(), seed))
        assert master.wait() == 0, master.log
        master.assert_said("reign 3 begins, from the output")
    assert_complete(spec, 4000)


def test_a_published_store_answers_after_publication(tmp_path: Path, launch: Start, seed: int) -> None:
    with valkey(tmp_path / "valkey", appendonly="no") as server:
        spec = make_job(tmp_path, store={"url": server.url, "durability": "publish"})
        master = launch(spec, "--store", server.url)
        # The job document leaves the store out, so this one is run from the job file.
        master.use_job_file(spec)
        workers = crew(master.start(), seed)
        join_all(workers)
        assert master.wait() == 0, master.log
    assert_complete(spec, 2000)


def test_sigterm_ends_it_and_the_same_command_resumes(tmp_path: Path, launch: Start, seed: int) -> None:
    spec = make_job(tmp_path)
    master = launch(spec)
    master.start()
    assert master.end() == 130
    assert "the same command resumes" in master.log.lower()
    join_all(crew(master.start(), seed))
    assert master.wait() == 0, master.log
    assert_complete(spec, 2000)


def test_it_can_be_stopped_while_the_store_is_away(tmp_path: Path, launch: Start, seed: int) -> None:
    spec = make_job(tmp_path)
    server = ValkeyServer(tmp_path / "valkey")
    server.start()
    try:
        master = launch(spec, "--store", server.url)
        workers = crew(master.start(), seed, size=1, patience_s=0.5, pause_s=0.2)
        server.kill()
        deadline = time.monotonic() + 20
        while "cannot be reached" not in master.log:
            assert time.monotonic() < deadline, master.log
            time.sleep(0.02)
        assert master.end() == 130
        for worker in workers:
            worker.stop()
    finally:
        server.kill()


def test_callers_without_the_token_are_turned_away(tmp_path: Path, launch: Start, seed: int) -> None:
    (tmp_path / "token").write_text("sesame\n")
    spec = make_job(tmp_path)
    master = launch(spec, "--token-file", str(tmp_path / "token"))
    address = master.start()
    for token in ("", "wrong"):
        with WorkClient(address, token=token) as client, pytest.raises(MasterError, match="refuses our token"):
            client.get_job()
        with AdminClient(address, token=token) as admin, pytest.raises(MasterError, match="refuses our token"):
            admin.status()
        with pytest.raises(MasterError, match="refuses our token"), WorkClient(address, token=token) as client:
            list(client.work(iter(())))
    join_all(crew(address, seed, token="sesame"))
    assert master.wait() == 0, master.log


def test_status_story_drain_and_cancel(tmp_path: Path, launch: Start) -> None:
    spec = make_job(tmp_path)
    master = launch(spec)
    address = master.start()
    with WorkClient(address) as client:
        client.get_job()
        with pytest.raises(MasterError, match="not another"):
            client.get_job("another")
    with AdminClient(address) as admin:
        deadline = time.monotonic() + 10
        while not (status := admin.status()).plan_complete:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert (status.phase, status.rows_total, status.rows_committed, status.shards_planned) == ("running", 2000, 0, 8)
        assert (status.files_planned, status.files_total, status.epoch) == (4, 4, 1)
        assert admin.story(0) == []
        assert not admin.drain("nobody")
        assert admin.give_back("x", 1) == GivenBack(None, ()), "nobody has joined"
        admin.release()
        with pytest.raises(UsageError, match="names at least one worker"):
            admin.give_back("x", 0)
        admin.cancel("enough")
    assert master.wait() == 130
    assert "cancelled: enough" in master.log


def test_people_have_another_token_than_workers_where_there_is_one(tmp_path: Path, launch: Start) -> None:
    for name in ("token", "admin"):
        (tmp_path / name).write_text(f"{name}-secret\n")
    spec = make_job(tmp_path)
    master = launch(spec, "--token-file", str(tmp_path / "token"), "--admin-token-file", str(tmp_path / "admin"))
    address = master.start()
    with AdminClient(address, token="token-secret") as admin, pytest.raises(MasterError, match="refuses our token"):
        admin.cancel("as a worker")
    with WorkClient(address, token="admin-secret") as client, pytest.raises(MasterError, match="refuses our token"):
        client.get_job()
    with WorkClient(address, token="token-secret") as client:
        assert client.get_job().job
    with AdminClient(address, token="admin-secret") as admin:
        admin.cancel("as an operator")
    assert master.wait() == 130
    assert "secret" not in master.log


def test_a_network_is_not_listened_to_in_plain_text_unless_that_is_said(tmp_path: Path, launch: Start) -> None:
    spec = make_job(tmp_path)
    refused = launch(spec, "--listen", "0.0.0.0:0", name="refused")
    refused.start()
    assert refused.wait() == 2
    refused.assert_said("can be reached from other machines.*without TLS and a token")
    assert "--insecure" in refused.log
    allowed = launch(spec, "--listen", "0.0.0.0:0", "--insecure", name="allowed")
    assert allowed.start()


def test_a_port_in_use_is_named(tmp_path: Path, launch: Start) -> None:
    spec = make_job(tmp_path)
    first = launch(spec, name="first")
    address = first.start()
    second = launch(spec, "--listen", address, "--state-dir", str(tmp_path / "other"), name="second")
    second.start()
    assert second.wait() == 2
    assert f"cannot listen on {address}" in second.log


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"carryover": ["n"]}, "the job is not the one .* carryover"),
        ({"source": {"type": "jsonl", "path": "/else"}, "pipeline": [{"predict": "steps:Other"}]}, "holds the output of another job"),
    ],
    ids=["pipeline", "another job"],
)
def test_another_job_on_the_same_output_is_refused(
    tmp_path: Path, launch: Start, seed: int, change: dict[str, object], message: str
) -> None:
    spec = make_job(tmp_path)
    begin(launch(spec), spec, seed)
    changed = launch(make_job(tmp_path, **change), name="changed")
    changed.start()
    assert changed.wait() == 1
    changed.assert_said(message)


def test_changed_user_code_is_refused_and_named(tmp_path: Path, launch: Start, seed: int) -> None:
    spec = make_job(tmp_path)
    master = launch(spec)
    begin(master, spec, seed)
    (tmp_path / "steps.py").write_text("class Same:\n    pass\n")
    master.start()
    assert master.wait() == 1
    master.assert_said("steps.py was changed")


@pytest.mark.parametrize("done", [False, True], ids=["half done", "complete"])
def test_changed_input_is_refused_and_named(tmp_path: Path, launch: Start, seed: int, done: bool) -> None:
    spec = make_job(tmp_path)
    master = launch(spec)
    address = master.start()
    if done:
        join_all(crew(address, seed))
        assert master.wait() == 0, master.log
    else:
        with WorkClient(address) as client:
            client.get_job()
        master.end()
    pq.write_table(pa.table({"n": range(7)}), tmp_path / "in" / "f002.parquet")
    master.start()
    assert master.wait() == 1
    master.assert_said(r"1 changed: .*f002\.parquet")


def test_results_of_nobody_knows_whom_are_not_touched(tmp_path: Path, launch: Start) -> None:
    spec = make_job(tmp_path)
    stranger = Path(spec.sink.path) / "part-00000000-000000000000-000000000010.parquet"
    stranger.parent.mkdir()
    pq.write_table(pa.table({"n": [1]}), stranger)
    master = launch(spec)
    master.start()
    assert master.wait() == 1
    master.assert_said("holds results that this program knows nothing of")
    assert stranger.exists()


def test_bad_input_fails_the_job_and_tells_the_workers(tmp_path: Path, launch: Start) -> None:
    spec = make_job(tmp_path, source={"type": "parquet", "path": str(tmp_path / "nowhere")})
    master = launch(spec)
    master.start()
    assert master.wait() == 1
    master.assert_said("input does not exist: .*nowhere")


def test_a_wrong_store_is_named(tmp_path: Path, launch: Start) -> None:
    master = launch(make_job(tmp_path), "--store", "redis://127.0.0.1:1/0")
    master.start()
    assert master.wait() == 1
    master.assert_said("the store redis://127.0.0.1:1/0 cannot be reached")
