"""Fault points: what arms them, who gets them, and what they leave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from antinfer import faultpoints
from antinfer.errors import UsageError
from antinfer.testing.chaos.points import PointFolder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[PointFolder]:
    points = PointFolder(tmp_path / "points")
    faultpoints.use(str(points.path))
    yield points
    faultpoints.use(None)


def start(folder: PointFolder, code: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **folder.environment}
    return subprocess.Popen(
        [sys.executable, "-c", f"from antinfer import faultpoints\n{code}"], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_every_point_in_the_source_is_listed_and_every_listed_one_is_there() -> None:
    sources = [path for top in ("antinfer", "master", "worker") for path in (ROOT / top).rglob("*.py") if path.name != "faultpoints.py"]
    called = re.compile(r'faultpoints\.(?:hit|copies)\(\s*"([^"]+)"')
    found = {name for path in sources for name in called.findall(path.read_text())}
    assert found == set(faultpoints.POINTS)


def test_no_point_is_called_like_a_file_that_arms_another() -> None:
    names = set(faultpoints.POINTS)
    assert [name for name in names if name.rpartition(".")[0] in names] == []


def test_the_page_lists_every_point() -> None:
    page = (ROOT / "docs" / "operations" / "fault-points.md").read_text()
    assert {name: meaning for name, meaning in faultpoints.POINTS.items() if f"| `{name}` | {meaning} |" not in page} == {}


def test_nothing_happens_where_nothing_is_armed(folder: PointFolder) -> None:
    faultpoints.hit("commit.sent", worker="w")
    assert faultpoints.copies("worker.send") == 1
    assert folder.proofs() == []


def test_it_fires_once_and_says_so(folder: PointFolder) -> None:
    armed = folder.arm("storage.write", "error", errno="ENOSPC")
    with pytest.raises(OSError, match="No space left") as caught:
        faultpoints.hit("storage.write", object="a")
    faultpoints.hit("storage.write", object="b")
    assert caught.value.errno == 28
    (proof,) = folder.proofs()
    assert (proof.armed, proof.point, proof.action, proof.pid) == (armed, "storage.write", "error", os.getpid())
    assert proof.what["object"] == "a"
    assert abs(proof.monotonic - time.monotonic()) < 60
    assert not folder.disarm(armed)


def test_what_user_code_could_raise(folder: PointFolder) -> None:
    folder.arm("user.call", "error", message="bad weights")
    with pytest.raises(RuntimeError, match="bad weights"):
        faultpoints.hit("user.call")


def test_choosy_plans(folder: PointFolder) -> None:
    folder.arm("commit.sent", "note", where={"worker": "w2"})
    folder.arm("commit.sent", "note", where={"program": "no such program"})
    faultpoints.hit("commit.sent", worker="w1")
    assert folder.proofs() == []
    faultpoints.hit("commit.sent", worker="w2")
    assert [proof.what["worker"] for proof in folder.proofs()] == ["w2"]


def test_a_poison_row_is_found_in_batches_and_alone(folder: PointFolder) -> None:
    folder.arm("user.call", "error", message="poison", row={"id": 3, "name": "c"}, times=0)
    batch = pa.record_batch({"id": [1, 2, 3], "name": ["a", "b", "c"]})
    faultpoints.hit("user.call", rows=batch.slice(0, 2))
    faultpoints.hit("user.call", rows=batch.select(["id"]))
    faultpoints.hit("user.call", rows={"id": 3, "name": "x"})
    for rows in (batch, batch.slice(2), {"id": 3, "name": "c"}):
        with pytest.raises(RuntimeError, match="poison"):
            faultpoints.hit("user.call", rows=rows)


def test_visits_that_pass_first(folder: PointFolder) -> None:
    folder.arm("commit.sent", "note", after=2)
    for number in range(4):
        faultpoints.hit("commit.sent", number=number)
    assert [proof.what["number"] for proof in folder.proofs()] == ["2"]


@pytest.mark.parametrize(("times", "fired"), [(3, 3), (0, 5)])
def test_more_than_once(folder: PointFolder, times: int, fired: int) -> None:
    armed = folder.arm("commit.sent", "note", times=times)
    for _ in range(5):
        faultpoints.hit("commit.sent")
    assert len(folder.proofs(armed)) == fired
    assert folder.disarm(armed)


def test_messages_are_dropped_and_doubled(folder: PointFolder) -> None:
    folder.arm("worker.send", "drop")
    folder.arm("worker.send", "duplicate")
    assert [faultpoints.copies("worker.send") for _ in range(3)] == [0, 2, 1]


def test_disarmed_in_time(folder: PointFolder) -> None:
    assert folder.disarm(folder.arm("commit.sent", "kill"))
    faultpoints.hit("commit.sent")


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ({"action": "kill"}, -signal.SIGKILL),
        ({"action": "term"}, -signal.SIGTERM),
        ({"action": "abort"}, -signal.SIGABRT),
        ({"action": "exit", "status": 7}, 7),
    ],
    ids=lambda value: value["action"] if isinstance(value, dict) else None,
)
def test_the_process_dies_and_the_proof_stays(folder: PointFolder, action: dict[str, object], status: int) -> None:
    armed = folder.arm("commit.sent", **action)  # type: ignore[arg-type]
    process = start(folder, "faultpoints.hit('commit.sent')\nprint('alive')")
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (status, "")
    assert [proof.pid for proof in folder.proofs(armed)] == [process.pid]


def test_one_of_many_processes_has_it(folder: PointFolder) -> None:
    armed = folder.arm("commit.sent", "kill")
    processes = [start(folder, "for _ in range(100): faultpoints.hit('commit.sent')") for _ in range(4)]
    ended = [process.wait(30) for process in processes]
    for process in processes:
        process.communicate()
    assert sorted(ended) == [-signal.SIGKILL, 0, 0, 0]
    assert len(folder.proofs(armed)) == 1


def test_stopped_for_a_while(folder: PointFolder) -> None:
    folder.arm("commit.sent", "stop", seconds=0.3)
    process = start(folder, "import time\nbegan = time.monotonic()\nfaultpoints.hit('commit.sent')\nprint(time.monotonic() - began)")
    out, _ = process.communicate(timeout=30)
    assert float(out) >= 0.3


@pytest.mark.parametrize(
    ("point", "action", "plan", "said"),
    [
        ("commit.snet", "kill", {}, "no fault point 'commit.snet'"),
        ("commit.sent", "explode", {}, "cannot 'explode'"),
        ("commit.sent", "drop", {}, "cannot 'drop'"),
        ("commit.sent", "delay", {"second": 1}, "unknown key 'second'"),
    ],
)
def test_what_cannot_be_armed(folder: PointFolder, point: str, action: str, plan: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        folder.arm(point, action, **plan)


def test_a_point_costs_next_to_nothing_when_nobody_tests() -> None:
    def seconds(body: str) -> float:
        import timeit

        return min(timeit.repeat(body, "from antinfer import faultpoints\ndef nothing(point, **what): pass", number=20_000, repeat=5))

    faultpoints.use(None)
    assert seconds("faultpoints.hit('commit.sent', worker=1)") < 5 * seconds("nothing('commit.sent', worker=1)")
