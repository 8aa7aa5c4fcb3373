"""Whole jobs on a Ray cluster of several nodes: nodes, master, driver and command die, and the output is right."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from antinfer.core.causes import Cause
from antinfer.core.scaling import endings
from antinfer.launchers.port import WorkerOrder
from tests.integration.commands import ROWS, Finished, JobFolder, alive, antinfer, descendants, environment, start, wait_until
from tests.integration.ray_cluster import ENVIRONMENT, RayCluster
from tests.integration.ray_driver import MODULE, driving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'antinfer[ray]'"),
]

STEPS = """
import os
import time


class Patient:
    # A tenth of a second for each row until there is a file `go` beside this one; then none.

    def __call__(self, batch):
        if not os.path.exists(os.path.join(os.path.dirname(__file__), "go")):
            time.sleep(0.1)
        return {"y": batch["x"] * 2}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A cluster with two nodes, for one worker each."""
    with RayCluster() as cluster:
        cluster.add(num_cpus=1)
        cluster.add(num_cpus=1)
        yield cluster


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    job = JobFolder(tmp_path / "job", "steps:Patient", commit_interval="0.2s", tuning="off")
    job.edit("batch_size: 100", "batch_size: 1")
    job.steps.write_text(STEPS)
    return job


class Run:
    """The command at work, and what it has said."""

    def __init__(self, job: JobFolder, process: subprocess.Popen[str]) -> None:
        self.job = job
        self.process = process
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        return "".join(self._lines)

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it has ended before: {what}\n{self.said}"
            assert time.monotonic() < until, f"not in {seconds} s: {what}\n{self.said}"
            time.sleep(0.05)

    def wait_said(self, pattern: str, times: int = 1) -> None:
        self.wait(lambda: len(re.findall(pattern, self.said)) >= times, f"{pattern} {times} times")

    def wait_joined(self, *numbers: int) -> None:
        """Wait until the workers of these numbers have joined."""
        for number in numbers:
            self.wait_said(rf"-1-{number}: .* connected to the master")

    def member(self, module: str) -> int:
        """Return the process id of our own process that runs `module`."""
        (found,) = running_modules(self.process.pid, module)
        return found

    def finish(self) -> Finished:
        """Let the job be quick from now on, and wait for its end."""
        (self.job.folder / "go").touch()
        return self.end()

    def end(self) -> Finished:
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        self.process.wait(60)
        self._reader.join(10)
        return Finished(self.process.returncode, out, self.said)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None and self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self._lines.extend(self.process.stderr)


def running_modules(parent: int, *modules: str) -> set[int]:
    """Return the descendants of `parent` that run one of `modules`."""
    found = set()
    for pid in descendants(parent):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except FileNotFoundError:
            continue
        if any(words[1:3] == ["-m", module] for module in modules):
            found.add(pid)
    return found


@contextmanager
def running(job: JobFolder, cluster: RayCluster, *arguments: str | Path, command: str = "run") -> Iterator[Run]:
    what = job.folder if command == "run" else job.output
    process = start(command, what, "--launcher", "ray", "--address", cluster.address, "--verbose", *arguments)
    run = Run(job, process)
    try:
        yield run
    finally:
        run.close()


def check_output(job: JobFolder) -> None:
    assert job.ids() == list(range(ROWS))
    audit = antinfer("verify", job.output)
    assert audit.code == 0, audit


def test_nodes_are_killed_taken_away_and_added_under_a_running_job(job: JobFolder, cluster: RayCluster) -> None:
    doomed = cluster.add(num_cpus=1, resources={"mine": 1})
    leaving = cluster.add(num_cpus=1, resources={"mine": 1})
    actors = job.folder / "actors.yaml"
    actors.write_text("worker: {resources: {mine: 1}}\n")
    with running(job, cluster, "--workers", "2", "--actors", actors) as run:
        run.wait_joined(1, 2)
        run.wait(job.committed, "something to be committed")
        cluster.kill(doomed)
        run.wait_said(r"starting 1 preemptible workers: \S+-1-3")
        cluster.add(num_cpus=1, resources={"mine": 1})
        run.wait_joined(3)
        cluster.drain(leaving, seconds=60)
        run.wait_said(rf"draining worker \S+: node \S+/{leaving[:8]} is about to be taken away")
        run.wait_said("ends: drained by the master")
        spare = cluster.add(num_cpus=1, resources={"mine": 1})
        run.wait_joined(4)
        ended = run.finish()
    assert ended.code == 0, ended
    check_output(job)
    report = json.loads((job.output / "_antinfer" / "report").read_text())
    assert report["rows_quarantined"] == 0
    cluster.wait_free("mine", 2)
    cluster.kill(spare)


def test_master_and_driver_are_killed_and_the_job_goes_on(job: JobFolder, cluster: RayCluster) -> None:
    with running(job, cluster, "--workers", "2") as run:
        run.wait_joined(1, 2)
        os.kill(run.member("antinfer.master"), signal.SIGKILL)
        run.wait_said("found the master again", times=2)
        (command,) = re.findall(r"antinfer (status .*)", run.said)
        status = antinfer(*shlex.split(command), "--json")
        assert {worker["worker"].partition("-1-")[2] for worker in status.json()["workers"]} == {"1", "2"}
        assert "-2-" not in run.said  # nobody had to be replaced
        os.kill(run.member(MODULE), signal.SIGKILL)
        run.wait_said(r"-2-\d+: .* connected to the master", times=2)
        ended = run.finish()
    assert ended.code == 0, ended
    check_output(job)


def test_workers_are_given_back_and_the_job_is_cancelled_by_the_same_commands(job: JobFolder, cluster: RayCluster) -> None:
    with running(job, cluster, "--set", "workers.max=2") as run:
        run.wait_joined(1, 2)
        (told,) = re.findall(r"antinfer status (.*)", run.said)
        place, *secrets = shlex.split(told)
        drained = antinfer("drain", place, "1", *secrets)
        assert drained.code == 0 and "at most 1 workers from now on" in drained.out, drained
        (leaving,) = re.findall(r"leaving: (\S+)", drained.out)
        run.wait_said(rf"{leaving}.* ends: ")
        (left,) = antinfer("status", place, *secrets, "--json").json()["workers"]
        assert left["worker"] != leaving
        antinfer("logs", place).check_failure(2, "logs are kept of jobs on Kubernetes alone")
        cancelled = antinfer("cancel", place, *secrets, "--reason", "enough")
        assert cancelled.code == 0 and "the same command resumes the job" in cancelled.out, cancelled
        ended = run.end()
    assert ended.code == 130 and "enough" in ended.err, ended
    cluster.wait_free("CPU", 2)


def test_stopped_it_has_committed_what_was_finished_and_goes_on_there_or_elsewhere(job: JobFolder, cluster: RayCluster) -> None:
    with running(job, cluster, "--workers", "2") as run:
        run.wait_joined(1, 2)
        run.wait(job.committed, "something to be committed")
        run.process.send_signal(signal.SIGINT)
        ended = run.end()
    assert ended.code == 130, ended
    assert "what was finished is committed" in ended.err and "hint: the same command resumes" in ended.err
    assert ended.err.count("ends: drained after SIGTERM") == 2
    before = job.committed()
    with running(job, cluster, command="resume") as run:
        run.wait(lambda: job.committed() > before, "something more to be committed")
        run.process.send_signal(signal.SIGTERM)
        assert run.end().code == 130
    (job.folder / "go").touch()
    ended = antinfer("run", job.folder)
    assert ended.code == 0, ended
    check_output(job)


def test_killed_it_leaves_nothing_on_the_nodes(job: JobFolder, cluster: RayCluster) -> None:
    with running(job, cluster, "--workers", "2") as run:
        run.wait_joined(1, 2)
        ours = descendants(run.process.pid)
        theirs = running_modules(cluster.pid, "antinfer.worker", "antinfer.worker.host", "antinfer.worker.predictors")
        assert len(theirs) >= 6
        run.process.kill()
    cluster.wait_free("CPU", 2)
    wait_until(lambda: not alive(ours | theirs), timeout=20, why="something is left")


def test_a_place_that_no_node_has_is_told_with_what_there_is_and_waited_for(job: JobFolder, cluster: RayCluster) -> None:
    job.edit("batch_size: 1", "batch_size: 1, num_cpus: 64")
    with running(job, cluster) as run:
        run.wait_said(r"no node has 64 CPU, which a worker asks for; the cluster has \d nodes with 1 CPU; one with nothing")
        run.process.send_signal(signal.SIGTERM)
        assert run.end().code == 130


def test_a_place_that_a_ray_of_its_own_does_not_have_is_an_error(job: JobFolder) -> None:
    job.edit("batch_size: 1", "batch_size: 1, num_cpus: 4000")
    ended = antinfer("run", job.folder, "--launcher", "ray", "--address", "local")
    ended.check_failure(2, "preemptible workers would never start: no node has 4000 CPU", "hint: Ask for less")


def test_user_code_that_fails_is_the_users_error_as_on_one_machine(job: JobFolder, cluster: RayCluster) -> None:
    job.steps.write_text("class Patient:\n    def __init__(self):\n        raise RuntimeError('no weights here')\n")
    with running(job, cluster) as run:
        ended = run.end()
    ended.check_failure(1, "no weights here")
    assert "RuntimeError: no weights here" in ended.err
    cluster.wait_free("CPU", 2)


def test_a_node_that_is_to_be_avoided_gets_no_worker(cluster: RayCluster, tmp_path: Path) -> None:
    with driving(cluster, tmp_path) as bench:
        bench.launcher.start([WorkerOrder("w1", "preemptible")])
        # Its full name a node has once the nodes have been looked at.
        first = bench.wait("w1", lambda pod: "/" in pod.node)
        bench.launcher.stop("w1", drain=True)
        assert endings.of(bench.wait("w1", lambda pod: pod.worker is not None)).cause is Cause.DRAINED
        bench.launcher.stop("w1", drain=True)
        bench.wait_gone("w1")
        bench.launcher.start([WorkerOrder("w2", "preemptible", avoid=(first.node,))])
        assert bench.wait("w2", lambda pod: "/" in pod.node).node != first.node


def test_a_worker_dies_with_its_actor_and_that_is_told(cluster: RayCluster, tmp_path: Path) -> None:
    with driving(cluster, tmp_path) as bench:
        bench.launcher.start([WorkerOrder("w1", "preemptible")])
        bench.wait("w1", lambda pod: pod.node)
        wait_until(lambda: running_modules(cluster.pid, "antinfer.worker"))
        (agent,) = running_modules(cluster.pid, "antinfer.worker")
        os.kill(int(Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
        wait_until(lambda: not alive({agent}), timeout=20)
        ending = endings.of(bench.wait("w1", lambda pod: pod.phase == "Failed"))
        assert ending.cause is Cause.WORKER_KILLED and "its worker process has died" in ending.detail


def test_an_output_that_a_node_does_not_see_is_named(cluster: RayCluster, tmp_path: Path) -> None:
    with driving(cluster, tmp_path, output=str(tmp_path / "elsewhere")) as bench:
        bench.launcher.start([WorkerOrder("w1", "preemptible")])
        ending = endings.of(bench.wait("w1", lambda pod: pod.phase == "Failed"))
        assert ending.cause is Cause.START_ERROR
        assert f"the output place {tmp_path}/elsewhere is not on node" in ending.detail and "hint: All nodes" in ending.detail


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("127.0.0.1:1", 1, "no Ray cluster answers at 127.0.0.1:1"),
        ("nonsense:x", 2, "nonsense:x is no address of a Ray cluster"),
        ("ray://127.0.0.1:10001", 2, "is not where a driver joins"),
    ],
)
def test_no_cluster_at_the_address(job: JobFolder, address: str, code: int, said: str) -> None:
    antinfer("run", job.folder, "--launcher", "ray", "--address", address).check_failure(code, said, "hint: ")


def test_a_cluster_of_another_ray_is_told_with_both_versions(cluster: RayCluster, tmp_path: Path) -> None:
    older = "import ray; ray.__version__ = '2.9.0'; from antinfer.launchers.ray import driver; raise SystemExit(driver.main())"
    files = ["--socket", tmp_path / "socket", "--ready", tmp_path / "ready", "--outcome", tmp_path / "outcome"]
    command = [sys.executable, "-c", older, "--address", cluster.address, *map(str, files)]
    ended = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2, ended.stderr
    outcome = json.loads((tmp_path / "outcome").read_text())
    assert outcome["kind"] == "UsageError" and "Ray: 2.9.0" in outcome["message"], outcome
    assert "the Ray of the cluster" in outcome["hint"]
