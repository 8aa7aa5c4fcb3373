"""What interrupts a job is counted by its cause and told of its rows: real processes that die, and what people are shown of it."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.core.causes import Cause
from antinfer.spec.yamlfile import write_yaml
from antinfer.storage import eventlog, lives, reigns
from antinfer.storage.jobs import open_output
from antinfer.telemetry import figures
from antinfer.testing.chaos.cluster import Cluster
from antinfer.testing.chaos.processes import Process, wait_until
from tests.integration.jobs import command_line, make_spec, read_report

pytestmark = pytest.mark.timeout(180)

ROWS, SHARD_ROWS, GATE = 1_200, 100, 900
CRASHES, TOO_LARGE = 40, 72
STEPS = f"""
import ctypes
import os
import time

HERE = os.path.dirname(__file__)


def once(name):
    try:
        os.close(os.open(os.path.join(HERE, name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class Model:
    # Crashes once, runs out of memory once, and does the second half only when there is a file `go`.
    def __call__(self, batch):
        ids = batch["id"].tolist()
        if {CRASHES} in ids and once("crashed"):
            ctypes.string_at(0)
        if {TOO_LARGE} in ids and once("too-large"):
            raise MemoryError
        while ids[-1] >= {GATE} and not os.path.exists(os.path.join(HERE, "go")):
            time.sleep(0.02)
        time.sleep(0.005 * len(ids))
        return {{"y": batch["id"] * 2}}
"""


def write_job(folder: Path, steps: str = STEPS, **changes: object) -> dict[str, object]:
    (folder / "in").mkdir()
    for index in range(2):
        ids = range(index * ROWS // 2, (index + 1) * ROWS // 2)
        pq.write_table(pa.table({"id": list(ids)}), folder / "in" / f"f{index}.parquet", row_group_size=SHARD_ROWS)
    (folder / "steps.py").write_text(steps)
    return {
        "source": {"type": "parquet", "path": str(folder / "in")},
        "pipeline": [{"predict": "steps:Model", "batch_size": 16, "max_lifetime": 10, "timeout": "300s"}],
        "sink": {"path": str(folder / "out")},
        "shard": {"rows": SHARD_ROWS},
        "commit_interval": 0.5,
        "tuning": "off",
        **changes,
    }


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="ai-") as logs:
        cluster = Cluster(make_spec(write_job(tmp_path), tmp_path), ROWS, Path(logs), 2.0, grounds=(tmp_path,))
        try:
            yield cluster
        finally:
            cluster.close()
            print(cluster.logs())


def counted(cluster: Cluster, cause: Cause) -> int:
    status = cluster.status()
    return 0 if status is None else status.counters.get(f"{figures.CAUSE}{cause.value}", 0)


def wait_for(cluster: Cluster, cause: Cause, times: int = 1) -> None:
    wait_until(lambda: counted(cluster, cause) >= times, f"{times} {cause.value}", seconds=30)


def working(cluster: Cluster) -> set[str]:
    status = cluster.status()
    return set() if status is None else {worker.worker for worker in status.workers if worker.leases}


def kill_below(process: Process, words: str) -> None:
    wait_until(lambda: process.find(words), f"{words} below {process.name}")
    os.kill(process.find(words)[0], signal.SIGKILL)


def whats(output: str, shard: int, row: int | None = None) -> list[str]:
    """Read the story as the command prints it."""
    shown = command_line("story", output, f"{shard}" if row is None else f"{shard}:{row}", "--json")
    assert shown.returncode == 0, shown.stderr
    return [happening["what"] for reign in json.loads(shown.stdout)["reigns"] for happening in reign["happenings"]]


def test_every_cause_of_a_job_under_fire_is_shown(cluster: Cluster, tmp_path: Path) -> None:
    output = cluster.spec.sink.path
    master = cluster.master()
    first = cluster.worker("w1")
    for cause in (Cause.PROCESS_CRASH, Cause.GPU_OOM, Cause.PROCESS_AGED):
        wait_for(cluster, cause)
    cluster.fault("SIGTERM", partial(first.send, signal.SIGTERM))
    second, third = cluster.worker("w2"), cluster.worker("w3")
    wait_for(cluster, Cause.PREEMPTED)
    wait_until(lambda: working(cluster) == {"w2", "w3"}, "both others work", seconds=30)
    cluster.fault("a predictor is killed", partial(kill_below, second, "antinfer.worker.predictors"))
    wait_for(cluster, Cause.PROCESS_CRASH, 2)
    cluster.fault("a worker is stopped", partial(third.send, signal.SIGSTOP))
    cluster.fault("a stage host is killed", partial(kill_below, second, "antinfer.worker.host"))
    wait_for(cluster, Cause.HOST_DIED)
    cluster.fault("the store is killed", partial(kill_below, master, "valkey-server"))
    wait_for(cluster, Cause.STORE_LOST)
    wait_for(cluster, Cause.NODE_LOST)
    third.send(signal.SIGCONT)
    wait_for(cluster, Cause.WOKE_LATE)
    shown = command_line("status", output).stdout
    (tmp_path / "go").touch()
    cluster.finish(master, second, third)

    causes = read_report(Path(output))["causes"]
    seen = {"gpu_oom", "process_crash", "process_aged", "host_died", "store_lost", "woke_late", "node_lost", "preempted"}
    assert seen <= causes.keys() <= seen | {"yielded", "overtaken", "not_held"}, causes
    assert all(f"1 {cause}" in shown for cause in ("gpu_oom", "host_died", "store_lost", "woke_late", "preempted")), shown
    after = command_line("status", output)
    assert (after.returncode, figures.causes(figures.counted(causes)) in after.stdout) == (0, True), after.stdout

    assert any(what.startswith("process_crash: ") and "Segfault" in what for what in whats(output, 0, CRASHES))
    assert any(what.startswith("gpu_oom: ") and "in halves" in what for what in whats(output, 0, TOO_LARGE))
    told = [what for shard in range(ROWS // SHARD_ROWS) for what in whats_of(cluster, shard)]
    assert {"worker left (preempted)", "returned (preempted)"} & set(told)
    assert any(what.startswith("host_died: ") and "SIGKILL" in what for what in told)
    # Rows that nobody else has taken meanwhile it may keep.
    assert any("woke_late" in what or what == "granted again" for what in told), told
    events = command_line("events", output, "--lines").stdout
    assert '"InterruptionSeen"' in events and '"store_lost"' in events
    (reign,) = eventlog.reigns(open_output(cluster.spec))
    assert reigns.replay_reign(open_output(cluster.spec), reign).fault == ""


def whats_of(cluster: Cluster, shard: int) -> list[str]:
    life = lives.life_of(open_output(cluster.spec), shard)
    return [happening.what for reign in life.reigns for happening in reign.happenings]


BROKEN = """
class Model:
    def __call__(self, batch):
        if batch["id"][-1] >= 100:
            return {"other": batch["id"]}
        return {"y": batch["id"] * 2}
"""


def test_a_job_that_has_failed_says_why_until_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(write_yaml(write_job(tmp_path, BROKEN)))
    run = command_line("run", str(tmp_path / "job.yaml"))
    assert run.returncode == 1, run.stderr
    place = str(tmp_path / "out")
    shown = command_line("status", place)
    assert shown.returncode == 0, shown.stderr
    reason = run.stderr.strip().splitlines()[-1]
    assert "failed: " in shown.stdout and "causes: " in shown.stdout and "user_error" in shown.stdout, (shown.stdout, reason)
    told = json.loads(command_line("status", place, "--json").stdout)
    assert told["phase"] == "failed" and told["reason"].partition("\n")[0] in run.stderr
    unfinished = command_line("verify", place)
    assert (unfinished.returncode, "is not finished" in unfinished.stderr) == (4, True), unfinished.stderr

    (tmp_path / "steps.py").write_text(BROKEN.replace('"other"', '"y"'))
    done = command_line("run", str(tmp_path / "job.yaml"), "--force")
    assert done.returncode == 0, done.stderr
    assert command_line("status", place).stdout.count("done") == 1
    assert command_line("verify", place).returncode == 0
