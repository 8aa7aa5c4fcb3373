"""Whole jobs as real processes, and everything dies: the output is complete, right, and the same as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from antinfer.core.scaling import exits
from antinfer.errors import AntinferError
from antinfer.spec.canonical import to_yaml
from antinfer.spec.schema import JobSpec
from antinfer.storage import manifest
from antinfer.storage.jobs import open_output
from antinfer.testing.chaos.cluster import Cluster
from antinfer.testing.chaos.pacing import rows_passed
from antinfer.testing.chaos.processes import Process, signal_all, wait_until
from antinfer.testing.chaos.servers import ValkeyServer
from tests.integration.jobs import Scoring, read_report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TTL_S = 2.0
RATE = 1_000
"""Rows a second of one worker."""
BATCH = 50
INTERVAL_S = 0.5
COMMITTED_IN_S = 0.5


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the accumulators say when nothing happens."""
    scoring = Scoring(tmp_path_factory.mktemp("undisturbed"), pause_s=0.0)
    spec = scoring.make()
    with tempfile.TemporaryDirectory(prefix="ai-") as folder:
        cluster = Cluster(spec, scoring.rows, Path(folder), grounds=(scoring.folder,))
        try:
            cluster.master()
            cluster.finish(cluster.worker("w1"), *cluster.processes[:1])
        finally:
            cluster.close()
    scoring.assert_right(Path(spec.sink.path))
    found: dict[str, Any] = read_report(Path(spec.sink.path))["accumulators"]
    return found


class Scene:
    """One job under fire."""

    def __init__(self, folder: Path, logs: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.logs = logs
        self.scoring = Scoring(folder)
        self.plan(self.scoring)
        self.valkey = ValkeyServer(logs / "valkey")

    def plan(self, scoring: Scoring, **changes: Any) -> None:
        """Choose another job, before anything is started."""
        self.scoring, self.spec = scoring, scoring.make(**changes)
        self.cluster = Cluster(self.spec, scoring.rows, self.logs, TTL_S, grounds=(scoring.folder,))

    @property
    def output(self) -> Path:
        return Path(self.spec.sink.path)

    @property
    def by_url(self) -> tuple[str, str]:
        return ("--store", self.valkey.url)

    def workers(self, *masters: str, number: int = 2) -> list[Process]:
        return [self.cluster.worker(f"w{n}", *masters) for n in range(1, number + 1)]

    def wait_for_instant(self, low: float = 0.05, high: float = 0.5) -> None:
        """Wait for a random instant while so much of the job is published."""
        share = self.chance.uniform(low, high)
        self.cluster.wait_for_rows(int(self.scoring.rows * share))
        time.sleep(self.chance.uniform(0.0, 0.1))

    def assert_ends_whole(self, undisturbed: dict[str, Any], *ending: Process) -> dict[str, Any]:
        """Wait for these processes, and hold the output against the data and the undisturbed run; return the report."""
        self.cluster.finish(*ending)
        self.scoring.assert_right(self.output)
        report = read_report(self.output)
        assert report["rows_in"] == self.scoring.rows
        assert report["accumulators"] == undisturbed
        print(*self.cluster.faults, sep="\n")
        assert self.cluster.faults
        return report


@pytest.fixture
def scene(tmp_path: Path, seed: int) -> Iterator[Scene]:
    # Short: the path of a socket may have 107 bytes at most, and pytest's own directories are deep.
    with tempfile.TemporaryDirectory(prefix="ai-") as logs:
        scene = Scene(tmp_path, Path(logs), seed)
        try:
            yield scene
        finally:
            scene.cluster.close()
            scene.valkey.kill()
            print(scene.cluster.logs())


def kill_one(process: Process, words: str) -> int:
    """Kill a process below `process` whose command line holds `words`; return its id."""
    wait_until(lambda: process.find(words), f"{words} below {process.name}")
    found = process.find(words)[0]
    os.kill(found, signal.SIGKILL)
    return found


def attempts(spec: JobSpec) -> int:
    return max(record.attempt for record in manifest.read_all(open_output(spec)))


def test_a_worker_is_killed(scene: Scene, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """At most one commit interval of its work is done again, although its ranges are four times as long."""
    counts = tmp_path / "counts"
    counts.mkdir()
    count = {"map_batches": "antinfer.testing.chaos.pacing:Pace", "args": {"folder": str(counts), "rows_per_second": 0.0}}
    scorer = {"predict": "steps:Scorer", "args": {"pause_s": 1 / RATE}, "batch_size": BATCH, "concurrency": 1}
    steps = [{"map_batches": "steps:key"}, scorer, {**count, "batch_format": "arrow", "batch_size": BATCH, "workers_as": "threads"}]
    long = replace(scene.scoring, shards=4, shard_rows=2_000)
    scene.plan(long, pipeline=steps, commit_interval=INTERVAL_S, task={"rows": 2_000}, tuning="off")
    cluster = scene.cluster
    master = cluster.master()
    first, second = scene.workers()
    scene.wait_for_instant(0.2, 0.45)
    wait_until(lambda: _leases(cluster, "w1"), "w1 holds leases")
    (host,) = first.find("antinfer.worker.host")
    cluster.fault("kill -9 of a worker", first.kill)
    assert not first.find("")
    computed = rows_passed(counts, host)
    third = cluster.worker("w3")
    report = scene.assert_ends_whole(undisturbed, second, third, master)
    assert attempts(scene.spec) > 1, "the dead worker's rows were leased to nobody else"
    assert {"w1", "w2"} <= report["workers"].keys()
    committed = sum(record.rows_out for record in manifest.read_all(open_output(scene.spec)) if record.worker == "w1")
    # A commit is staged, sent and made durable while the next rows are computed. None is lost where it had just come to the end of a range.
    assert 0 <= computed - committed <= RATE * (INTERVAL_S + COMMITTED_IN_S) + BATCH


def _expired(cluster: Cluster) -> int:
    status = cluster.status()
    return status.counters["leases_expired"] if status else 0


def _leases(cluster: Cluster, worker: str) -> int:
    status = cluster.status()
    return sum(member.leases for member in status.workers if member.worker == worker) if status else 0


def test_a_predictor_and_a_stage_host_are_killed(scene: Scene, undisturbed: dict[str, Any]) -> None:
    cluster = scene.cluster
    master = cluster.master()
    first, second = scene.workers()
    scene.wait_for_instant(0.05, 0.2)
    cluster.fault("kill -9 of a predictor", lambda: kill_one(first, "antinfer.worker.predictors"))
    wait_until(lambda: "is started again" in first.log, "the predictor's death is noticed")
    scene.wait_for_instant(0.3, 0.6)
    cluster.fault("kill -9 of a stage host", lambda: kill_one(second, "antinfer.worker.host"))
    wait_until(lambda: "killed by SIGKILL" in second.log, "the host's death is noticed")
    causes = scene.assert_ends_whole(undisturbed, first, second, master)["causes"]
    assert (causes["process_crash"], causes["host_died"]) == (1, 1)


@pytest.mark.parametrize("store", ["embedded", "url"])
def test_the_master_is_killed_twice(scene: Scene, undisturbed: dict[str, Any], store: str) -> None:
    cluster = scene.cluster
    arguments = scene.by_url if store == "url" else ()
    if store == "url":
        scene.valkey.start()
    master = cluster.master("master", *arguments)
    workers = scene.workers()
    for low, high in ((0.02, 0.3), (0.35, 0.6)):
        scene.wait_for_instant(low, high)
        cluster.fault("kill -9 of the master", master.kill)
        time.sleep(scene.chance.uniform(0.0, 0.5))
        assert all(worker.is_alive for worker in workers)
        master = cluster.master("master", *arguments)
    report = scene.assert_ends_whole(undisturbed, *workers, master)
    assert report["epoch"] == 3
    assert report["causes"]["master_lost"] == 2
    assert master.log.count("from the store") >= 2, master.log
    assert all("found the master again" in worker.log for worker in workers)


def test_the_embedded_store_is_killed(scene: Scene, undisturbed: dict[str, Any]) -> None:
    cluster = scene.cluster
    master = cluster.master()
    workers = scene.workers()
    for low, high in ((0.02, 0.3), (0.35, 0.6)):
        scene.wait_for_instant(low, high)
        cluster.fault("kill -9 of the embedded store", lambda: kill_one(master, "unixsocket"))
    report = scene.assert_ends_whole(undisturbed, *workers, master)
    assert "the embedded store died" in master.log
    assert report["causes"]["store_lost"] == 2


def test_the_store_on_a_url_restarts_on_its_file(scene: Scene, undisturbed: dict[str, Any]) -> None:
    cluster = scene.cluster
    scene.valkey.start()
    master = cluster.master("master", *scene.by_url)
    workers = scene.workers()
    scene.wait_for_instant()
    cluster.fault("kill -9 of the store", scene.valkey.kill)
    time.sleep(scene.chance.uniform(0.0, 1.0))
    scene.valkey.start()
    report = scene.assert_ends_whole(undisturbed, *workers, master)
    assert "beginning a new reign" in master.log
    assert (report["epoch"], report["causes"]["store_lost"]) == (2, 1)


def test_the_store_forgets_everything(scene: Scene, undisturbed: dict[str, Any]) -> None:
    cluster = scene.cluster
    scene.valkey.start()
    master = cluster.master("master", *scene.by_url)
    workers = scene.workers()
    scene.wait_for_instant(0.2, 0.5)
    cluster.fault("total loss of the store", scene.valkey.wipe)
    report = scene.assert_ends_whole(undisturbed, *workers, master)
    assert "reign 2 begins, from the output" in master.log
    assert (report["epoch"], report["causes"]["store_lost"]) == (2, 1)


def test_a_paused_worker_wakes_up_late(scene: Scene, undisturbed: dict[str, Any]) -> None:
    cluster = scene.cluster
    master = cluster.master()
    zombie, other = scene.workers()
    scene.wait_for_instant(0.05, 0.3)
    frozen = _freeze_with_leases(cluster, zombie, "w1")
    wait_until(lambda: _expired(cluster) > 0, "its leases are taken away")
    cluster.fault("it wakes up", lambda: signal_all(frozen, signal.SIGCONT))
    causes = scene.assert_ends_whole(undisturbed, zombie, other, master)["causes"]
    assert (causes["node_lost"], causes["woke_late"]) == (1, 1)
    assert attempts(scene.spec) > 1, "its rows were leased again to nobody, not even to itself"


def test_a_paused_worker_wakes_up_when_all_is_over(scene: Scene, undisturbed: dict[str, Any]) -> None:
    cluster = scene.cluster
    master = cluster.master()
    zombie, other = scene.workers()
    scene.wait_for_instant()
    frozen = zombie.everything()
    cluster.fault("SIGSTOP of a worker", lambda: signal_all(frozen, signal.SIGSTOP))
    assert other.wait() == 0, other.log
    assert master.wait() == 0, master.log
    signal_all(frozen, signal.SIGCONT)
    scene.assert_ends_whole(undisturbed, zombie)
    assert "the job is done, and its master has left" in zombie.log


def _freeze_with_leases(cluster: Cluster, worker: Process, name: str) -> list[int]:
    """Stop a worker while it holds leases; what it had sent before is counted, so they are truly the ones it sleeps on."""
    while True:
        wait_until(lambda: _leases(cluster, name), f"{name} holds leases")
        # The whole worker, as a suspended machine would: its predictors must not go on computing either.
        frozen = worker.everything()
        cluster.fault("SIGSTOP of a worker", partial(signal_all, frozen, signal.SIGSTOP))
        time.sleep(0.3)
        if _leases(cluster, name):
            return frozen
        signal_all(frozen, signal.SIGCONT)


def test_a_worker_is_drained(scene: Scene, undisturbed: dict[str, Any]) -> None:
    cluster = scene.cluster
    master = cluster.master()
    leaving, staying = scene.workers()
    scene.wait_for_instant()
    cluster.fault("SIGTERM of a worker", lambda: leaving.send(signal.SIGTERM))
    assert leaving.wait() == exits.TAKEN_AWAY, leaving.log
    assert not cluster.is_done, "the worker left only when the job was over"
    assert scene.assert_ends_whole(undisturbed, staying, master)["causes"]["preempted"] == 1


def test_a_paused_master_finds_another_in_its_place(scene: Scene, undisturbed: dict[str, Any]) -> None:
    cluster = scene.cluster
    scene.valkey.start()
    first = cluster.master("one", *scene.by_url)
    workers = scene.workers("one", "two")
    scene.wait_for_instant(0.05, 0.3)
    cluster.fault("SIGSTOP of the master", lambda: first.send(signal.SIGSTOP))
    paused_at = time.monotonic()
    second = cluster.master("two", *scene.by_url)
    wait_until(lambda: any("found the master again" in worker.log for worker in workers), "a worker looks elsewhere")
    # The kernel of a paused process still takes what is sent to it: only pings tell.
    assert time.monotonic() - paused_at < 30
    cluster.fault("it wakes up", lambda: first.send(signal.SIGCONT))
    assert first.wait() == 1
    assert "antinfer: another master rules this job" in first.log, first.log
    assert "Traceback" not in first.log
    scene.assert_ends_whole(undisturbed, *workers, second)


def test_two_masters_with_two_stores(scene: Scene, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    cluster = scene.cluster
    first = cluster.master("one", "--state-dir", str(tmp_path / "a"))
    workers = scene.workers("one", "two")
    scene.wait_for_instant(0.05, 0.4)
    # The job must not end before the second one is up.
    frozen = [pid for worker in workers for pid in (worker.pid, *worker.find(""))]
    signal_all(frozen, signal.SIGSTOP)
    cluster.fault("a second master with a store of its own", lambda: cluster.master("two", "--state-dir", str(tmp_path / "b")))
    second = cluster.processes[-1]
    wait_until(lambda: "begins, from the output" in second.log, "the second master has claimed the output")
    signal_all(frozen, signal.SIGCONT)
    assert first.wait() == 1
    assert "has claimed the output" in first.log, first.log
    assert "Traceback" not in first.log
    scene.assert_ends_whole(undisturbed, *workers, second)
    assert "from the output" in second.log


def test_the_one_command_is_killed_and_given_again(scene: Scene, undisturbed: dict[str, Any]) -> None:
    cluster = scene.cluster
    job_file = scene.scoring.folder / "job.yaml"
    job_file.write_text(to_yaml(scene.spec))
    first = cluster.run(job_file, "--workers", "2")
    scene.wait_for_instant()
    cluster.fault("kill -9 of the supervisor", first.kill)
    wait_until(lambda: not cluster.living(), "all that it started is gone", seconds=10)
    report = scene.assert_ends_whole(undisturbed, cluster.run(job_file, "--workers", "2"))
    assert report["epoch"] == 2


def test_the_one_command_starts_again_what_dies(scene: Scene, undisturbed: dict[str, Any]) -> None:
    cluster = scene.cluster
    job_file = scene.scoring.folder / "job.yaml"
    job_file.write_text(to_yaml(scene.spec))
    run = cluster.run(job_file, "--workers", "2")
    for number, words in enumerate(("antinfer.worker --master", "antinfer.master", "unixsocket")):
        scene.wait_for_instant(0.02 + 0.2 * number, 0.1 + 0.2 * number)
        cluster.fault(f"kill -9 of {words}", lambda words=words: kill_one(run, words))  # type: ignore[misc]
    report = scene.assert_ends_whole(undisturbed, run)
    assert report["epoch"] == 2
    assert "the embedded store died" in run.log


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("round", range(10))
def test_a_storm(scene: Scene, undisturbed: dict[str, Any], round: int) -> None:
    """Fault after fault, in any order and at any instant, until the job is done all the same."""
    storm = Storm(scene)
    try:
        storm.rage()
    except (AssertionError, AntinferError) as error:
        raise AssertionError(f"round {round}: {error}\n{scene.cluster.logs()}") from None
    scene.assert_ends_whole(undisturbed, *storm.workers, storm.master)


class Storm:
    """Faults of every kind on one job with a store on a URL; whatever dies is started again."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._cluster = scene.cluster
        scene.valkey.start()
        self._names = 0
        self.master = self._cluster.master("master", *scene.by_url)
        self.workers = [self._new_worker(), self._new_worker()]

    def rage(self) -> None:
        scene = self._scene
        faults = (self._worker, self._host, self._predictor, self._master, self._store, self._wipe, self._zombie, self._drain)
        for number in range(1, 9):
            scene.wait_for_instant(0.07 * (number - 1), 0.07 * number)
            # While a paused worker sleeps, the other one may get far.
            if self._cluster.published() > 0.8 * scene.scoring.rows:
                break
            scene.chance.choice(faults)()

    def _new_worker(self) -> Process:
        self._names += 1
        return self._cluster.worker(f"w{self._names}")

    def _any(self) -> int:
        return self._scene.chance.randrange(len(self.workers))

    def _replace(self, index: int) -> None:
        self.workers[index] = self._new_worker()

    def _worker(self) -> None:
        index = self._any()
        self._cluster.fault("kill -9 of a worker", self.workers[index].kill)
        self._replace(index)

    def _host(self) -> None:
        worker = self.workers[self._any()]
        self._cluster.fault("kill -9 of a stage host", lambda: kill_one(worker, "antinfer.worker.host"))

    def _predictor(self) -> None:
        worker = self.workers[self._any()]
        self._cluster.fault("kill -9 of a predictor", lambda: kill_one(worker, "antinfer.worker.predictors"))

    def _master(self) -> None:
        self._cluster.fault("kill -9 of the master", self.master.kill)
        time.sleep(self._scene.chance.uniform(0.0, 2.0))
        self.master = self._cluster.master("master", *self._scene.by_url)

    def _store(self) -> None:
        self._cluster.fault("kill -9 of the store", self._scene.valkey.kill)
        time.sleep(self._scene.chance.uniform(0.0, 1.0))
        self._scene.valkey.start()

    def _wipe(self) -> None:
        self._cluster.fault("total loss of the store", self._scene.valkey.wipe)

    def _zombie(self) -> None:
        worker = self.workers[self._any()]
        frozen = worker.everything()
        self._cluster.fault("SIGSTOP of a worker", lambda: signal_all(frozen, signal.SIGSTOP))
        time.sleep(self._scene.chance.uniform(0.5, 2 * TTL_S))
        signal_all(frozen, signal.SIGCONT)

    def _drain(self) -> None:
        index = self._any()
        leaving = self.workers[index]
        # Before it runs at all, the signal just ends it.
        wait_until(lambda: "connected to the master" in leaving.log, "the worker has started")
        self._cluster.fault("SIGTERM of a worker", lambda: leaving.send(signal.SIGTERM))
        self._replace(index)
        assert leaving.wait() == exits.TAKEN_AWAY, leaving.log
